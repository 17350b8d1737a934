import math

import pytest

from matura.align.rewards import Part, Weighted, build
from matura.core.config import parse
from matura.core.errors import ConfigError, MaturaError
from matura.core.raw import raw_input
from matura.core.reward_settings import Rewards, check_rewarded
from tests.align.completions import asked, said


def gives(*values):
    return lambda completions: values


def test_a_weighted_sum_with_each_part_for_the_log():
    rewards = Weighted(
        (Part("a", 2.0, gives(1, 0)), Part("b", -0.5, gives(1, 1)), Part("held", 0.0, gives(9, 9)))
    )
    scores = rewards([said("x"), said("y")])
    assert scores.total == [1.5, -0.5]
    assert scores.each == {"a": [1.0, 0.0], "b": [1.0, 1.0], "held": [9.0, 9.0]}
    assert scores.means() == {"reward.a": 0.5, "reward.b": 1.0, "reward.held": 9.0}


def test_what_is_not_judged_is_excluded_and_does_not_count_as_zero():
    one, two, three = asked("1"), asked("2"), asked("3")
    given = [said("x", one), said("y", one), said("x", two), said("x", three)]
    rewards = Weighted((Part("a", 1.0, gives(1, None, None, None)), Part("b", 1.0, gives(5, 5, 5, None))))
    # The second answer to 1 lacks what its rival has; to 2 nobody has it; to 3 nothing is known.
    assert rewards(given).total == [6.0, None, 5.0, None]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((1.0,), "gave 1 values for 2"),
        ((1.0, math.nan), "gave nan for completion 1"),
        ((1.0, "good"), "gave 'good' for completion 1"),
    ],
)
def test_wrong_values_name_the_reward(values, message):
    with pytest.raises(MaturaError, match=f"reward mine {message}"):
        Weighted((Part("mine", 1.0, gives(*values)),))([said("x"), said("y")])


def test_functions_of_ones_own(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def polite(completions):\n    return ['please' in one.text for one in completions]\n")
    settings = Rewards(own={"polite": {"file": str(file), "weight": 3}})
    rewards = build(settings, {"rewards.own.polite.file": raw_input(file)})
    assert rewards([said("please"), said("no")]).total == [3.0, 0.0]


def test_a_function_that_fails_is_named_with_its_line(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def polite(completions):\n    return 1 / 0\n")
    rewards = build(
        Rewards(own={"polite": {"file": str(file)}}), {"rewards.own.polite.file": raw_input(file)}
    )
    with pytest.raises(MaturaError, match=r"reward polite failed: ZeroDivisionError: .*mine\.py:2"):
        rewards([said("x")])


def test_a_function_that_is_not_there_is_an_error_with_the_nearest_name(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def polite(completions):\n    return []\n")
    settings = Rewards(own={"a": {"file": str(file), "function": "polit"}})
    with pytest.raises(
        ConfigError, match=r"rewards\.own\.a\.function: .* no function 'polit'; did you mean 'polite'"
    ):
        build(settings, {"rewards.own.a.file": raw_input(file)})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"exat": {"weight": 1}}, "exat: unknown setting; did you mean 'exact'"),
        ({"length": {"free": 3}}, "length is set, but has no weight"),
        ({"pattern": {"weight": 1}}, "give both a pattern and a weight"),
        ({"pattern": {"weight": 1, "pattern": "(?=x)"}}, "no pattern of RE2"),
        ({"own": {"exact": {"file": "x.py"}}}, "own.exact: there is a reward of this name"),
    ],
)
def test_settings_that_would_do_nothing_or_are_unknown_are_errors(values, message):
    with pytest.raises(ConfigError, match=message):
        parse(Rewards, values, "")


def test_something_must_be_rewarded():
    with pytest.raises(ValueError, match="nothing has a weight"):
        check_rewarded(Rewards(exact={"weight": 0}))
    check_rewarded(Rewards(exact={"weight": 1}))


def test_all_built_in_rewards_are_built():
    names = {
        "exact": {},
        "pattern": {"pattern": "x"},
        "length": {},
        "repetition": {},
        "ending": {},
        "tests": {},
    }
    rewards = build(Rewards(**{name: {"weight": 1, **more} for name, more in names.items()}), {})
    scores = rewards([said("x", asked(gold="1", tests="assert True"))])
    assert list(scores.each) == list(names)
    assert scores.total == [0 + 1 + 0 + 0 + 0 + 0]
