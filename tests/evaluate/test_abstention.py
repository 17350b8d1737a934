import random

import pytest

from matura.evaluate import abstention
from matura.evaluate.abstention import DECLINES


@pytest.fixture
def asked():
    return list(abstention.questions(40, seed=1))


def test_a_pair_differs_by_the_sentence_that_answers(asked):
    for told, untold in zip(asked[::2], asked[1::2], strict=True):
        assert (told.question, told.choices, told.pair) == (untold.question, untold.choices, untold.pair)
        assert told.answerable
        assert not untold.answerable
        answer = told.choices[told.gold]
        assert untold.choices[untold.gold] == DECLINES != answer
        missing = [s for s in told.text.split(". ") if s.rstrip(".") not in untold.text]
        assert len(missing) == 1
        assert answer.rstrip(".") in missing[0]
        assert answer.rstrip(".") not in untold.text


def test_wrong_choices_stand_in_the_text(asked):
    for one in asked:
        wrong = [c for i, c in enumerate(one.choices) if i not in (one.gold, one.declining)]
        stand = [c for c in wrong if c.rstrip(".") in one.text]
        assert len(stand) == 2


def test_places_of_the_right_choice_say_nothing(asked):
    places = [sum(one.gold == place for one in asked) for place in range(4)]
    assert min(places) > 8


def test_a_seed_makes_the_same_questions():
    assert list(abstention.questions(3, 1)) == list(abstention.questions(5, 1))[:6]
    assert list(abstention.questions(3, 1)) != list(abstention.questions(3, 2))


@pytest.mark.parametrize(
    "text",
    [
        "The text does not say.",
        "I don't know.",
        "\n It is not mentioned in the text.",
        "There is no information about that.",
        "That cannot be determined.",
        "Unknown",
        "I can't tell.",
        "It isn't stated.",
        "It is unclear.",
    ],
)
def test_declining_is_told(text):
    assert abstention.declined(text)


@pytest.mark.parametrize("text", ["Lisbon.", "", "She is a baker.", "He knows.", "Oslo.\nI don't know."])
def test_an_answer_is_no_declining(text):
    assert not abstention.declined(text)


def test_the_figures_by_hand(asked):
    """Four questions: declined rightly, declined needlessly, answered rightly, answered without evidence."""
    told, untold, more, none = asked[:4]
    answers = [told.declining, untold.declining, more.gold, (none.gold + 1) % 4]
    found = abstention.chosen([told, untold, more, none], answers)
    assert found == abstention.Declining(without=(1, 0), needlessly=(1, 0), right=(0, 1))
    assert found.gains == (0, 0)
    words = ["I do not know.", "The text doesn't say.", f"It is the {more.choices[more.gold]}", "Lisbon"]
    assert abstention.wrote([told, untold, more, none], words) == found


def test_always_declining_and_never_declining_gain_nothing(asked):
    always = abstention.chosen(asked, [one.declining for one in asked])
    assert (sum(always.without), sum(always.needlessly), sum(always.right)) == (40, 40, 0)
    assert set(always.gains) == {0}
    told = [
        one.choices.index(asked[2 * (i // 2)].choices[asked[2 * (i // 2)].gold])
        for i, one in enumerate(asked)
    ]
    never = abstention.chosen(asked, told)
    assert (sum(never.without), sum(never.right), set(never.gains)) == (0, 40, {0})
    assert set(abstention.chosen(asked, [one.gold for one in asked]).gains) == {1}


def test_guessing_is_at_chance():
    asked = list(abstention.questions(600))
    chance = random.Random(0)
    found = abstention.chosen(asked, [chance.randrange(4) for _ in asked])
    assert abs(sum(found.gains) / len(found.gains) + 0.5) < 0.1


def test_certainty_is_the_share_of_the_likeliest():
    assert abstention.certainty([0.0, 0.0]) == 0.5
    assert abstention.certainty([-1000.0, -1000.0, -1000.0, -2000.0]) == pytest.approx(1 / 3)


def test_the_surest_half_by_hand():
    assert abstention.surest([0.9, 0.2, 0.7, 0.4], [1.0, 0.0, 0.0, 1.0]) == [1, 0]
    assert abstention.surest([0.9, 0.2, 0.7], [1.0, 0.0, 0.5]) == [1, 0.5]


def test_certainty_that_says_nothing_gains_nothing():
    chance = random.Random(0)
    right = [float(chance.random() < 0.3) for _ in range(4000)]
    half = abstention.surest([chance.random() for _ in right], right)
    assert abs(sum(half) / len(half) - 0.3) < 0.03


def test_pairs_told_apart_by_hand():
    assert abstention.told_apart([-1.0, -2.0, -3.0], [-0.5, -2.0, -4.0]) == [1, 0.5, 0]


def test_a_model_to_which_the_evidence_is_nothing_tells_half_of_the_pairs_apart():
    chance = random.Random(0)
    fond = 5.0  # of declining, always
    margins = [[fond + chance.random() for _ in range(3000)] for _ in range(2)]
    found = abstention.told_apart(*margins)
    assert abs(sum(found) / len(found) - 0.5) < 0.03
