"""The sitting as a function of keys: ranks, ties, skips, undo; random keys never lose what was saved."""

import random

import pytest

from matura.align.ranking import items, session
from matura.align.ranking.session import KEYS, press, start
from matura.core.errors import MaturaError
from tests.align.ranking.made_rows import row

QUEUE = items.queue([row(n) for n in range(4)], "ada", 0)


def typed(keys, queue=QUEUE, state=None):
    """The state after keys written side by side ("." is enter), and the verdicts on the way."""
    state, verdicts = state or start(queue), []
    for key in keys:
        state, verdict = press(queue, state, "enter" if key == "." else key)
        verdicts += [verdict] if verdict else []
    return state, verdicts


def by_position(verdict):
    return [verdict.ranks[same[0]] for same in verdict.item.shown]


def test_digits_go_from_answer_to_answer_and_enter_saves():
    state, (verdict,) = typed("2143.")
    assert by_position(verdict) == [2, 1, 4, 3]
    assert state.at == 1
    assert state.places == (None,) * 4


def test_ranks_belong_to_answers_wherever_they_were_shown():
    item = QUEUE[0]
    _, (verdict,) = typed("1234.")
    best = item.row.answers[verdict.ranks.index(1)]
    assert best.text == item.texts[0]
    assert sorted(verdict.shown) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("keys", "ranks"),
    [
        ("1t23.", [1, 1, 2, 3]),
        ("1224.", [1, 2, 2, 3]),  # equal places are a tie, and there are no gaps
        ("4x31.", [3, None, 2, 1]),
        ("c1234.", [3, 4, 1, 2]),  # from the answer in focus, going round
        ("1234a4.", [3, 1, 2, 3]),
        ("1234ax.", [None, 1, 2, 3]),
        ("tttt1111.", [1, 1, 1, 1]),
    ],
)
def test_places(keys, ranks):
    _, (verdict,) = typed(keys)
    assert by_position(verdict) == ranks


@pytest.mark.parametrize(
    ("keys", "notice"),
    [
        ("12.", "C, D: give a place"),
        ("xxx1.", "Fewer than two"),
        ("t", "A tie with what"),
        ("5", "There are 4 places"),
        ("e", "no answer E"),
        ("?", "is no key"),
        ("u", "nothing to undo"),
        ("s" * 4 + "1", "Everything is judged"),
    ],
)
def test_what_cannot_be_is_said_and_changes_nothing(keys, notice):
    before, _ = typed(keys[:-1])
    after, verdicts = typed(keys)
    assert notice in after.notice
    assert after == before
    assert not [one for one in verdicts if one.ranks]


def test_a_skip_is_a_verdict_without_ranks():
    state, (verdict,) = typed("12s")
    assert verdict.ranks == ()
    assert verdict.item is QUEUE[0]
    assert state.at == 1


def test_undo_opens_the_last_prompt_again_with_its_places_and_goes_on_behind_it():
    state, verdicts = typed("1234.21u")
    assert state.places == (2, None, None, None)
    state, _ = typed("uu", state=state)
    assert (state.at, state.places) == (0, (1, 2, 3, 4))
    state, again = typed("d1.", state=state)
    assert by_position(again[0]) == [1, 2, 3, 1]
    assert state.at == 1
    assert len(verdicts) == 1


def test_after_an_undo_what_was_judged_already_is_not_asked_again():
    state, _ = typed("1234.1234.1234.")
    state, _ = typed("u" * 11, state=state)  # back over two prompts
    assert state.at == 0
    state, _ = typed("s", state=state)
    assert state.at == 3


def test_a_sitting_begins_at_the_first_prompt_that_is_open():
    assert start(QUEUE, frozenset({"p0", "p2"})).at == 1
    state, _ = typed("s", state=start(QUEUE, frozenset({"p0", "p2"})))
    assert state.at == 3
    assert start(QUEUE, frozenset(f"p{n}" for n in range(4))).at == 4
    assert start(()).at == 0


def test_random_keys_lose_no_verdict_and_undo_restores_exactly():
    keys = sorted(KEYS)
    for seed in range(200):
        draw = random.Random(seed)
        state, kept = start(QUEUE), {}
        for _ in range(60):
            key = draw.choice([*keys, "enter", *"1234"])
            after, verdict = press(QUEUE, state, key)
            if verdict:
                assert verdict.item is QUEUE[state.at]
                assert not verdict.ranks or state.complete
                kept[state.at] = verdict
            assert after.settled == frozenset(kept)  # nothing that was saved is ever open again by itself
            moved = (after.at, after.places, after.last) != (state.at, state.places, state.last)
            if key != "u" and after.before is not state.before:
                assert press(QUEUE, after, "u")[0] == state
            elif key != "u":
                assert not moved
            assert len(after.places) == (4 if after.at < 4 else 0)
            state = after


def test_positions_are_shuffled_by_seed_and_annotator_alone():
    orders = {
        items.item(row(n), who, seed).shown for n in range(50) for who in ("ada", "eve") for seed in (0, 1)
    }
    assert len(orders) == 24  # every order of four answers comes
    assert items.item(row(1), "ada", 0) == items.item(row(1), "ada", 0)
    first = [items.item(row(n), "ada", 0).shown[0][0] for n in range(400)]
    assert all(70 < first.count(answer) < 130 for answer in range(4))


def test_equal_texts_are_one_position_and_get_one_rank():
    one = items.item(row(1, "yes", "no", "yes", "maybe"), "ada", 0)
    assert len(one.shown) == 3
    places = [{"yes": 2, "no": 1, "maybe": 3}[text] for text in one.texts]
    assert one.ranks(places) == (2, 1, 2, 3)
    assert items.queue([row(1, "yes", "yes"), row(2)], "ada", 0)[0].row.id == "p2"


def test_more_answers_than_keys_are_refused():
    many = row(1, *(f"answer {n}" for n in range(10)))
    with pytest.raises(MaturaError, match="--answers 9"):
        items.item(many, "ada", 0)
    assert len(items.item(items.unjudged(many, 9), "ada", 0).shown) == 9


def test_keys_are_shown_by_their_names():
    assert {"1", "9", "a", "i", session.TIE, session.SAVE} <= KEYS
