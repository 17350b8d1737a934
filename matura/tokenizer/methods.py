"""The methods and operators that a chat template may use on texts, lists and dictionaries, and what each costs.

Whatever can make a long text out of short ones, or compare every character with every other, is paid for before it
runs (see `budget.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, ItemsView, KeysView, Mapping, ValuesView
from string import Formatter
from typing import Any

from matura.core.errors import FormatError
from matura.tokenizer.budget import OPERATION, cost, paid_each, spend

_QUADRATIC = ("rfind", "rindex", "rsplit", "rpartition", "strip", "lstrip", "rstrip")
_WIDE = ("center", "ljust", "rjust", "zfill")
_TEXT = (
    *_QUADRATIC, *_WIDE,
    "capitalize", "casefold", "count", "endswith", "find", "format", "format_map", "index", "isalnum",
    "isalpha", "isascii", "isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper",
    "join", "lower", "partition", "removeprefix", "removesuffix", "replace", "split", "splitlines",
    "startswith", "swapcase", "title", "upper",
)  # fmt: skip
_METHODS: tuple[tuple[type, tuple[str, ...]], ...] = (
    (str, _TEXT),
    (Mapping, ("get", "items", "keys", "values")),
    (list, ("index", "count")),
    (tuple, ("index", "count")),
)
MAX_WIDTH = 10_000


def of(value: Any) -> tuple[str, ...]:
    """Names of the methods that a template may call on a value."""
    return next((names for kind, names in _METHODS if isinstance(value, kind)), ())


def is_view(value: Any) -> bool:
    """Whether it only shows what a dictionary holds."""
    return isinstance(value, KeysView | ValuesView | ItemsView)


def pay_for_method(method: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Pays for a call before it is made; returns the arguments to make it with. Anything but a method is free."""
    owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
    if isinstance(owner, list | tuple):
        spend(cost(owner))
    if not isinstance(owner, str):
        return args
    spend(len(owner))
    if name in _WIDE and args:
        spend(bounded_width(args[0]))
    elif name in _QUADRATIC and args and isinstance(args[0], str):
        spend(len(owner) * len(args[0]))
    elif name == "replace" and len(args) > 1:
        pay_for_replacing(owner, *args[:2])
    elif name == "join" and args:
        return (list(paid_each(iter(args[0]), len(owner))), *args[1:])
    return args


def pay_for_replacing(text: str, old: Any, new: Any) -> None:
    """Pays for every `old` in `text` that becomes a `new`."""
    if isinstance(old, str) and isinstance(new, str):
        spend(len(text) + (text.count(old) if old else len(text) + 1) * len(new))


def pay_for_operator(operator: str, left: Any, right: Any) -> None:
    """Pays for what an arithmetic operator makes, where that can be more than what it is given."""
    if operator == "*":
        for values, times in ((left, right), (right, left)):
            if isinstance(values, str) and isinstance(times, int):
                spend(len(values) * max(0, times))
            elif isinstance(values, list | tuple) and isinstance(times, int):
                spend(OPERATION * len(values) * max(0, times))
    elif operator == "**" and isinstance(left, int) and isinstance(right, int):
        spend(left.bit_length() * max(0, right))
    elif operator == "%" and isinstance(left, str):
        pay_for_printing(left, right)


def pay_for_printing(format: str, values: Any) -> None:
    """Pays for `format % values`: a value may be written once per sign, widths are in the format or, with *, are
    values."""
    widths = [len(number) > 4 or int(number) for number in re.findall(r"\d+", format)]
    if any(one is True for one in widths):
        raise FormatError("it writes a number or a text thousands of characters wide")
    if "*" in format:
        widths += [bounded_width(value) for value in _listed(values) if isinstance(value, int)]
    spend(len(format) + format.count("%") * (cost(values) + max(map(abs, widths), default=0)))


def _listed(values: Any) -> list[Any]:
    if isinstance(values, Mapping):
        return list(values.values())
    return list(values) if isinstance(values, list | tuple) else [values]


def bounded_format(text: str, write: Callable[..., str]) -> Callable[..., str]:
    """`text.format` that pays before it writes. Raises FormatError for widths that are large or given as values."""

    def format(*args: Any, **kwargs: Any) -> str:
        fields = list(Formatter().parse(text))
        if any(re.search(r"\d{4}|\{", spec or "") for _, _, spec, _ in fields):
            raise FormatError("it uses `format` with a width of four digits or one given as a value")
        spend(len(text) + len(fields) * (cost(args) + cost(kwargs) + 1000))
        return write(*args, **kwargs)

    return format


def bounded_width(value: Any) -> int:
    """A width that a template gives. Raises FormatError for more than any text is wide."""
    if not isinstance(value, int) or abs(value) > MAX_WIDTH:
        raise FormatError(f"it asks for a width of {value!r:.40}; at most {MAX_WIDTH}")
    return value
