"""Looks through the metrics of a run for what is known to go wrong in alignment, and says what to do about it.

Every check reads the rows of metrics.jsonl and rings when what it knows stays so, not when it happens once. A check
whose metric a run does not log says nothing. To add one, write a function of `Series` and enter it in `CHECKS`.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

WINDOW = 5
"""Values in a row that it takes."""
LUCKLESS = 10
"""Values in a row that are all below 0 by chance, where they are about 0, once in a thousand times."""
EVEN = 0.75
"""Share of groups without variance from which on most of the answers were written for nothing."""
ENDED = 0.5
"""Share of answers that end by themselves below which the model does not know how to stop."""
DRIFT = 2.0
"""Answers this many times as long, or as short, as at the start are other answers."""
COLLAPSED = 0.1
"""Share of the entropy at the start below which nothing is left to explore."""
CLIPPED = 0.3
"""Share of clipped tokens above which an update goes too far."""
SURE = 2.0
"""Standard errors from which on a change is one."""
MOST = 200
"""Values that a trend is made of."""
FALLING = 0.1
"""Share of its size by which the chosen answers' log-probability may fall."""


@dataclass(frozen=True)
class Alarm:
    """What is wrong since which step, in numbers, and what to do."""

    name: str
    step: int
    found: str
    advice: str

    def __str__(self) -> str:
        return f"{self.name} (step {self.step}): {self.found} {self.advice}"


class Series:
    """The values of each metric with their steps, in order; what is no number is left out. `penalties` are rewards of
    which less is better."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], penalties: Collection[str] = ()) -> None:
        self.penalties = frozenset(penalties)
        self._found: dict[str, list[tuple[int, float]]] = {}
        for row in rows:
            for name, value in row.items():
                if name != "step" and isinstance(value, int | float) and math.isfinite(value):
                    self._found.setdefault(name, []).append((int(row["step"]), float(value)))

    def names(self, start: str) -> list[str]:
        """Metrics whose names begin so."""
        return [name for name in self._found if name.startswith(start)]

    def values(self, *names: str) -> list[float]:
        """Values of the first of these metrics that there is."""
        return [value for _, value in self._points(names)]

    def last(self, *names: str) -> list[float]:
        """Its last `WINDOW` values; none while there are fewer."""
        values = self.values(*names)
        return values[-WINDOW:] if len(values) >= WINDOW else []

    def first(self, *names: str) -> list[float]:
        """Its first ones, where there are as many after them."""
        values = self.values(*names)
        return values[:WINDOW] if len(values) >= 2 * WINDOW else []

    def began(self, *names: str) -> int:
        """The step where the last `WINDOW` values begin."""
        return self._points(names)[-WINDOW:][0][0]

    def at(self, name: str, number: int) -> int:
        """The step of one of its values."""
        return self._points((name,))[number][0]

    def change(self, *names: str) -> tuple[float, float]:
        """From the first third of the values to the last the difference of their means, and how many standard errors
        all of them rise or fall by; (0, 0) with fewer than `WINDOW`."""
        values = _condensed(self.values(*names))
        if len(values) < WINDOW:
            return 0.0, 0.0
        third = len(values) // 3
        return statistics.fmean(values[-third:]) - statistics.fmean(values[:third]), _trend(values)

    def _points(self, names: Sequence[str]) -> list[tuple[int, float]]:
        return next((self._found[name] for name in names if name in self._found), [])


def _condensed(values: list[float]) -> list[float]:
    """At most `MOST` values: of more, means of neighbours."""
    count = len(values)
    if count <= MOST:
        return values
    ends = [i * count // MOST for i in range(MOST + 1)]
    return [statistics.fmean(values[start:end]) for start, end in pairwise(ends)]


def _trend(values: Sequence[float]) -> float:
    """How much more often a later value is above an earlier one than below it, in standard deviations of what chance
    makes: Mann and Kendall's test (Econometrica 13, 1945), which few values are enough for."""
    count = len(values)
    above = sum((later > sooner) - (later < sooner) for sooner, later in combinations(values, 2))
    if not above:
        return 0.0
    ties = sum(n * (n - 1) * (2 * n + 5) for n in Counter(values).values())
    variance = (count * (count - 1) * (2 * count + 5) - ties) / 18
    return (above - math.copysign(1, above)) / math.sqrt(variance)


def examine(rows: Sequence[Mapping[str, Any]], penalties: Collection[str] = ()) -> list[Alarm]:
    """The alarms over the metrics of a run, as `MetricsLog.rows` gives them; none for a run in order. `penalties` are
    the names of rewards whose weight is below 0."""
    series = Series(rows, penalties)
    return [alarm for check in CHECKS for alarm in check(series)]


def alarms(rows: Sequence[Mapping[str, Any]], penalties: Collection[str] = ()) -> list[str]:
    """The alarms as texts, for a summary and its report."""
    return [str(one) for one in examine(rows, penalties)]


def in_short(alarms: Sequence[str]) -> str:
    """How many alarms there are and which is the first, for the end of a line; "" for none."""
    if not alarms:
        return ""
    return f"; {len(alarms)} alarm{'s' * (len(alarms) > 1)}: {alarms[0].partition(' (')[0]}"


def _negative_kl(series: Series) -> list[Alarm]:
    last = series.values("kl")[-LUCKLESS:]
    if len(last) < LUCKLESS or max(last) >= 0:
        return []
    return [
        Alarm(
            "negative KL",
            series.at("kl", -LUCKLESS),
            f"the divergence from the reference was below zero {LUCKLESS} times in a row, at {last[-1]:.4g} now.",
            "No divergence is: the answers were not drawn from the distribution that the loss assumes. Look for cuts "
            "(top_k, top_p), another temperature, a minimal length, or padding among what is averaged.",
        )
    ]


