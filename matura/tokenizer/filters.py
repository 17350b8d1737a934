"""The filters and tests that a chat template may use, each paid for (see `budget.py`).

Left out are those of Jinja's that write web pages, lay out text or draw random numbers: no conversation needs them,
and some take quadratic time.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

from jinja2 import filters as theirs
from jinja2 import pass_environment, pass_eval_context
from jinja2 import tests as their_tests

from matura.core.errors import FormatError
from matura.tokenizer.budget import OPERATION, paid, paid_each, spend
from matura.tokenizer.methods import bounded_width, is_view, pay_for_printing, pay_for_replacing

Function = Callable[..., Any]
_THEIR_TESTS: dict[str, Any] = dict(their_tests.TESTS)

# Read all of what they are given and make something new.
_READING = (
    "abs", "capitalize", "dictsort", "e", "escape", "float", "groupby", "int", "items", "lower", "max",
    "min", "reverse", "safe", "sort", "string", "title", "truncate", "unique", "upper", "wordcount",
)  # fmt: skip
# Pass items on, most of them one by one.
_PASSING = ("list", "map", "reject", "rejectattr", "select", "selectattr")
# Take no longer for a long list than for a short one.
_FREE = ("count", "d", "default", "first", "last", "length")
# Look at the kind of a value, not at all of it.
_FREE_TESTS = (
    "odd", "even", "defined", "undefined", "filter", "test", "none", "boolean", "false", "true", "integer",
    "float", "string", "mapping", "number", "sequence", "iterable", "callable", "sameas", "escaped",
)  # fmt: skip


def _reading(function: Any) -> Function:
    """The function, paid for by everything that goes in and comes out."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            paid(value)
        result = function(*args, **kwargs)
        return paid_each(result) if isinstance(result, Iterator) else paid(result)

    return run


def _passing(function: Any) -> Function:
    """The function, paid for by the number of items; what comes one by one is paid one by one."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        spend(OPERATION)
        for value in args:
            if isinstance(value, str | list | tuple | range | dict) or is_view(value):
                spend(OPERATION * len(value))
        result = function(*args, **kwargs)
        return paid_each(result) if isinstance(result, Iterator) else result

    return run


def _center(value: Any, width: int = 80) -> str:
    spend(bounded_width(width))
    return str(paid(value)).center(width)


def _format(value: Any, *args: Any, **kwargs: Any) -> str:
    text, values = str(paid(value)), kwargs or args
    pay_for_printing(text, values)
    return text % values


def _indent(value: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    indent = width if isinstance(width, str) else " " * bounded_width(width)
    text = str(paid(value))
    spend(len(indent) * (len(text.splitlines()) + 1))
    return theirs.do_indent(text, indent, first, blank)


@pass_eval_context
def _join(context: Any, value: Any, d: str = "", attribute: str | int | None = None) -> str:
    return theirs.do_join(context, paid_each(iter(value), len(str(paid(d)))), d, attribute)


def _replace(value: Any, old: Any, new: Any, count: int = -1) -> str:
    text, old, new = (str(paid(one)) for one in (value, old, new))
    pay_for_replacing(text, old, new)
    return text.replace(old, new, count)


def _round(value: float, precision: int = 0, method: Any = "common") -> float:
    if not -100 <= precision <= 100:
        raise FormatError(f"it rounds to {precision} digits")
    return theirs.do_round(value, precision, method)


@pass_environment
def _sum(environment: Any, values: Any, attribute: str | int | None = None) -> Any:
    return theirs.do_sum(environment, paid_each(iter(values)), attribute)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without escapes for HTML and with the arguments that templates for transformers give."""
    if len(" " * bounded_width(indent) if isinstance(indent, int) else indent or "") > 16:
        raise FormatError(f"it indents JSON by {indent!r:.40}; at most 16 characters")
    if separators and sum(map(len, separators)) > 16:
        raise FormatError("it separates JSON by long texts")
    written = json.dumps(
        paid(value), ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    return paid(written)


def _trim(value: Any, chars: str | None = None) -> str:
    text = str(paid(value))
    spend(len(text) * len(chars or ""))
    return text.strip(chars)


def _own(function: Function) -> Function:
    """A function that pays before it works; what it makes is paid here."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        spend(OPERATION)
        return paid(function(*args, **kwargs))

    return run


FILTERS: dict[str, Function] = (
    {name: _reading(theirs.FILTERS[name]) for name in _READING}
    | {name: _passing(theirs.FILTERS[name]) for name in _PASSING}
    | {name: theirs.FILTERS[name] for name in _FREE}
    | {"center": _own(_center), "format": _own(_format), "indent": _own(_indent), "join": _own(_join)}
    | {"replace": _own(_replace), "round": _own(_round), "sum": _own(_sum), "trim": _own(_trim)}
    | {"tojson": _own(_tojson)}
)
TESTS: dict[str, Function] = {
    name: test if name in _FREE_TESTS else _reading(test) for name, test in _THEIR_TESTS.items()
}
