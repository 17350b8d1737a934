"""Tables and pictures of a report as plain values that its template shows. Every cell is made safe here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matura.core.page import visible

MAX_DETAIL = 200  # characters of a cell
MAX_ROWS = 40  # of a table

Table = dict[str, Any]
"""heads, rows (of texts), and how many rows more there are that are not shown."""


def figure(title: str, picture: str, table: Table, note: str = "") -> dict[str, Any]:
    """A heading, words, a picture ("" for none) and the table of the same numbers."""
    return {"title": title, "note": note, "svg": picture, "table": table}


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], most: int = MAX_ROWS) -> Table:
    """The first `most` rows, each text cut and with control characters named."""
    shown = [[visible(cell, MAX_DETAIL) for cell in row] for row in rows[:most]]
    return {"heads": heads, "rows": shown, "more": max(0, len(rows) - most)}


def flat(values: Mapping[str, Any]) -> Table:
    """Nested values as rows (a.b.c, text)."""
    return table(["", "value"], list(_pairs(values, "")), 400)


def most(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Those that are not zero, the largest first."""
    return sorted(((name, n) for name, n in counts.items() if n), key=lambda one: (-one[1], one[0]))


def percent(part: float, whole: float) -> str:
    """Such as "12.5%"; a dash of nothing."""
    return f"{part / whole:.1%}" if whole else "–"


def _pairs(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _pairs(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", "–" if value in (None, "", [], {}, ()) else str(value)