def _even_groups(series: Series) -> list[Alarm]:
    last = series.last("even_groups")
    if not last or statistics.fmean(last) < EVEN:
        return []
    change, sure = series.change("reward")
    advice = (
        "They are all right: take harder prompts, or stop."
        if change > 0 and sure >= SURE
        else "Where they are all right, take harder prompts; where all are wrong, easier prompts, more samples, a "
        "higher temperature, or a reward that gives part of the credit."
    )
    return [
        Alarm(
            "zero-variance groups",
            series.began("even_groups"),
            f"in {statistics.fmean(last):.0%} of the groups all answers got the same, so nothing is learned from them.",
            advice,
        )
    ]


def _no_end(series: Series) -> list[Alarm]:
    last = series.last("ended")
    if not last or statistics.fmean(last) >= ENDED:
        return []
    return [
        Alarm(
            "no end",
            series.began("ended"),
            f"only {statistics.fmean(last):.0%} of the answers end with a stop token, the rest are cut off.",
            "Raise max_new_tokens if answers need it; else teach the model to stop by fine-tuning first, and reward it "
            "(rewards.ending).",
        )
    ]


def _chosen_falls(series: Series) -> list[Alarm]:
    names = ("logprob_chosen",)
    first, last = series.first(*names), series.last(*names)
    if not first:
        return []
    before, after = statistics.fmean(first), statistics.fmean(last)
    _, certain = series.change(*names)  # batches differ: of few values the last may be low by chance
    if after >= before - FALLING * abs(before) or certain > -SURE:
        return []
    return [
        Alarm(
            "chosen log-probability falls",
            series.began(*names),
            f"the chosen answers became less likely, from {before:.4g} to {after:.4g} nats: the margin grows because "
            "the rejected ones fall faster.",
            "Add a share of the plain loss on chosen answers, raise beta, or lower the learning rate.",
        )
    ]


def _length_drift(series: Series) -> list[Alarm]:
    first, last = series.first("answer_tokens"), series.last("answer_tokens")
    if not first:
        return []
    before, after = statistics.fmean(first), statistics.fmean(last)
    if before / DRIFT <= after <= before * DRIFT:
        return []
    return [
        Alarm(
            "length drift",
            series.began("answer_tokens"),
            f"answers went from {before:.0f} to {after:.0f} tokens.",
            "See whether the reward prefers length as such: compare rewards of answers of one length, add "
            "rewards.length, or take reduction=constant.",
        )
    ]


def _overoptimised(series: Series) -> list[Alarm]:
    up, sure = series.change("reward")
    if up <= 0 or sure < SURE:
        return []
    found = []
    for name in series.names("heldout_reward"):
        if name.endswith("_std"):
            continue  # answers that become alike are no loss
        is_penalty = name.removeprefix("heldout_reward.") in series.penalties
        change, certain = (-one if is_penalty else one for one in series.change(name))
        if change < 0 and certain <= -SURE:
            how = ", whose weight is below 0, rose" if is_penalty else " fell"
            found.append(
                Alarm(
                    "reward up, held-out reward down",
                    series.began(name),
                    f"the reward rose by {up:.3g} in training, while {name}{how} by {-change:.3g}.",
                    "The model has found what the reward does not mean: read its answers, stop earlier, hold it nearer "
                    "to its parent (kl), or mend the reward.",
                )
            )
    return found


def _entropy_collapse(series: Series) -> list[Alarm]:
    names = ("policy_entropy", "entropy")
    first, last = series.first(*names), series.last(*names)
    if not first or statistics.fmean(last) > COLLAPSED * statistics.fmean(first):
        return []
    return [
        Alarm(
            "entropy collapse",
            series.began(*names),
            f"the entropy of a token fell from {statistics.fmean(first):.3g} to {statistics.fmean(last):.3g} nats: all "
            "answers to a prompt become one.",
            "Stop here if the reward is where it should be; else raise the upper clip or the temperature, add kl, or "
            "lower the learning rate.",
        )
    ]


def _too_far(series: Series) -> list[Alarm]:
    last = series.last("clip_share")
    if not last or statistics.fmean(last) < CLIPPED:
        return []
    return [
        Alarm(
            "updates go too far",
            series.began("clip_share"),
            f"{statistics.fmean(last):.0%} of the tokens are clipped.",
            "Lower the learning rate, or take fewer updates for each rollout.",
        )
    ]


def _blind_values(series: Series) -> list[Alarm]:
    last = series.last("explained_variance")
    if not last or max(last) >= 0:
        return []
    return [
        Alarm(
            "values explain nothing",
            series.began("explained_variance"),
            f"the values do worse than a constant {WINDOW} times in a row ({last[-1]:.2f} of the variance).",
            "Take value.kind=critic and updates.lam=1, raise value.rate, or give more updates (updates.epochs).",
        )
    ]


def _learned_by_heart(series: Series) -> list[Alarm]:
    """Of reward models, which alone log `reward_mean` in training."""
    held = series.values("heldout_loss")
    if not series.values("reward_mean") or len(held) < 3 or held[-1] <= (1 + FALLING) * min(held):
        return []
    return [
        Alarm(
            "learned by heart",
            series.at("heldout_loss", held.index(min(held))),
            f"the loss on held-out rankings rose from {min(held):.3g} to {held[-1]:.3g} since then.",
            "Fewer epochs, a lower learning rate or more preferences would give better rewards, and better calibrated "
            "ones.",
        )
    ]


Check = Callable[[Series], list[Alarm]]
CHECKS: tuple[Check, ...] = (
    _negative_kl,
    _even_groups,
    _no_end,
    _chosen_falls,
    _length_drift,
    _overoptimised,
    _entropy_collapse,
    _too_far,
    _blind_values,
    _learned_by_heart,
)
