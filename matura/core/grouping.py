"""Items in their order, taken together as they come: one list at a time is in memory."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def filled(
    items: Iterable[T], enough: int, size: Callable[[T], int], most: int = sys.maxsize
) -> Iterator[list[T]]:
    """Lists of at most `most` items, each closed by the item with which it has `enough` by `size`."""
    group: list[T] = []
    used = 0
    for one in items:
        group.append(one)
        used += size(one)
        if len(group) == most or used >= enough:
            yield group
            group, used = [], 0
    if group:
        yield group


def neighbours(
    items: Iterable[T], capacity: int, size: Callable[[T], int], most: int = sys.maxsize
) -> Iterator[list[T]]:
    """As many items as fit into `capacity` by `size`, and at most `most`. One that is larger is alone."""
    group: list[T] = []
    used = 0
    for one in items:
        its = size(one)
        if group and (used + its > capacity or len(group) >= most):
            yield group
            group, used = [], 0
        group.append(one)
        used += its
    if group:
        yield group
