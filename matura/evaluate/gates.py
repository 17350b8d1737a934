"""The one definition of a gate: is a child model better than, as good as, or worse than its parent?

Parent and child answer the same items. The difference is turned so that positive means the child is better
("gain"), and its paired bootstrap interval [low, high] is compared with zero and with a margin, the loss
that is still acceptable:

- improved:        low > 0
- unchanged:       low > -margin
- regressed:       high < 0 and low < -margin
- not measurable:  everything else; too few items; or both models no better than guessing

So "unchanged" is a finding (the loss is smaller than the margin, a non-inferiority test), and never what is
left when a difference was not significant.

Metrics named by a gate form one family: their intervals are drawn at Holm's level (see `statistics.holm`), at
95% for the family together. Other metrics are shown with a plain 95% interval and decide nothing.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import numpy as np

from matura.core.errors import ConfigError
from matura.evaluate import statistics
from matura.evaluate.statistics import Floats, Paired

Verdict = Literal["improved", "unchanged", "regressed", "not measurable"]

BPB_MARGIN = 0.02  # of the parent's own bits per byte
ACCURACY_MARGIN = 0.04  # absolute: 4 points
FEWEST_ITEMS = 10  # below this a percentile interval says nothing
ALPHA = 0.05


@dataclass(frozen=True)
class Metric:
    """One figure of both models: `sum(parent) / sum(weights)` against `sum(child) / sum(weights)`.

    `parent` and `child` hold one value per item, in the same order. `weights` is None for a mean (accuracy)
    and the bytes of each item for bits per byte. `better` says which direction is good. `margin` is the
    acceptable loss: a share of the parent's figure when `relative`, in the metric's own unit otherwise.
    `chance` is what guessing scores, None where guessing means nothing.
    """

    name: str
    parent: Sequence[float]
    child: Sequence[float]
    weights: Sequence[float] | None = None
    better: Literal["lower", "higher"] = "lower"
    margin: float = BPB_MARGIN
    relative: bool = True
    chance: float | None = None


def bits_per_byte(
    name: str,
    parent: Sequence[float],
    child: Sequence[float],
    sizes: Sequence[int],
    margin: float = BPB_MARGIN,
) -> Metric:
    """Bits per byte of both models: lower is better, the margin is a share of the parent's figure."""
    return Metric(name, parent, child, weights=[float(n) for n in sizes], margin=margin)


def accuracy(
    name: str,
    parent: Sequence[bool | float],
    child: Sequence[bool | float],
    chance: float | None,
    margin: float = ACCURACY_MARGIN,
) -> Metric:
    """Share of right answers of both models: higher is better, the margin is absolute."""
    return Metric(
        name,
        [float(x) for x in parent],
        [float(x) for x in child],
        better="higher",
        margin=margin,
        relative=False,
        chance=chance,
    )


@dataclass(frozen=True)
class Gate:
    """What a metric must show. Without one of the three demands a gate demands nothing.

    `metric`: a metric's name, or a pattern such as `*.gold_bpb`. `fail_on`: the verdict that fails it; "not
    unchanged" lets improved and unchanged pass, "not improved" only improved. `min_gain`: the child must be
    better by this share of the parent's figure (0.1: bits per byte at least 10% lower). `more_than`: a
    control metric; the relative gain must exceed the control's, with the interval of the difference above
    zero.
    """

    metric: str
    fail_on: Literal["regressed", "not unchanged", "not improved"] = "regressed"
    min_gain: float | None = None
    more_than: str | None = None


@dataclass(frozen=True)
class Judged:
    """A metric with its verdict. `gain` and `low`..`high` are positive where the child is better; `level` is
    the interval's confidence, `p` Holm's p-value for a gated metric and the plain one otherwise. `detectable` is the
    power: the change that these items see in four exams of five; None where all items agree."""

    name: str
    verdict: Verdict
    items: int
    parent: float
    child: float
    difference: float
    gain: float
    relative_gain: float | None
    low: float
    high: float
    level: float
    p: float
    margin: float
    better: str
    gated: bool
    chance: float | None = None
    why: str = ""
    detectable: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class _Test:
    """One hypothesis: a metric against zero, or a metric against its control."""

    samples: Floats  # resampled gains, positive is good
    gated: bool
    p: float
    alpha: float = ALPHA


