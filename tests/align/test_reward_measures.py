"""Accuracy, intervals by group and calibration, against numbers made by hand."""

import numpy as np
import pytest

from matura.align.reward_measures import accuracy, calibration, length_correlation, margins


def test_accuracy_is_weighted_and_ties_count_half() -> None:
    found = margins([2.0, -1.0, 0.0, 3.0], [0.5, 0.5, 1.0, 1.0], ["a", "a", "b", "c"])
    share = accuracy(found)
    assert share is not None
    assert share.value == pytest.approx((0.5 + 0.5 + 1.0) / 3)
    assert (share.pairs, share.groups) == (4, 3)
    assert accuracy(margins([], [], [])) is None


def test_pairs_of_one_group_are_one_observation() -> None:
    """64 copies of each pair say no more than one of each; as if independent, the interval would be an eighth."""
    draw = np.random.default_rng(0)
    values = draw.normal(0.3, 1.0, 60)
    single = accuracy(margins(list(values), [1.0] * 60, [str(i) for i in range(60)]))
    copies = accuracy(
        margins(list(np.repeat(values, 64)), [1 / 64] * 3840, [str(i // 64) for i in range(3840)])
    )
    wrong = accuracy(margins(list(np.repeat(values, 64)), [1 / 64] * 3840, [str(i) for i in range(3840)]))
    assert single is not None
    assert copies is not None
    assert wrong is not None
    assert (copies.value, copies.low, copies.high) == pytest.approx((single.value, single.low, single.high))
    assert wrong.high - wrong.low < 0.2 * (single.high - single.low)


def test_a_model_that_knows_how_sure_it_is_has_no_calibration_error() -> None:
    draw = np.random.default_rng(1)
    logits = draw.normal(0, 2, 40_000)
    right = draw.random(40_000) < 1 / (1 + np.exp(-np.abs(logits)))
    values = np.where(right, np.abs(logits), -np.abs(logits))
    each = ([1.0] * 40_000, [str(i) for i in range(40_000)])
    good, sure = calibration(margins(list(values), *each)), calibration(margins(list(5 * values), *each))
    assert good is not None
    assert sure is not None
    assert good.error < 0.01
    assert sure.error > 0.1
    assert sum(one.pairs for one in good.bins) == 40_000
    assert all(one.low <= one.said <= one.high for one in good.bins)
    assert calibration(margins([], [], [])) is None


def test_calibration_by_hand() -> None:
    found = calibration(margins([0.0, 40.0, -40.0], [1.0, 1.0, 2.0], ["a", "b", "c"]))
    assert found is not None
    assert [(one.pairs, round(one.said, 6), round(one.right, 6)) for one in found.bins] == [
        (1, 0.5, 0.5),
        (2, 1.0, round(1 / 3, 6)),
    ]
    assert found.error == pytest.approx(0.75 * 2 / 3)


def test_length_correlation() -> None:
    found = margins([1.0, 2.0, 3.0, 4.0], [1.0] * 4, list("abcd"))
    assert length_correlation(found, [10, 20, 30, 40]) == pytest.approx(1)
    assert length_correlation(found, [-1, -2, -3, -4]) == pytest.approx(-1)
    assert length_correlation(found, [5, 5, 5, 5]) == 0
    assert found.where([True, False, False, True]).groups == ("a", "d")
