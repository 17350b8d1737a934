import numpy as np
import pytest

from matura.evaluate import statistics
from matura.evaluate.statistics import holm, interval, mean, p_value, paired


def test_equal_models_differ_by_exactly_zero():
    values = np.random.default_rng(1).normal(size=30)
    result = paired(values, values, np.full(30, 3.0), resamples=500)
    assert result.difference == 0.0
    assert not result.difference_samples.any()
    assert p_value(result.difference_samples) == 1.0


def test_a_ratio_is_a_ratio_of_sums():
    result = paired([10.0, 1.0], [20.0, 1.0], [10.0, 1.0], resamples=50)
    assert result.parent == pytest.approx(11 / 11)
    assert result.child == pytest.approx(21 / 11)
    # A resample draws (0,0), (0,1) or (1,1): the only ratios there are.
    possible = np.array([10 / 10, 11 / 11, 1 / 1])
    assert np.isin(np.round(result.parent_samples, 12), np.round(possible, 12)).all()


def test_resamples_agree_with_drawing_items_by_hand():
    random = np.random.default_rng(3)
    p, d, w = random.normal(5, 1, 40), random.normal(0.3, 1, 40), random.uniform(1, 5, 40)
    ours = interval(paired(p, p + d, w, resamples=20_000, seed=1).difference_samples)
    drawn = random.integers(0, 40, size=(20_000, 40))
    theirs = np.quantile(d[drawn].sum(1) / w[drawn].sum(1), [0.025, 0.975])
    assert ours == pytest.approx(theirs, abs=0.01)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        d = random.normal(0.5, 1.0, 60)
        low, high = interval(paired(np.zeros(60), d, resamples=1000, seed=trial).difference_samples)
        hits += low < 0.5 < high
    assert 180 <= hits <= 199


def test_chunks_do_not_change_the_draws(monkeypatch):
    values = np.arange(20.0)
    whole = paired(values, values**2, resamples=300, seed=5)
    monkeypatch.setattr(statistics, "CHUNK", 100)
    assert np.array_equal(
        paired(values, values**2, resamples=300, seed=5).difference_samples, whole.difference_samples
    )


def test_the_seed_decides_the_draws():
    values = np.arange(20.0)
    a, b, c = (mean(values, resamples=100, seed=s)[1] for s in (1, 1, 2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


@pytest.mark.parametrize(
    ("parent", "child", "weights"),
    [
        ([], [], None),
        ([1.0], [1.0, 2.0], None),
        ([1.0], [1.0], [0.0]),
        ([1.0], [float("nan")], None),
        ([float("inf")], [1.0], None),
    ],
)
def test_values_that_cannot_be_paired_are_refused(parent, child, weights):
    with pytest.raises(ValueError, match="paired items"):
        paired(parent, child, weights, resamples=10)


def test_p_value_is_two_sided_and_never_zero():
    assert p_value(np.full(999, 1.0)) == pytest.approx(0.002)
    assert p_value(np.full(999, -1.0)) == pytest.approx(0.002)


def test_holm_follows_the_textbook():
    # m = 4: 0.005*4, 0.01*3, max(0.03*2, .), max(0.04*1, .)
    result = holm([0.01, 0.04, 0.03, 0.005])
    assert result.adjusted == pytest.approx((0.03, 0.06, 0.06, 0.02))
    # 0.005 and 0.01 are rejected at 0.05/4 and 0.05/3; 0.03 fails at 0.05/2 and stops the rest there.
    assert result.alphas == pytest.approx((0.05 / 3, 0.05 / 2, 0.05 / 2, 0.05 / 4))


def test_holm_of_one_is_no_correction_and_of_none_is_empty():
    assert holm([0.03]).adjusted == (0.03,)
    assert holm([0.03]).alphas == (0.05,)
    assert holm([]).adjusted == ()


@pytest.mark.parametrize(("changed", "items"), [(0.4, 100), (0.1, 1000), (0.4, 400)])
def test_what_is_said_to_be_detectable_is_detected_in_four_exams_of_five(changed, items):
    """Simulated: answers change for `changed` of the items, more often to right than to wrong."""
    random = np.random.default_rng(0)
    effect = statistics.detectable(changed, items)
    gain = (changed + effect) / 2
    draws = random.multinomial(items, [gain, changed - gain, 1 - changed], size=4000)
    better, worse = draws[:, 0], draws[:, 1]
    difference = (better - worse) / items
    error = np.sqrt(((better + worse) / items - difference**2) / items)
    power = float((np.abs(difference) > 1.96 * error).mean())
    assert power == pytest.approx(0.8, abs=0.06)


def test_known_powers():
    assert statistics.detectable(0.1, 100) == pytest.approx(0.0886, abs=1e-4)
    assert statistics.detectable(0.1, 1000) == pytest.approx(0.0280, abs=1e-4)
    assert statistics.detectable(1.0, 1) == 1.0
