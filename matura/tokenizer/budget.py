"""What a template may cost: work is counted while it runs, and a template that works too much is stopped.

CPython cannot stop one long operation (`"a" * 10**10`, a product of two long texts) from outside: neither an
exception from another thread nor a trace function arrives before it ends. So the cost of every operation is taken
from a budget before it runs. One unit is about one character read or written; every value that is made or walked
costs `OPERATION` more. The count is the same on every machine and under every load, so a template never works on one
day and fails on the next. A limit of processor seconds stands behind it, for what the count weighs too lightly.
"""

from __future__ import annotations

import time
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from jinja2.utils import Namespace

from matura.core.errors import FormatError

T = TypeVar("T")
OPERATION = 20
MAX_UNITS = 12_000_000  # about a second of work
UNITS_PER_CHARACTER = 50  # of what the template is given: real ones read a message some ten times
MAX_SECONDS = 5.0
MAX_DEPTH = 50
MAX_BITS = 4096  # of a whole number
_LOOK_EVERY = 100_000  # units between two looks at the clock


class Budget:
    """Units that one rendering has left."""

    __slots__ = ("_end", "_look_at", "left")

    def __init__(self, units: int) -> None:
        self.left = units
        self._look_at = units
        self._end = time.thread_time() + MAX_SECONDS

    def spend(self, units: int) -> None:
        """Raises FormatError when nothing is left, of units or of time."""
        self.left -= units
        if self.left >= self._look_at:
            return
        if self.left < 0:
            raise FormatError("it does far more work than a conversation needs (endless or exploding)")
        if time.thread_time() > self._end:
            raise FormatError(f"it takes more than {MAX_SECONDS:g} seconds of processor time")
        self._look_at = max(0, self.left - _LOOK_EVERY)

    def read(self, value: Any, depth: int = 0) -> None:
        """Spend what one pass over a value costs; a part that occurs twice is read twice, as `==` or `str` would.

        Raises FormatError when it is too large, nested too deep, or a number with too many digits.
        """
        if isinstance(value, str):
            self.spend(OPERATION + len(value))
            return
        self.spend(OPERATION)
        if isinstance(value, int):
            if value.bit_length() > MAX_BITS:
                raise FormatError("it makes numbers with thousands of digits")
            return
        parts = _parts(value)
        if parts is None:
            return
        if depth >= MAX_DEPTH:
            raise FormatError(f"it makes values nested more than {MAX_DEPTH} deep")
        self.spend(OPERATION * len(parts))
        for part in parts:
            self.read(part, depth + 1)


def _parts(value: Any) -> Any:
    """What a value is made of, something with a length; None for what has no parts."""
    if isinstance(value, list | tuple | KeysView | ValuesView | ItemsView):
        return value
    if isinstance(value, Namespace):
        value = value._Namespace__attrs
    return value.items() if isinstance(value, Mapping) else None


_budget: ContextVar[Budget] = ContextVar("budget")


@contextmanager
def limited(*given: Any) -> Iterator[None]:
    """What runs inside has a budget that grows with the size of what it is given."""
    measure = Budget(1 << 62)
    for value in given:
        measure.read(value)
    token = _budget.set(Budget(MAX_UNITS + UNITS_PER_CHARACTER * ((1 << 62) - measure.left)))
    try:
        yield
    finally:
        _budget.reset(token)


def spend(units: int) -> None:
    """Take units from the budget of what runs now. Raises FormatError when they are gone."""
    _budget.get().spend(units)


def paid(value: T) -> T:
    """The value, once one pass over it is paid for."""
    budget = _budget.get()
    if isinstance(value, str):
        budget.spend(OPERATION + len(value))
    else:
        budget.read(value)
    return value


def cost(value: Any) -> int:
    """Units of one pass over a value, not yet taken. Raises FormatError when they are more than what is left."""
    left = _budget.get().left
    measure = Budget(left)
    measure.read(value)
    return left - measure.left


def steps(values: Any, units: int = OPERATION) -> Any:
    """Something to iterate over, once `units` for each item are paid; what has no length pays as it goes."""
    if hasattr(values, "__len__"):
        spend(units * (1 + len(values)))
        return values
    return paid_each(iter(values), units)


def paid_each(values: Iterator[T], units: int = 0) -> Iterator[T]:
    """The same items, each paid for, with `units` more, when it is asked for."""
    for value in values:
        spend(units)
        yield paid(value)
