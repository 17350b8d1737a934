"""Test items from files: text (an item is a paragraph), JSON Lines and Parquet (an item is a text in a row)."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from matura.core.columnar import parquet_batches
from matura.core.errors import ConfigError, FormatError
from matura.core.files import size_text

SUFFIXES = (".txt", ".jsonl", ".jsonl.gz", ".parquet")
MAX_BYTES = 1 << 30
"""Of one file, unpacked."""
MAX_LINE_BYTES = 32 << 20
MAX_DEPTH = 20


def read_problems(path: Path, columns: Sequence[str] = ()) -> Iterator[tuple[str, str, str]]:
    """(file, name of the item, text) of every text in a file or in the files of a folder, in the order of their names.

    `columns` are the top-level fields to read of rows; empty reads all texts, also those within lists and objects.
    Raises ConfigError for a missing place, or a folder without such files; FormatError for a broken file, or a column
    that no row of a file has.
    """
    if path.is_dir():
        files = sorted(one for one in path.rglob("*") if one.is_file() and one.name.endswith(SUFFIXES))
        if not files:
            raise ConfigError(
                f"decontaminate.problems: {path} holds no file that ends in {', '.join(SUFFIXES)}"
            )
    elif path.is_file() and path.name.endswith(SUFFIXES):
        files = [path]
    elif path.exists():
        raise ConfigError(f"decontaminate.problems: {path} must end in {', '.join(SUFFIXES)}")
    else:
        raise ConfigError(f"decontaminate.problems: {path} does not exist")
    for file in files:
        name = file.relative_to(path).as_posix() if file != path else file.name
        for item, text in _items(file, columns):
            yield name, item, text


def _items(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, str]]:
    if path.name.endswith(".txt"):
        yield from _paragraphs(path)
        return
    rows = _parquet_rows(path) if path.name.endswith(".parquet") else _json_rows(path)
    missing, empty = set(columns), True
    for name, row in rows:
        empty = False
        if isinstance(row, dict) and columns:
            missing -= row.keys()
            row = [row.get(column) for column in columns]
        for text in _texts(row):
            yield name, text
    if missing and not empty:
        raise FormatError(f"{path}: no row has the column {sorted(missing)[0]!r} of decontaminate.columns")


def _texts(value: Any, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)) and depth < MAX_DEPTH:
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one, depth + 1)


def _paragraphs(path: Path) -> Iterator[tuple[str, str]]:
    _check_size(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot read test items: {error}") from error
    for number, part in enumerate(re.split(r"\n[ \t\r]*\n", text), start=1):
        yield f"paragraph {number}", part


def _json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    _check_size(path)
    opened = gzip.open if path.name.endswith(".gz") else open
    left, number = MAX_BYTES, 0
    try:
        with opened(path, "rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                left -= len(line)
                if len(line) > MAX_LINE_BYTES or left < 0:
                    raise FormatError(
                        f"{path}:{number}: a line is at most {size_text(MAX_LINE_BYTES)}, "
                        f"all of them at most {size_text(MAX_BYTES)}"
                    )
                if line.strip():
                    yield f"line {number}", json.loads(line)
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise FormatError(f"{path}:{number}: expected one JSON value a line: {error}") from error


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    _check_size(path)
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            groups = range(file.num_row_groups)
            if sum(file.metadata.row_group(group).total_byte_size for group in groups) > MAX_BYTES:
                raise FormatError(f"{path}: unpacks to more than {size_text(MAX_BYTES)}")
            left = MAX_BYTES
            for batch in parquet_batches(file, most=MAX_BYTES):
                left -= batch.nbytes
                if left < 0:
                    raise FormatError(f"{path}: unpacks to more than {size_text(MAX_BYTES)}")
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot read test items: {error}") from error


def _check_size(path: Path) -> None:
    if (size := path.stat().st_size) > MAX_BYTES:
        raise FormatError(f"{path}: {size_text(size)} of test items, at most {size_text(MAX_BYTES)}")