def judge(
    metrics: Sequence[Metric],
    gates: Sequence[Gate],
    *,
    resamples: int = statistics.RESAMPLES,
    seed: int = 0,
) -> tuple[list[Judged], list[str]]:
    """Verdicts of all metrics, in the order given, and the reasons why gates failed (none: all passed).

    A comparison with a control is reported as a metric of its own, named "a > b", whose figures are relative
    gains. Raises ConfigError when a gate names no metric there is.
    """
    check(gates, [metric.name for metric in metrics])
    by_name = {metric.name: metric for metric in metrics}
    gated = {name for gate in gates for name in matching(gate, by_name)}
    pairs = {
        metric.name: statistics.paired(
            metric.parent, metric.child, metric.weights, resamples=resamples, seed=_seed(seed, metric.name)
        )
        for metric in metrics
    }
    tests: dict[str, _Test] = {}
    for name, metric in by_name.items():
        samples = _sign(metric) * pairs[name].difference_samples
        tests[name] = _Test(samples, name in gated, statistics.p_value(samples))
    contrasts = _contrasts(gates, by_name)
    for name, control in contrasts:
        own, other = (_sign(by_name[n]) * pairs[n].relative_samples() for n in (name, control))
        tests[f"{name} > {control}"] = _Test(own - other, True, statistics.p_value(own - other))
    _correct([test for test in tests.values() if test.gated])
    judged = [_verdict(metric, pairs[metric.name], tests[metric.name]) for metric in metrics]
    for name, control in contrasts:
        metric, against = by_name[name], by_name[control]
        judged.append(_contrast(metric, against, pairs[name], pairs[control], tests[f"{name} > {control}"]))
    return judged, _reasons(judged, gates, by_name)


def check(gates: Sequence[Gate], names: Sequence[str]) -> None:
    """Raise ConfigError when a gate or its control is none of the metrics `names`, before any work."""
    for gate in gates:
        if not matching(gate, names):
            raise ConfigError(_unknown("metric", gate.metric, names))
        if gate.more_than is not None and gate.more_than not in names:
            raise ConfigError(_unknown("more_than", gate.more_than, names))


def matching(gate: Gate, names: Any) -> list[str]:
    """The metrics a gate is about."""
    return [name for name in names if fnmatchcase(name, gate.metric)]


