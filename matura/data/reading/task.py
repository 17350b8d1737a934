"""What readers of single formats share: what they are told, what they give, and how trouble becomes a line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from matura.core.corpus_settings import Limits
from matura.core.errors import FormatError
from matura.data.sources import BINARY, EMPTY, LARGE, UNDECODABLE, UNKNOWN, UNREADABLE, Skipped

TRUNCATED, BOMB, BROKEN, SLOW, CHANGED = "truncated", "expands too much", "broken", "timed out", "changed"
NO_COLUMN, NO_TEXT, STATUS, NO_PAGE = "no such column", "no text", "http status", "not a page"
REDIRECT, NAMESPACE = "redirect", "not an article"
VENDORED, GENERATED, MINIFIED, LOCK = "vendored", "generated", "minified", "lock file"

DAMAGE = frozenset(
    {LARGE, BINARY, UNDECODABLE, UNREADABLE, TRUNCATED, BOMB, BROKEN, SLOW, NO_COLUMN, CHANGED}
)
"""Reasons that are an error when `limits.strict` is set; the others are what a source is expected to hold."""
_REASONS = (*DAMAGE, EMPTY, UNKNOWN, NO_TEXT)


@dataclass(frozen=True, slots=True)
class Found:
    """A text: `place` says where in its source it was, whatever the cut; `source` names it for people."""

    place: str
    text: str
    meta: Mapping[str, str] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True, slots=True)
class Context:
    """What all readers of a task know: limits and the column that holds the text."""

    limits: Limits
    text: str = "text"
    query: str | None = None


Piece = Mapping[str, Any]
"""A file or a range of one: reader, name, path, and what the reader needs besides. Plain JSON values."""
Reader = Callable[[Piece, Context], Iterator[Found | Skipped]]


def trouble(name: str, error: Exception) -> Skipped:
    """The line for an error: its reason is what the message of a FormatError begins with, else "broken"."""
    if isinstance(error, OSError) and error.strerror:
        return Skipped(name, UNREADABLE, error.strerror)
    reason, colon, detail = str(error).partition(": ")
    if isinstance(error, FormatError) and colon and reason in _REASONS:
        return Skipped(name, reason, detail)
    shown = str(error) if isinstance(error, FormatError) else f"{type(error).__name__}: {error}"
    return Skipped(name, BROKEN, shown[:300])
