"""The thresholds of the filters, and what others in their place would have kept."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from matura.data.filters.rules import RuleFilter
from matura.data.steps import build

RULES = ("code", "gopher", "repetition", "c4", "fineweb")
MOST = {"toxicity.score"}  # scores of which less is better


@dataclass(frozen=True, slots=True)
class Threshold:
    """Documents pass when the measure is at least (`least`) or at most `value`."""

    measure: str
    value: float
    least: bool


def thresholds(settings: Mapping[str, Any]) -> list[Threshold]:
    """Of all filters that are on, by the settings of a curation (plain values)."""
    found = []
    if "min_characters" in settings:
        found.append(Threshold("length.characters", float(settings["min_characters"]), True))
    for name, group in settings.items():
        if not isinstance(group, Mapping) or group.get("use") != "on":
            continue
        if name in RULES:
            step = build(f"matura.data.filters.{name}:make", group)
            for rule in step.rules if isinstance(step, RuleFilter) else ():
                for value, least in ((rule.least, True), (rule.most, False)):
                    if value is not None:
                        found.append(Threshold(f"{name}.{rule.name}", float(value), least))
        elif "threshold" in group:
            measure = f"{name}.score"
            found.append(Threshold(measure, float(group["threshold"]), measure not in MOST))
    return found


def kept(edges: Sequence[float], counts: Sequence[int], value: float, least: bool) -> float:
    """The share that `value` as the threshold would keep, by a histogram of documents or of their bytes.

    Within a bin they are taken as evenly spread, but for the first: it holds the zeros.
    """
    total = sum(counts)
    if not total:
        return 0.0
    place = bisect_right(edges, value) - 1
    if place < 0:
        below = 0.0
    elif place >= len(counts):
        below = float(total)
    else:
        part = (value - edges[place]) / (edges[place + 1] - edges[place])
        if place == 0 and edges[0] == 0:
            part = 0.0 if least and value <= 0 else 1.0
        below = sum(counts[:place]) + part * counts[place]
    return (total - below if least else below) / total


def curve(
    histogram: Mapping[str, Sequence[float]], least: bool, of: str = "counts"
) -> list[tuple[float, float]]:
    """(threshold, share kept) at every edge of the histogram's bins; `of` is "counts" (documents) or "bytes"."""
    edges, counts = histogram["edges"], [int(one) for one in histogram[of]]
    return [(edge, kept(edges, counts, edge, least)) for edge in edges]


def keeping(histogram: Mapping[str, Sequence[float]], least: bool, share: float, of: str = "bytes") -> float:
    """The strictest edge of a bin that keeps at least this share; the loosest there is when none does."""
    points = curve(histogram, least, of)
    wide = [edge for edge, held in points if held >= share]
    if not wide:
        return points[0][0] if least else points[-1][0]
    return max(wide) if least else min(wide)


def quantiles(histogram: Mapping[str, Sequence[float]], shares: Sequence[float]) -> list[float]:
    """The lower edges of the bins in which these shares of the documents are reached."""
    sums = list(accumulate(histogram["counts"]))
    at = [next((i for i, one in enumerate(sums) if one >= share * sums[-1]), 0) for share in shares]
    return [float(histogram["edges"][i]) for i in at]
