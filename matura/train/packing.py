"""Which examples share a row: best fit, decreasing within a window (Johnson 1973), the same for the same seed."""

from __future__ import annotations

import bisect
import random
from collections.abc import Sequence

WINDOW = 256
"""Examples packed together at a time: enough to fill rows well, few enough to keep the order random."""


def plan_epoch(sizes: Sequence[int], capacity: int, seed: str, window: int = WINDOW) -> list[list[int]]:
    """The rows of one epoch, each a list of examples: every example once, in a seeded order.

    The examples are shuffled, packed window by window, long ones first, and the rows are shuffled again.
    """
    order = list(range(len(sizes)))
    shuffler = random.Random(seed)
    shuffler.shuffle(order)
    rows: list[list[int]] = []
    for start in range(0, len(order), window):
        # Long ones first: they fill best, and neighbours of equal length share one attention kernel.
        rows += best_fit(sizes, capacity, sorted(order[start : start + window], key=lambda i: -sizes[i]))
    shuffler.shuffle(rows)
    return rows


def best_fit(sizes: Sequence[int], capacity: int, order: Sequence[int]) -> list[list[int]]:
    """Each example, in `order`, goes into the fullest of the open rows that still has room, or into a new one.

    Rows keep the order in which they were opened. An example longer than `capacity` gets a row of its own.
    """
    rows: list[list[int]] = []
    open_rows: list[tuple[int, int]] = []  # (room, row), sorted
    for i in order:
        at = bisect.bisect_left(open_rows, (sizes[i], -1))
        if at < len(open_rows):
            room, row = open_rows.pop(at)
            rows[row].append(i)
        else:
            room, row = capacity, len(rows)
            rows.append([i])
        if room > sizes[i]:
            bisect.insort(open_rows, (room - sizes[i], row))
    return rows
