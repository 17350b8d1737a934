"""Held-out rankings: whole groups of one prompt (T19)."""

from matura.core.preferences import Answer, Ranking
from matura.data.preferences import pairs, sides
from tests.data.preferences.rows import said


def row(prompt: str, group: str = "", *more: dict[str, str]) -> Ranking:
    return Ranking(
        prompt, (said("user", prompt), *more), (Answer("a", 1), Answer("b", 2), Answer("c", 3)), group
    )


def test_no_prompt_has_pairs_on_both_sides() -> None:
    """T19: a split goes through no prompt."""
    rows = [row(f"question {n}{sign}") for n in range(60) for sign in ("", "!", " ?")]
    train, heldout = sides.split(rows, 30)
    names = [{one.messages[0]["content"].rstrip(" !?") for one in side} for side in (train, heldout)]
    assert not names[0] & names[1]
    assert 27 <= len(heldout) <= 30
    assert len(train) + len(heldout) == 180
    made = [{id(pair.prompt) for one in side for pair in pairs.of(one)} for side in (train, heldout)]
    assert not made[0] & made[1]


def test_later_turns_and_groups_stay_with_their_beginning() -> None:
    later = row("a", "", said("assistant", "x"), said("user", "more"))
    rows = [row("a"), later, row("b", "g"), row("c", "g"), row("C.", "h"), row("d", "h"), row("e")]
    names = sides.groups(rows)
    assert names[0] == names[1]
    assert len(set(names[2:6])) == 1  # g and h meet in c
    assert len(set(names)) == 3
    assert sides.groups(rows[::-1]) == names[::-1]


def test_a_new_row_moves_few_others() -> None:
    rows = [row(f"question {n}") for n in range(60)]
    before = {one.id for one in sides.split(rows, 20)[1]}
    after = {one.id for one in sides.split([row("new 1"), *rows[::-1], row("new 2")], 20)[1]}
    assert len(before & after) >= len(before) - 2


def test_with_few_groups_nothing_is_held_out() -> None:
    rows = [row("a"), row("b"), row("a")]
    assert sides.split(rows, 10) == (tuple(rows), ())
    rows = [row("a"), row("b"), row("c")]
    assert sides.split(rows, 0) == (tuple(rows), ())
    assert len(sides.split(rows, 10)[1]) == 1


def test_a_prompt_is_known_by_all_that_is_answered() -> None:
    plain = row("a")
    assert sides.prompt_id(plain) == sides.prompt_id(row("a", "g"))
    tools = Ranking("x", plain.messages, tools=({"name": "f"},))
    others = [row("A"), row("a", "", said("assistant", "b"), said("user", "c")), tools]
    assert len({sides.prompt_id(one) for one in (plain, *others)}) == 4
