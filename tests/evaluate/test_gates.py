import numpy as np
import pytest

from matura.core.errors import ConfigError
from matura.evaluate.gates import Gate, accuracy, bits_per_byte, check, judge

RESAMPLES = 2000


def documents(items=40, gain=0.0, noise=0.01, name="domain.bpb", level=1.0, seed=0):
    """Bits of documents of 500 bytes whose child is `gain` bits per byte better, give or take `noise`."""
    random = np.random.default_rng(seed)
    parent = 500 * random.normal(level, 0.1, items)
    child = parent - 500 * random.normal(gain, noise, items) if gain or noise else parent
    return bits_per_byte(name, list(parent), list(child), [500] * items)


def answers(right, wrong_to_right=0, right_to_wrong=0, items=200, chance=0.25, name="acc"):
    parent = np.zeros(items)
    parent[:right] = 1
    child = parent.copy()
    child[:right_to_wrong] = 0
    child[right : right + wrong_to_right] = 1
    return accuracy(name, list(parent), list(child), chance)


def verdict(metric, gate=None):
    judged, _ = judge([metric], [gate] if gate else [], resamples=RESAMPLES)
    return judged[0]


def test_identical_models_differ_by_exactly_zero_and_are_unchanged():
    for metric in (documents(noise=0), answers(100)):
        one = verdict(metric)
        assert (one.difference, one.low, one.high) == (0.0, 0.0, 0.0)
        assert one.verdict == "unchanged"


def test_a_model_that_forgot_is_regressed():
    assert verdict(documents(gain=-0.10)).verdict == "regressed"
    assert verdict(answers(140, right_to_wrong=60)).verdict == "regressed"


def test_a_model_that_learned_is_improved():
    one = verdict(documents(gain=0.10))
    assert one.verdict == "improved"
    assert one.relative_gain == pytest.approx(0.10, abs=0.01)
    assert one.difference < 0 < one.gain
    assert verdict(answers(100, wrong_to_right=40)).verdict == "improved"


def test_a_loss_within_the_margin_is_unchanged_even_when_it_is_certain():
    one = verdict(documents(gain=-0.01, noise=0.005))
    assert one.high < 0
    assert one.verdict == "unchanged"


def test_a_difference_that_is_not_significant_is_not_therefore_unchanged():
    one = verdict(documents(items=12, noise=0.2))
    assert one.low < 0 < one.high
    assert one.verdict == "not measurable"


@pytest.mark.parametrize("items", [1, 9])
def test_too_few_items_measure_nothing(items):
    for gain in (0.5, -0.5, 0.0):
        one = verdict(documents(items=items, gain=gain))
        assert one.verdict == "not measurable"
        assert "too few items" in one.why


def test_no_change_in_few_answers_does_not_prove_a_small_margin():
    # Nothing changed in 30 answers, yet up to 3/30 = 10 points may hide there: more than the margin of 4.
    one = verdict(answers(20, items=30))
    assert (one.low, one.high) == (0.0, 0.0)
    assert one.verdict == "not measurable"
    assert verdict(answers(50, items=75)).verdict == "unchanged"


def test_models_that_guess_are_not_measurable():
    one = verdict(answers(52, items=200))
    assert one.verdict == "not measurable"
    assert "chance" in one.why


def test_falling_to_chance_is_a_regression_and_rising_above_it_an_improvement():
    assert verdict(answers(120, right_to_wrong=70)).verdict == "regressed"
    assert verdict(answers(50, wrong_to_right=70)).verdict == "improved"


def test_direction_is_turned_for_the_reader():
    lower, higher = documents(gain=0.1), answers(100, wrong_to_right=40)
    judged, _ = judge([lower, higher], [], resamples=RESAMPLES)
    assert all(one.gain > 0 and one.low > 0 for one in judged)


def test_gates_pass_and_fail_by_verdict():
    metrics = [documents(gain=-0.10, name="bad"), documents(gain=0.1, name="good"), answers(52, name="guess")]
    demands = ("regressed", "not unchanged", "not improved")
    failed = {
        (name, demand): bool(judge(metrics, [Gate(name, demand)], resamples=RESAMPLES)[1])
        for name in ("bad", "good", "guess")
        for demand in demands
    }
    assert [failed["bad", d] for d in demands] == [True, True, True]
    assert [failed["good", d] for d in demands] == [False, False, False]
    assert [failed["guess", d] for d in demands] == [False, True, True]


