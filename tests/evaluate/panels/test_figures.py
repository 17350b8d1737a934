import pytest

from matura.evaluate.panels.figures import (
    Combined,
    Figure,
    agresti_min,
    compared,
    grouped,
    row,
    shares,
    wilson,
)

DRAWS = {"resamples": 1000, "seed": 0}


def test_a_share_has_wilsons_interval():
    """7 of 10, by the formula: 0.397 to 0.892."""
    found = row(Figure("x", [1.0] * 7 + [0.0] * 3, neutral=0.5), **DRAWS)
    assert (found["value"], found["items"], found["neutral"]) == (0.7, 10, 0.5)
    assert found["low"] == pytest.approx(0.3968, abs=1e-4)
    assert found["high"] == pytest.approx(0.8922, abs=1e-4)


def test_none_of_few_is_not_called_certain():
    found = row(Figure("x", [0.0] * 5), **DRAWS)
    assert (found["value"], found["low"]) == (0, 0)
    assert found["high"] == pytest.approx(0.4345, abs=1e-4)
    assert wilson(1.0, 5)[1] == 1


def test_other_figures_are_resampled_over_items():
    found = row(Figure("x", [1.0, 2.0, 6.0], weights=[1.0, 2.0, 3.0], unit="bits"), **DRAWS)
    assert found["value"] == 1.5
    assert 1 <= found["low"] < 1.5 < found["high"] <= 2


def test_nothing_to_measure_is_no_figure():
    found = row(Figure("x", []), **DRAWS)
    assert (found["value"], found["low"], found["high"], found["items"]) == (None, None, None, 0)


def test_two_models_differ_on_the_same_items():
    parent, child = Figure("x", [0.0, 1.0, 0.0, 1.0] * 10), Figure("x", [1.0, 1.0, 0.0, 1.0] * 10)
    found = compared(parent, child, **DRAWS)
    assert (found["parent"], found["value"], found["difference"]) == (0.5, 0.75, 0.25)
    assert 0 < found["difference_low"] < 0.25 < found["difference_high"]


def test_equal_models_differ_by_exactly_nothing():
    same = Figure("x", [0.3, 0.9, 0.1])
    found = compared(same, same, **DRAWS)
    assert (found["difference"], found["difference_low"], found["difference_high"]) == (0, 0, 0)


def test_figures_of_different_items_are_not_subtracted():
    one, other = Figure("x", [1.0, 0.0]), Figure("x", [1.0])
    assert compared(one, other, **DRAWS)["difference"] is None
    assert compared(one, Figure("x", [1.0, 0.0], weights=[1, 2]), **DRAWS)["difference"] is None
    assert compared(Figure("x", []), Figure("x", []), **DRAWS)["difference"] is None


def test_parts_stand_below_the_whole():
    found = shares("x", {"a": [1.0, 0.0], 4: [1.0]}, neutral=0.5)
    assert [(one.part, list(one.values), one.neutral) for one in found] == [
        ("", [1, 0, 1], 0.5),
        ("a", [1, 0], 0.5),
        ("4", [1], 0.5),
    ]
    assert [one.part for one in shares("x", {"a": [1.0]})] == [""]


def test_a_combined_figure_is_made_of_figures_and_of_their_resamples():
    product = Combined("x", (Figure("a", [0.0, 1.0] * 20), Figure("b", [1.0, 0.5] * 20)), lambda a, b: a * b)
    found = row(product, **DRAWS)
    assert (found["value"], found["items"], found["unit"]) == (0.5 * 0.75, 40, "score")
    assert 0 < found["low"] < 0.375 < found["high"] < 1
    assert compared(product, product, **DRAWS)["difference"] is None


def test_a_difference_is_not_called_certain_because_few_changed():
    """12 of 100 one way, 4 the other: (12.5 - 4.5) / 102, with a spread of 1.96 * sqrt(17 - 64 / 102) / 102."""
    low, high = agresti_min(12, 4, 100)
    assert (low, high) == pytest.approx((0.07843 - 0.07776, 0.07843 + 0.07776), abs=1e-4)
    one_of_thirty = row(Figure("x", [1.0] + [0.0] * 29, unit="difference", neutral=0.0), **DRAWS)
    assert one_of_thirty["low"] < 0 < one_of_thirty["value"] < one_of_thirty["high"]
    both_against = row(Figure("x", [-1.0, -1.0], unit="lean"), **DRAWS)
    assert both_against["low"] == -1
    assert both_against["high"] > -0.2


def test_none_of_several_each_is_not_called_certain_either():
    none = row(Figure("x", [0.0] * 24, [3.0] * 24), **DRAWS)
    every = row(Figure("x", [3.0] * 24, [3.0] * 24), **DRAWS)
    assert (none["value"], none["low"], every["value"], every["high"]) == (0, 0, 1, 1)
    assert none["high"] == pytest.approx(0.138, abs=1e-3) == 1 - every["low"]


def test_values_are_grouped_by_key():
    assert grouped([4, 1, 4, 0], [2.0, 1.0, 3.0, 5.0]) == {0: [5.0], 1: [1.0], 4: [2.0, 3.0]}
