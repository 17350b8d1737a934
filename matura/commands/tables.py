"""Tables on the terminal and files of the commands that inspect."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matura.core.errors import MaturaError
from matura.core.files import atomic_write

if TYPE_CHECKING:
    from rich.table import Table

PIPE_WIDTH = 200
"""Columns of a table that does not go to a terminal."""

_WORDS = {
    "token",
    "from",
    "from \\ to",
    "to",
    "to: the strongest",
    "strongest key",
    "at the key",
    "likeliest",
}


def columns(table: Table, *names: str) -> None:
    """Columns of words to the left and of numbers to the right."""
    for name in names:
        table.add_column(plain(name), justify="left" if name in _WORDS else "right", no_wrap=True)


def quoted(label: str, position: int) -> str:
    """A token with its position."""
    from matura.inspect.reading import shown

    return f"{shown(label).strip('·')!r} ({position})"


def plain(text: str) -> Any:
    """Text in which no brackets are markup."""
    from rich.text import Text

    return Text(text)


def width() -> int:
    """Columns of the terminal; a file or a pipe takes lines of any length."""
    from rich.console import Console

    return Console().width if sys.stdout.isatty() else PIPE_WIDTH


def print_table(table: Table) -> None:
    """To the terminal at its width, or to a file or pipe at a fixed one."""
    from rich.console import Console

    wide = None if sys.stdout.isatty() else PIPE_WIDTH
    Console(highlight=False, width=wide).print(table)


def one_stdout(**files: Path | None) -> None:
    """Raises MaturaError when several options, by their names, would write to stdout."""
    if len(names := [f"--{name} -" for name, path in files.items() if str(path) == "-"]) > 1:
        raise MaturaError(
            f"{' and '.join(names)}: only one of them can be stdout; give the others a file name"
        )


def save(path: Path, text: str) -> None:
    """Write a file and say so; "-" is stdout."""
    if str(path) == "-":
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        return
    path = path.expanduser()
    if not path.parent.is_dir():
        raise MaturaError(f"there is no folder {path.parent} to write {path.name} into")
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"Written: {path}")