def test_a_reason_says_what_happened():
    _, reasons = judge([documents(gain=-0.10)], [Gate("domain.bpb")], resamples=RESAMPLES)
    assert len(reasons) == 1
    assert reasons[0].startswith("domain.bpb: regressed")
    assert "40 items" in reasons[0]


def test_minimum_gain_is_a_share_of_the_parent():
    metric = bits_per_byte("domain.bpb", [100.0] * 20, [90.0] * 20, [100] * 20)
    assert judge([metric], [Gate("domain.bpb", min_gain=0.10)], resamples=200)[1] == []
    (reason,) = judge([metric], [Gate("domain.bpb", min_gain=0.11)], resamples=200)[1]
    assert "10.0% better" in reason
    assert "11.0%" in reason


def test_a_gain_must_exceed_the_control():
    gate = Gate("domain.bpb", more_than="control.bpb")
    control = documents(gain=0.03, name="control.bpb", level=2.0, seed=2)
    judged, reasons = judge([documents(gain=0.1), control], [gate], resamples=RESAMPLES)
    assert reasons == []
    contrast = judged[-1]
    assert contrast.name == "domain.bpb > control.bpb"
    assert contrast.gain == pytest.approx(0.10 - 0.015, abs=0.01)
    assert contrast.verdict == "improved"


@pytest.mark.parametrize("gain", [0.05, 0.02])
def test_a_gain_that_the_control_shares_fails(gain):
    gate = Gate("domain.bpb", more_than="control.bpb")
    control = documents(gain=0.1, name="control.bpb", level=2.0, noise=0.02, seed=2)
    _, reasons = judge([documents(gain=gain, noise=0.02), control], [gate], resamples=RESAMPLES)
    assert len(reasons) == 1
    assert "control" in reasons[0]


def test_patterns_name_several_metrics():
    metrics = [documents(gain=-0.1, name="a.gold_bpb"), documents(name="b.gold_bpb"), documents(name="other")]
    judged, reasons = judge(metrics, [Gate("*.gold_bpb")], resamples=RESAMPLES)
    assert [one.gated for one in judged] == [True, True, False]
    assert [reason.split(":")[0] for reason in reasons] == ["a.gold_bpb"]


def test_a_family_of_gates_widens_its_intervals_and_leaves_the_others_alone():
    metrics = [documents(name=f"m{i}", noise=0.05, seed=i) for i in range(5)]
    alone, _ = judge(metrics, [], resamples=RESAMPLES)
    family, _ = judge(metrics, [Gate("m[0-3]")], resamples=RESAMPLES)
    for before, after in zip(alone[:4], family[:4], strict=True):
        assert after.level > before.level == 0.95
        assert after.low < before.low < before.high < after.high
        assert after.p >= before.p
    assert family[4] == alone[4]


@pytest.mark.parametrize(
    "gate", [Gate("domain.bpp"), Gate("domain.bpb", more_than="controls.bpb"), Gate("nothing.*")]
)
def test_a_gate_about_no_metric_is_an_error_not_a_pass(gate):
    with pytest.raises(ConfigError, match="no metric is called") as raised:
        check([gate], ["domain.bpb", "control.bpb"])
    assert "domain.bpb, control.bpb" in str(raised.value)
    if gate.metric == "domain.bpp":
        assert "Did you mean 'domain.bpb'" in str(raised.value)


def test_every_verdict_tells_what_change_its_items_could_see():
    same = [1.0] * 60 + [0.0] * 40
    moved = [0.0] * 10 + [1.0] * 60 + [0.0] * 30
    bits = [10.0 + n % 7 for n in range(50)]
    metrics = [
        accuracy("same.acc", same, same, 0.5),
        accuracy("moved.acc", same, moved, 0.5),
        bits_per_byte("same.bpb", bits, bits, [10] * 50),
        bits_per_byte("moved.bpb", bits, [one + n % 3 for n, one in enumerate(bits)], [10] * 50),
    ]
    found = {one.name: one.detectable for one in judge(metrics, [], resamples=1000)[0]}
    assert found["same.acc"] == pytest.approx(
        2.8016 * (0.03 / 100) ** 0.5, rel=1e-4
    )  # up to 3 in n may differ unseen
    assert found["moved.acc"] == pytest.approx(2.8016 * (0.2 / 100) ** 0.5, rel=1e-4)
    assert found["same.bpb"] is None
    assert 0 < found["moved.bpb"] < 0.1
