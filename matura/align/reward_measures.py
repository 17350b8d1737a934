"""What a reward model is worth on held-out pairs: accuracy with its interval, calibration, and what it has to do with
length. A baseline is measured by the same functions.

Shape suffixes: P pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matura.evaluate import statistics

Floats = NDArray[np.float64]
BINS = 10


@dataclass(frozen=True)
class Margins:
    """How far the chosen answer of every pair stands above the rejected one [P], what each pair counts, and which of
    them hang together (pairs of one conversation)."""

    values: Floats
    weights: Floats
    groups: tuple[str, ...]

    @property
    def right(self) -> Floats:
        """1 where the chosen answer stands higher, 1/2 where both stand equal [P]."""
        return (np.sign(self.values) + 1) / 2

    def where(self, chosen: Sequence[bool]) -> Margins:
        """Some of the pairs."""
        kept = np.asarray(chosen, dtype=bool)
        groups = tuple(group for group, keep in zip(self.groups, kept, strict=True) if keep)
        return Margins(self.values[kept], self.weights[kept], groups)


def margins(values: Sequence[float], weights: Sequence[float], groups: Sequence[str]) -> Margins:
    """From lists of one entry per pair."""
    return Margins(np.asarray(values, float), np.asarray(weights, float), tuple(groups))


@dataclass(frozen=True)
class Share:
    """A share with its 95% interval, and how many pairs and groups it is of."""

    value: float
    low: float
    high: float
    pairs: int
    groups: int

    def __str__(self) -> str:
        return f"{self.value:.1%} ({self.low:.1%} to {self.high:.1%})"


def accuracy(found: Margins, *, seed: int = 0) -> Share | None:
    """The share of pairs in the right order, weighted, so that a prompt counts once; None without pairs.

    The interval is a bootstrap over groups: pairs of one conversation are drawn together, as they depend on one
    another.
    """
    if not len(found.values):
        return None
    right, weights = _by_group(found)
    value, samples = statistics.mean(right, weights, seed=seed)
    return Share(value, *statistics.interval(samples), len(found.values), len(right))


@dataclass(frozen=True)
class Lead:
    """A difference of two accuracies with its 95% interval."""

    value: float
    low: float
    high: float


def ahead(found: Margins, other: Margins, *, seed: int = 0) -> Lead:
    """How much higher the accuracy of one is than that of another on the same pairs, both on the same draws of
    groups. Raises ValueError for other pairs, or none."""
    if found.groups != other.groups or not np.array_equal(found.weights, other.weights):
        raise ValueError("only the same pairs can be compared")
    theirs, weights = _by_group(other)
    both = statistics.paired(theirs, _by_group(found)[0], weights, seed=seed)
    return Lead(both.difference, *statistics.interval(both.difference_samples))


def _by_group(found: Margins) -> tuple[Floats, Floats]:
    """Of every group the weight of its pairs in the right order, and of all its pairs."""
    names, group_P = np.unique(np.asarray(found.groups), return_inverse=True)
    sums = [
        np.bincount(group_P, weights=one, minlength=len(names)).astype(np.float64)
        for one in (found.right * found.weights, found.weights)
    ]
    return sums[0], sums[1]


@dataclass(frozen=True)
class Bin:
    """Pairs of like certainty: what the model said on average, and how many were in the right order."""

    low: float
    high: float
    pairs: int
    said: float
    right: float


@dataclass(frozen=True)
class Calibration:
    """Expected calibration error (arXiv:1706.04599, section 2), and the table that it sums up."""

    error: float
    bins: tuple[Bin, ...]

    def as_json(self) -> dict[str, Any]:
        """As values for a summary."""
        return {"error": self.error, "bins": [asdict(one) for one in self.bins]}


def calibration(found: Margins, bins: int = BINS) -> Calibration | None:
    """How sure the model is and how often rightly: sigmoid(|margin|) is its chance that the higher answer was
    preferred, from 1/2 on, in `bins` steps of equal width. None without pairs."""
    if not len(found.values):
        return None
    sure_P = 1 / (1 + np.exp(-np.abs(found.values)))
    at_P = np.minimum(((sure_P - 0.5) * 2 * bins).astype(int), bins - 1)
    total, error, table = found.weights.sum(), 0.0, []
    for i in range(bins):
        mine = at_P == i
        if not mine.any():
            continue
        weights = found.weights[mine]
        said = float(np.average(sure_P[mine], weights=weights))
        right = float(np.average(found.right[mine], weights=weights))
        error += float(weights.sum() / total) * abs(said - right)
        table.append(Bin(0.5 + i / 2 / bins, 0.5 + (i + 1) / 2 / bins, int(mine.sum()), said, right))
    return Calibration(error, tuple(table))


def length_correlation(found: Margins, longer_P: Sequence[float]) -> float:
    """Pearson's correlation of margins with how much longer the chosen answers are; 0 where either never varies. Near
    1, the model has learned to like long answers."""
    longer = np.asarray(longer_P, float)
    if len(longer) < 2 or not found.values.std() or not longer.std():
        return 0.0
    both = float(np.mean((found.values - found.values.mean()) * (longer - longer.mean())))
    value = both / float(found.values.std() * longer.std())
    return value if math.isfinite(value) else 0.0
