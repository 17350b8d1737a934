"""All rows of a file or a folder, as whatever one file's reader makes of them, with the bad ones named."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

from matura.core.config import did_you_mean
from matura.core.errors import FormatError, MaturaError
from matura.data.conversations import rows

Bad = tuple[str, str]
"""Where a bad row is, and what is wrong with it."""
SHOWN = 5
T = TypeVar("T")
_HELD_OUT_FILE = re.compile(
    r"(^|[/_.-])(test|valid|validation|val|dev|eval|evaluation|heldout)([/_.-]|$)", re.IGNORECASE
)


@dataclass(frozen=True)
class Files(Generic[T]):
    """What files hold, by whether their names say that it is held out (`apart`: some do), and the bad rows."""

    sides: dict[bool, list[T]]
    apart: bool
    bad: list[Bad]


def read(
    root: Path,
    of_file: Callable[[str, Path], Iterable[T | Bad]],
    what: str,
    bad_rows: Literal["error", "drop"],
) -> Files[T]:
    """Everything of a file or a folder, in order. In a folder, files (or folders) named test, validation, dev, ... are
    held out, as datasets mean it. `what` a row should be is for
    messages.

    Raises FormatError for bad rows, with what is wrong, where first, and how many they are (unless they are to be
    dropped), for a broken file, and when every row is bad.
    """
    sides: dict[bool, list[T]] = {False: [], True: []}
    bad: list[Bad] = []
    known = rows.files(root, what)
    names = [name for name, _ in known if root.is_dir() and _HELD_OUT_FILE.search(name)]
    apart = set(names) if len(names) < len(known) else set()
    for name, path in known:
        for found in of_file(name, path):
            if isinstance(found, tuple):
                bad.append(found)
            else:
                sides[name in apart].append(found)
    total = sum(map(len, sides.values())) + len(bad)
    if bad and (bad_rows == "error" or len(bad) == total):
        raise _bad_rows(root, bad, total, what)
    return Files(sides, bool(apart), bad)


def check_columns(columns: Mapping[str, str], known: Collection[str]) -> None:
    """Raises FormatError for another name given to a column that nothing reads."""
    for name in columns:
        if name not in known:
            raise FormatError(
                f"data.columns.{name}: nothing reads a column {name!r}{did_you_mean(name, known)}"
            )


def renamed(values: dict[str, object], columns: Mapping[str, str]) -> dict[str, object]:
    """A row with its columns under the names that are read. Raises FormatError for one that is not there."""
    for ours, theirs in columns.items():
        if theirs not in values:
            raise FormatError(f"data.columns.{ours}: there is no column {theirs!r}, but {', '.join(values)}")
    taken = set(columns.values())
    rest = {name: value for name, value in values.items() if name not in taken and name not in columns}
    return rest | {ours: values[theirs] for ours, theirs in columns.items()}


def _bad_rows(root: Path, bad: list[Bad], total: int, what: str) -> MaturaError:
    """One line for each thing that is wrong, with the first row that has it."""
    places: dict[str, list[str]] = {}
    for place, problem in bad:
        places.setdefault(problem, []).append(place)
    lines = [
        f"{rows[0]}: {problem}" + (f" (and {len(rows) - 1:,} rows more)" if len(rows) > 1 else "")
        for problem, rows in list(places.items())[:SHOWN]
    ]
    if len(places) > SHOWN:
        lines.append(f"... and {len(places) - SHOWN:,} problems more")
    none = len(bad) == total
    what = f"no row is a {what}" if none else f"{len(bad):,} of {total:,} rows are no {what}s"
    hint = "" if none else "\nMend them, or leave them out: data.bad_rows=drop"
    return FormatError(f"{root}: {what}:\n  " + "\n  ".join(lines) + hint)
