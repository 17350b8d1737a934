from decimal import Decimal

import pytest

from matura.align.rewards import answers
from matura.core.reward_settings import Exact, Length, Repetition
from tests.align.completions import asked, said

ON = {"weight": 1.0}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("40 + 2 = 42", "42"),
        ("#### 18\nThat was 3 eggs.", "18"),
        ("so\n#### $1,234.50", "1234.50"),
        ("1,000 dollars", "1000"),
        ("It is -7.", "-7"),
        ("about .5", "0.5"),
        ("no idea", None),
        ("", None),
        ("9" * 100, None),
    ],
)
def test_the_number_of_an_answer(text, found):
    assert answers.number(text) == (None if found is None else Decimal(found))


def test_exact_compares_values_not_letters_and_does_not_judge_without_gold():
    prompt = asked(gold="Janet has 1000 left.\n#### 1,000")
    given = [said("#### 1000.00", prompt), said("1001", prompt), said("what?", prompt), said("1000")]
    assert answers.exact(Exact(**ON), given) == [1.0, 0.0, 0.0, None]


def test_exact_by_last_line_and_by_text():
    prompt = asked(gold="b a")
    assert answers.exact(Exact(**ON, find="last_line"), [said("so:\nb a", prompt)]) == [1.0]
    assert answers.exact(Exact(**ON, find="text"), [said("so:\nb a", prompt), said(" b a\n", prompt)]) == [
        0.0,
        1.0,
    ]


def test_a_pattern_that_would_stall_a_backtracking_engine_takes_no_time():
    # Python's re needs minutes for this: 2^40 ways to cut the letters into groups.
    assert answers.pattern("^(a+)+$", [said("a" * 40 + "b"), said("aaa")]) == [0.0, 1.0]


def test_length_falls_on_a_line_and_cut_off_answers_cost_all():
    settings = Length(**ON, free=10, most=20)
    given = [said("", tokens=n) for n in (5, 10, 15, 20, 99)] + [said("", tokens=1, end="length")]
    assert answers.length(settings, given) == [0.0, 0.0, -0.5, -1.0, -1.0, -1.0]


def test_repetition_is_the_share_of_runs_that_came_before():
    settings = Repetition(**ON, words=2)
    assert answers.repetition(settings, [said("a b c d"), said("a b a b a"), said("a")]) == [0.0, -0.5, 0.0]


def test_ending():
    assert answers.ending([said("x"), said("x", end="length")]) == [0.0, -1.0]