def _unknown(key: str, value: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(value, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"gates: {key}: no metric is called {value!r}.{hint} This exam measures: {', '.join(names)}."


def _correct(family: Sequence[_Test]) -> None:
    levels = statistics.holm([test.p for test in family], ALPHA)
    for test, p, alpha in zip(family, levels.adjusted, levels.alphas, strict=True):
        test.p, test.alpha = p, alpha


def _seed(seed: int, name: str) -> int:
    """A seed of its own for each metric, so that adding one metric does not move another's interval."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big")


def _sign(metric: Metric) -> float:
    return -1.0 if metric.better == "lower" else 1.0


def _contrasts(gates: Sequence[Gate], names: Any) -> list[tuple[str, str]]:
    found = [(n, g.more_than) for g in gates if g.more_than is not None for n in matching(g, names)]
    return list(dict.fromkeys(found))


def _relative(metric: Metric, pair: Paired) -> float | None:
    return _sign(metric) * pair.difference / pair.parent if pair.parent else None


def _verdict(metric: Metric, pair: Paired, test: _Test) -> Judged:
    margin = metric.margin * abs(pair.parent) if metric.relative else metric.margin
    low, high = statistics.interval(test.samples, test.alpha)
    verdict, why = _decide(metric, pair, low, high, margin)
    return Judged(
        name=metric.name,
        verdict=verdict,
        items=pair.items,
        parent=pair.parent,
        child=pair.child,
        difference=pair.difference,
        gain=_sign(metric) * pair.difference,
        relative_gain=_relative(metric, pair),
        low=low,
        high=high,
        level=1 - test.alpha,
        p=test.p,
        margin=margin,
        better=metric.better,
        gated=test.gated,
        chance=metric.chance,
        why=why,
        detectable=_detectable(metric, pair),
    )


def _detectable(metric: Metric, pair: Paired) -> float | None:
    """In the metric's own unit. Of right-or-wrong answers, up to 3/n may differ where none was seen to."""
    if metric.weights is None and not metric.relative:
        changed = sum((c - p) ** 2 for p, c in zip(metric.parent, metric.child, strict=True)) / pair.items
        return statistics.detectable(max(changed, min(1.0, 3 / pair.items)), pair.items)
    spread = float(pair.difference_samples.std())
    return statistics.POWER * spread if spread else None


def _decide(metric: Metric, pair: Paired, low: float, high: float, margin: float) -> tuple[Verdict, str]:
    if pair.items < FEWEST_ITEMS:
        return "not measurable", _too_few(pair.items, FEWEST_ITEMS)
    if metric.chance is not None and not any(
        _above_chance(values, metric.chance) for values in (metric.parent, metric.child)
    ):
        return "not measurable", f"at chance: neither model is clearly above {metric.chance:.3g}"
    if low > 0:
        return "improved", ""
    if low > -margin:
        # Items that all agree make a zero-width interval that says less than it seems to: with no change
        # seen in n right-or-wrong answers, up to 3/n may still change (the rule of three).
        needed = _items_for_margin(metric)
        if pair.items < needed:
            return "not measurable", _too_few(pair.items, needed)
        return "unchanged", ""
    if high < 0 and low < -margin:
        return "regressed", ""
    return "not measurable", "too few items: the interval holds both no loss and a loss beyond the margin"


def _items_for_margin(metric: Metric) -> int:
    counted = metric.weights is None and not metric.relative
    return int(np.ceil(3 / metric.margin - 1e-9)) if counted and metric.margin > 0 else FEWEST_ITEMS


def _above_chance(values: Sequence[float], chance: float) -> bool:
    """Wilson's 95% interval of a share of right answers lies above chance (Wilson 1927)."""
    n, z = len(values), 1.959964
    share = sum(values) / n
    centre = share + z * z / (2 * n)
    spread = z * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    return (centre - spread) / (1 + z * z / n) > chance


def _contrast(metric: Metric, control: Metric, own: Paired, other: Paired, test: _Test) -> Judged:
    """The relative gain of a metric beyond its control's. There is no margin: below zero is regressed."""
    gain, control_gain = _relative(metric, own) or 0.0, _relative(control, other) or 0.0
    low, high = statistics.interval(test.samples, test.alpha)
    items = min(own.items, other.items)
    verdict: Verdict = "improved" if low > 0 else "regressed" if high < 0 else "not measurable"
    why = "the interval of the difference holds zero" if verdict == "not measurable" else ""
    if items < FEWEST_ITEMS:
        verdict, why = "not measurable", _too_few(items, FEWEST_ITEMS)
    return Judged(
        name=f"{metric.name} > {control.name}",
        verdict=verdict,
        items=items,
        parent=control_gain,
        child=gain,
        difference=gain - control_gain,
        gain=gain - control_gain,
        relative_gain=None,
        low=low,
        high=high,
        level=1 - test.alpha,
        p=test.p,
        margin=0.0,
        better="higher",
        gated=True,
        why=why,
    )


def _too_few(items: int, needed: int) -> str:
    return f"too few items: {items}, at least {needed} are needed"


def _reasons(judged: Sequence[Judged], gates: Sequence[Gate], names: Any) -> list[str]:
    found = {one.name: one for one in judged}
    reasons: list[str] = []
    for gate in gates:
        for name in matching(gate, names):
            reasons += _failures(gate, found[name], found)
    return list(dict.fromkeys(reasons))


def _failures(gate: Gate, one: Judged, found: dict[str, Judged]) -> list[str]:
    passing = {
        "regressed": ("improved", "unchanged", "not measurable"),
        "not unchanged": ("improved", "unchanged"),
        "not improved": ("improved",),
    }[gate.fail_on]
    reasons = []
    if one.verdict not in passing:
        why = f" ({one.why})" if one.why else ""
        reasons.append(f"{one.name}: {one.verdict}{why}; {_figures(one)}; the gate fails on {gate.fail_on!r}")
    gain = one.relative_gain or 0.0
    if gate.min_gain is not None and gain < gate.min_gain - 1e-9:  # 1.0 - 0.9 is a little less than 0.1
        wanted = f"at least {gate.min_gain:.1%} is asked for"
        reasons.append(f"{one.name}: {gain:.1%} better than the parent, {wanted}; {_figures(one)}")
    if gate.more_than is not None:
        contrast = found[f"{one.name} > {gate.more_than}"]
        if contrast.verdict != "improved":
            reasons.append(
                f"{one.name}: its gain of {contrast.child:.1%} is not clearly more than the "
                f"{contrast.parent:.1%} of the control {gate.more_than} "
                f"({contrast.why or 'it is clearly less'})"
            )
    return reasons


def _figures(one: Judged) -> str:
    return (
        f"parent {one.parent:.4g}, child {one.child:.4g}, gain {one.gain:+.4g} "
        f"[{one.low:+.4g}, {one.high:+.4g}] with margin {one.margin:.4g}, {one.items} items"
    )
