import statistics

import pytest

from matura.align.groups import EPS, advantages

REWARDS = [1.0, 0.0, 0.0, 0.5]


def test_std_is_the_deviation_of_the_sample():
    mean, std = statistics.fmean(REWARDS), statistics.stdev(REWARDS)
    assert advantages(REWARDS, "std").advantages == pytest.approx([(r - mean) / (std + EPS) for r in REWARDS])


def test_mean_and_leave_one_out():
    assert advantages(REWARDS, "mean").advantages == pytest.approx([r - 0.375 for r in REWARDS])
    others = [r - (sum(REWARDS) - r) / 3 for r in REWARDS]
    assert advantages(REWARDS, "leave_one_out").advantages == pytest.approx(others)


@pytest.mark.parametrize("kind", ["std", "mean", "leave_one_out"])
def test_t27_even_groups_give_exactly_nothing(kind):
    # 0.1 + 0.2 style sums: a mean of equal values may differ from them in the last bit.
    group = advantages([0.1] * 3, kind)
    assert group.advantages == (0.0, 0.0, 0.0)
    assert group.is_even
    assert not advantages([0.1, 0.1, 0.2], kind).is_even


@pytest.mark.parametrize("kind", ["std", "mean", "leave_one_out"])
def test_t27_what_was_not_judged_has_no_advantage_and_changes_none(kind):
    some = advantages([1.0, None, 0.0, None], kind)
    alone = advantages([1.0, 0.0], kind)
    assert some.advantages == (alone.advantages[0], None, alone.advantages[1], None)
    assert some.judged == 2


def test_t27_a_single_judged_answer_has_nobody_to_be_compared_with():
    assert advantages([1.0, None], "std").advantages == (None, None)
    assert advantages([], "std").judged == 0
