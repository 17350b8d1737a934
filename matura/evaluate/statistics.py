"""Paired bootstrap of a difference between two models on the same items, and Holm's correction.

Every figure is resampled over *items* (a question, a document), because items are what another exam would
draw anew. Both models are resampled with the same draws, so whatever makes an item hard cancels out. Two
figures exist:

- a mean over items (accuracy): weights are all 1;
- a ratio of sums (bits per byte = sum of bits / sum of bytes): weights are the bytes of each item.

Sources: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13 (percentile interval);
Holm, "A simple sequentially rejective multiple test procedure" (1979).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES = 10_000
CHUNK = 2_000_000  # draws held in memory at once: about 16 MB


@dataclass(frozen=True)
class Paired:
    """What the bootstrap says about one figure of two models.

    `difference` is child minus parent; `parent_samples` and `difference_samples` have one entry per resample.
    """

    items: int
    parent: float
    child: float
    difference: float
    parent_samples: Floats
    difference_samples: Floats

    def relative_samples(self) -> Floats:
        """Resampled difference as a share of the parent's figure on the same resample."""
        return self.difference_samples / self.parent_samples


def paired(
    parent: Sequence[float] | Floats,
    child: Sequence[float] | Floats,
    weights: Sequence[float] | Floats | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Paired:
    """Bootstrap `sum(value) / sum(weight)` of both models over the same resampled items.

    `parent`, `child`: one value per item, shape (items,). `weights`: one positive weight per item, None for a
    plain mean. The difference is resampled from per-item differences, so equal models give exactly 0 in every
    resample. Raises ValueError for empty input, unequal lengths, values that are not finite or weights that
    are not positive.
    """
    p, c = np.asarray(parent, dtype=np.float64), np.asarray(child, dtype=np.float64)
    w = np.ones_like(p) if weights is None else np.asarray(weights, dtype=np.float64)
    if p.ndim != 1 or p.shape != c.shape or p.shape != w.shape or not len(p):
        raise ValueError(
            f"paired items need equal, non-empty lists, got shapes {p.shape}, {c.shape}, {w.shape}"
        )
    if not (np.isfinite(p).all() and np.isfinite(c).all() and np.isfinite(w).all() and (w > 0).all()):
        raise ValueError("paired items need finite values and weights above zero")
    d = c - p
    table = np.stack([p, d, w], axis=1)
    sums = np.concatenate([counts @ table for counts in _draws(len(p), resamples, seed)])
    total = float(w.sum())
    return Paired(
        items=len(p),
        parent=float(p.sum()) / total,
        child=float(c.sum()) / total,
        difference=float(d.sum()) / total,
        parent_samples=sums[:, 0] / sums[:, 2],
        difference_samples=sums[:, 1] / sums[:, 2],
    )


def mean(
    values: Sequence[float] | Floats,
    weights: Sequence[float] | Floats | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, Floats]:
    """The figure of one model alone and its resamples: `paired` without a second model."""
    both = paired(values, values, weights, resamples=resamples, seed=seed)
    return both.parent, both.parent_samples


def _draws(items: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Resamples as counts, shape (chunk, items): how often each item was drawn; each row sums to `items`."""
    random = np.random.default_rng(seed)
    chance = np.full(items, 1.0 / items)
    rows = max(1, CHUNK // items)
    for start in range(0, resamples, rows):
        yield random.multinomial(items, chance, size=min(rows, resamples - start)).astype(np.float64)


def interval(samples: Floats, alpha: float = 0.05) -> tuple[float, float]:
    """Two-sided percentile interval that leaves out `alpha` in all (0.05 for a 95% interval)."""
    low, high = np.quantile(samples, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)


def p_value(samples: Floats) -> float:
    """Two-sided bootstrap p-value of "the difference is zero"; never 0, since resamples are finite."""
    below, above = int((samples <= 0).sum()), int((samples >= 0).sum())
    return min(1.0, 2 * (1 + min(below, above)) / (1 + len(samples)))


POWER = 2.801585
"""A true difference of this many standard errors is found at the 5% level in four exams of five: the normal
distribution's 97.5% quantile plus its 80% quantile (Cohen 1988, section 2.4)."""


def detectable(changed: float, items: int) -> float:
    """The difference of two shares of right answers on the same items that is found in four exams of five.

    `changed`: share of the items that the two models answer differently, in (0, 1] (McNemar 1947: the others say
    nothing). With one answer in ten changed, 100 items see 8.9 points and 1,000 items 2.8.
    """
    return min(1.0, POWER * math.sqrt(changed / items))


@dataclass(frozen=True)
class Holm:
    """`adjusted`: Holm's p-values; `alphas`: the level at which each metric's interval is drawn."""

    adjusted: tuple[float, ...]
    alphas: tuple[float, ...]


def holm(p_values: Sequence[float], alpha: float = 0.05) -> Holm:
    """Holm's step-down correction over a family of metrics, in the order given.

    The k-th smallest p-value (k from 0) of m is compared with alpha / (m - k), and the first that fails stops
    the procedure. Intervals follow: a rejected metric's interval is drawn at the level it was compared with,
    every other one at the level of the first failure. So an interval excludes zero exactly when Holm rejects.
    """
    m = len(p_values)
    order = sorted(range(m), key=lambda i: p_values[i])
    adjusted, alphas = [1.0] * m, [alpha] * m
    highest, stopped = 0.0, None
    for k, i in enumerate(order):
        highest = max(highest, min(1.0, (m - k) * p_values[i]))
        adjusted[i] = highest
        level = alpha / (m - k)
        if stopped is None and p_values[i] > level:
            stopped = level
        alphas[i] = level if stopped is None else stopped
    return Holm(tuple(adjusted), tuple(alphas))
