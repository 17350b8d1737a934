"""Logistic regression on sparse rows with numpy alone: limited-memory BFGS (Liu and Nocedal 1989), deterministic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

HISTORY = 8
STEPS = 40
TOLERANCE = 2e-3  # of the length of the gradient, relative to the first


@dataclass(frozen=True)
class Rows:
    """Sparse rows of length 1 whose present entries are equal, and a last column of ones for the bias.

    `columns` names the ones that occur; `index` counts within them, row after row from `starts`.
    """

    columns: NDArray[np.int64]
    index: NDArray[np.int64]
    starts: NDArray[np.int64]
    values: Vector

    @classmethod
    def of(cls, rows: Sequence[NDArray[np.uint32]]) -> Rows:
        """Each row names the columns that are present, each once."""
        sizes = np.array([len(row) for row in rows], dtype=np.int64)
        columns, index = np.unique(np.concatenate(rows), return_inverse=True)
        # The bias ends every row, so that no row is empty: sums over rows need one entry at least.
        ends = np.cumsum(sizes)
        whole = np.insert(index.astype(np.int64), ends, len(columns))
        values = np.insert(np.repeat(1 / np.sqrt(np.maximum(sizes, 1)), sizes), ends, 1.0)
        return cls(columns.astype(np.int64), whole, np.concatenate([[0], np.cumsum(sizes + 1)[:-1]]), values)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Entries of each row."""
        sizes: NDArray[np.int64] = np.diff(np.append(self.starts, len(self.index)))
        return sizes

    def take(self, chosen: NDArray[np.int64]) -> Rows:
        """Some of the rows, in their order; the columns stay."""
        mask = np.zeros(len(self.starts), dtype=bool)
        mask[chosen] = True
        entries, sizes = np.repeat(mask, self.sizes), self.sizes[mask]
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        return Rows(self.columns, self.index[entries], starts, self.values[entries])

    def __matmul__(self, weights: Vector) -> Vector:
        product: Vector = np.add.reduceat(weights[self.index] * self.values, self.starts)
        return product

    def transposed(self, by_row: Vector) -> Vector:
        """The transposed matrix times a number for each row."""
        spread = np.repeat(by_row, self.sizes) * self.values
        counts = np.bincount(self.index, weights=spread, minlength=len(self.columns) + 1)
        return np.asarray(counts, dtype=np.float64)


def logistic(x: Vector) -> Vector:
    """1 / (1 + exp(-x)), without overflow."""
    small = np.exp(-np.abs(x))
    result: Vector = np.where(x >= 0, 1.0, small) / (1 + small)
    return result


def fit(rows: Rows, labels: Vector, penalty: float) -> Vector:
    """Weights of the columns and the bias last; labels (0, 1) count alike, however often each occurs."""
    share = labels.mean()
    importance = np.where(labels == 1, 0.5 / max(share, 1e-12), 0.5 / max(1 - share, 1e-12))
    shrink = np.full(len(rows.columns) + 1, penalty)
    shrink[-1] = 0.0  # the bias is free

    def loss(weights: Vector) -> tuple[float, Vector]:
        margin = rows @ weights
        each = np.logaddexp(0.0, margin) - labels * margin
        gradient = rows.transposed(importance * (logistic(margin) - labels)) + shrink * weights
        return dot(importance, each) + 0.5 * dot(shrink * weights, weights), gradient

    return minimise(loss, np.zeros(len(rows.columns) + 1))


def dot(a: Vector, b: Vector) -> float:
    """The sum of products, by additions in one fixed order: those of a BLAS depend on where its operands lie in
    memory, and the last bits with them."""
    return float(np.sum(a * b))


def minimise(loss: Callable[[Vector], tuple[float, Vector]], start: Vector) -> Vector:
    """The minimum of a convex function that gives value and gradient."""
    x, (value, gradient) = start, loss(start)
    first = dot(gradient, gradient) ** 0.5
    past: list[tuple[Vector, Vector]] = []
    for _ in range(STEPS):
        if dot(gradient, gradient) ** 0.5 <= TOLERANCE * first:
            break
        direction = -_two_loops(gradient, past)
        slope, length = dot(gradient, direction), 1.0 if past else 1 / max(first, 1.0)
        while True:
            there = x + length * direction
            new, new_gradient = loss(there)
            if new <= value + 1e-4 * length * slope or length < 1e-10:
                break
            length /= 2
        if length < 1e-10:
            break
        moved, turned = there - x, new_gradient - gradient
        if dot(moved, turned) > 1e-12:
            past = [*past[-HISTORY + 1 :], (moved, turned)]
        x, value, gradient = there, new, new_gradient
    return x


def _two_loops(gradient: Vector, past: Sequence[tuple[Vector, Vector]]) -> Vector:
    """The gradient times the approximate inverse of the second derivatives."""
    direction, scales = gradient.copy(), []
    for moved, turned in reversed(past):
        scale = dot(moved, direction) / dot(moved, turned)
        scales.append(scale)
        direction -= scale * turned
    if past:
        moved, turned = past[-1]
        direction *= dot(moved, turned) / dot(turned, turned)
    for (moved, turned), scale in zip(past, reversed(scales), strict=True):
        direction += (scale - dot(turned, direction) / dot(moved, turned)) * moved
    return direction


def platt(scores: Vector, labels: Vector) -> tuple[float, float]:
    """(slope, offset) of the logistic curve from scores to probabilities, with Platt's smoothed targets."""
    positive = labels.sum()
    high, low = (positive + 1) / (positive + 2), 1 / (len(labels) - positive + 2)
    targets = np.where(labels == 1, high, low)

    def loss(curve: Vector) -> tuple[float, Vector]:
        margin = curve[0] * scores + curve[1]
        off = logistic(margin) - targets
        return float((np.logaddexp(0.0, margin) - targets * margin).sum()), np.array(
            [dot(off, scores), off.sum()]
        )

    slope, offset = minimise(loss, np.array([0.0, 0.0]))
    return float(slope), float(offset)


def rank_area(scores: Vector, labels: Vector) -> float:
    """Area under the ROC curve: how often a text of label 1 scores above one of label 0; equal scores count half."""
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    ones = float(labels.sum())
    zeros = len(labels) - ones
    return float((ranks[labels == 1].sum() - ones * (ones + 1) / 2) / (ones * zeros))
