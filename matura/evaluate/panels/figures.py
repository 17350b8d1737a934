"""A figure of a panel, its interval, and how two models differ in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from matura.evaluate import statistics

Unit = Literal["share", "score", "difference", "lean", "bits", "count"]
K = TypeVar("K", str, int)
Z = 1.959964  # of the normal distribution, for 95%


@dataclass(frozen=True)
class Figure:
    """sum(values) / sum(weights) over items; `weights` None is a plain mean.

    `unit`: "share" of items; "score" of 0 to 1; "difference" of two shares; "lean", from -1 (against) to 1 (along);
    "bits"; "count". `neutral` is
    what a model has that guesses, or has none of what is measured. `part` is the group, rate or length that it is
    about, "" for all.
    """

    name: str
    values: Sequence[float]
    weights: Sequence[float] | None = None
    unit: Unit = "share"
    neutral: float | None = None
    part: str = ""
    about: str = ""


@dataclass(frozen=True)
class Combined:
    """A number made of several figures over the same items: `make` takes their values, or their resamples."""

    name: str
    of: tuple[Figure, ...]
    make: Callable[..., Any]
    unit: Unit = "score"
    neutral: float | None = None
    part: str = ""
    about: str = ""

    @property
    def values(self) -> Sequence[float]:
        """The items, by the values of the first figure."""
        return self.of[0].values


def shares(name: str, by_part: Mapping[Any, Sequence[float]], **rest: Any) -> list[Figure]:
    """The figure of all parts together (where there are several), and of each."""
    whole = [value for values in by_part.values() for value in values]
    parts = [Figure(name, values, part=str(part), **rest) for part, values in by_part.items()]
    return [Figure(name, whole, **rest), *parts] if len(parts) > 1 else [Figure(name, whole, **rest)]


def grouped(keys: Sequence[K], values: Sequence[float]) -> dict[K, list[float]]:
    """The values under each key, keys in order."""
    found: dict[K, list[float]] = {key: [] for key in sorted(set(keys))}
    for key, value in zip(keys, values, strict=True):
        found[key].append(value)
    return found


def row(figure: Figure | Combined, *, resamples: int, seed: int) -> dict[str, Any]:
    """The figure as JSON, with its 95% interval over items; value and interval are None where there is nothing.

    Where every item counts 0 or 1, Wilson's interval (1927); where it counts -1, 0 or 1, that of Agresti and Min
    (2005): they do not shrink to a point when all are equal. The percentile bootstrap otherwise.
    """
    value, low, high = _interval(figure, resamples, seed)
    return {
        "name": figure.name,
        "part": figure.part,
        "unit": figure.unit,
        "value": value,
        "low": low,
        "high": high,
        "items": len(figure.values),
        "neutral": figure.neutral,
        "about": figure.about,
    }


def _interval(
    figure: Figure | Combined, resamples: int, seed: int
) -> tuple[float | None, float | None, float | None]:
    if not figure.values:
        return None, None, None
    if isinstance(figure, Combined):
        # One seed: every part is resampled with the same draws of items.
        found = [
            statistics.mean(one.values, one.weights, resamples=resamples, seed=seed) for one in figure.of
        ]
        samples = figure.make(*(samples for _, samples in found))
        return float(figure.make(*(value for value, _ in found))), *statistics.interval(samples)
    values, weights = figure.values, figure.weights
    n = len(values)
    plain = weights is None or all(weight == 1 for weight in weights)
    if plain and figure.unit in ("share", "score") and all(value in (0, 1) for value in values):
        share = math.fsum(values) / n
        return share, *wilson(share, n)
    if plain and figure.unit in ("difference", "lean") and all(value in (-1, 0, 1) for value in values):
        return math.fsum(values) / n, *agresti_min(list(values).count(1), list(values).count(-1), n)
    if figure.unit == "share" and (not any(values) or list(values) == _list(weights)):
        share = float(any(values))  # none or all of several: as if every item counted once
        return share, *wilson(share, n)
    value, samples = statistics.mean(values, weights, resamples=resamples, seed=seed)
    return value, *statistics.interval(samples)


def wilson(share: float, items: int) -> tuple[float, float]:
    """The 95% interval of a share of so many items (Wilson 1927)."""
    centre = share + Z * Z / (2 * items)
    spread = Z * math.sqrt(share * (1 - share) / items + Z * Z / (4 * items * items))
    whole = 1 + Z * Z / items
    # At the ends the formula is the share itself, but for the last bits.
    return min(share, (centre - spread) / whole), max(share, (centre + spread) / whole)


def agresti_min(more: int, less: int, items: int) -> tuple[float, float]:
    """The 95% interval of (more - less) / items, for paired answers of which so many changed one way and the other.

    Wald's interval with half an item more in each of the four cells (Agresti and Min 2005, section 3).
    """
    up, down, n = more + 0.5, less + 0.5, items + 2
    centre = (up - down) / n
    spread = Z * math.sqrt(max(0.0, up + down - (up - down) ** 2 / n)) / n
    plain = (more - less) / items  # drawn towards zero, the interval may not reach a figure of -1 or 1
    return max(-1.0, min(plain, centre - spread)), min(1.0, max(plain, centre + spread))


def compared(
    parent: Figure | Combined, child: Figure | Combined, *, resamples: int, seed: int
) -> dict[str, Any]:
    """Both models' figure, and child minus parent with its 95% interval by the paired bootstrap.

    `difference` and its interval are None when the two do not count the same items with the same weights (a figure
    over the answers that a model gave), or there are none.
    """
    before = row(parent, resamples=resamples, seed=seed)
    found = row(child, resamples=resamples, seed=seed) | {
        "parent": before["value"],
        "parent_low": before["low"],
        "parent_high": before["high"],
        "difference": None,
        "difference_low": None,
        "difference_high": None,
    }
    if isinstance(parent, Combined) or isinstance(child, Combined):
        return found
    same = len(parent.values) == len(child.values) and _list(parent.weights) == _list(child.weights)
    if same and child.values:
        both = statistics.paired(parent.values, child.values, child.weights, resamples=resamples, seed=seed)
        low, high = statistics.interval(both.difference_samples)
        found |= {"difference": both.difference, "difference_low": low, "difference_high": high}
    return found


def _list(weights: Sequence[float] | None) -> list[float] | None:
    return None if weights is None else list(weights)
