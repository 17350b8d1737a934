"""Rows of files: JSON Lines (packed or not), JSON, Parquet, and folders of them; each with its place in the file."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matura.core.columnar import parquet_batches
from matura.core.errors import FormatError, MaturaError
from matura.core.files import size_text
from matura.core.records import MAX_GROUP_BYTES, MAX_LINE_BYTES
from matura.data import sources
from matura.data.reading import unpack

KNOWN = re.compile(r"\.(jsonl|ndjson|json)(\.(gz|bz2|xz|zst))?$|\.parquet$", re.IGNORECASE)
ABOUT_FILES = "s are read from .jsonl, .json and .parquet files (.jsonl and .json also packed)"
MAX_JSON_BYTES = 512 << 20  # of a file that is one JSON array, which is parsed as a whole
EXPANSION = 200.0


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a file: `values` by column, or `problem`, which says why it has none. `place` is for people."""

    file: str
    place: str
    values: dict[str, Any] | None
    problem: str = ""


def files(root: Path, what: str = "conversation") -> list[tuple[str, Path]]:
    """The files to read at a path, by name below it; `what` their rows should be is for messages.

    Raises MaturaError when there is none.
    """
    found = [(name, path) for name, path in sources.paths(root) if path.is_file()]
    if not root.is_dir():
        if not KNOWN.search(root.name):
            raise FormatError(f"{root}: {what}{ABOUT_FILES}")
        return found
    known = [(name, path) for name, path in found if KNOWN.search(name)]
    if not known:
        there = ", ".join(name for name, _ in found[:5]) or "nothing"
        raise MaturaError(f"{root} holds no {what}s: {what}{ABOUT_FILES}. There is: {there}")
    return known


def read(name: str, path: Path, columns: Container[str]) -> Iterator[Row]:
    """The rows of one file, in order. A broken file raises FormatError after the rows before the break.

    Columns of a table other than `columns` may be large or strange (pictures, vectors) and are given as None.
    """
    try:
        if name.lower().endswith(".parquet"):
            yield from _parquet(name, path, columns)
        elif _is_array(path):
            yield from _array(name, path)
        else:
            yield from _lines(name, path)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror or error}") from error


@contextmanager
def _opened(path: Path) -> Iterator[unpack.Read]:
    """The bytes of a file, unpacked. What is wrong with them is told with its name."""
    try:
        with unpack.opened(path, expansion=EXPANSION) as read_block:
            yield read_block
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error


def _is_array(path: Path) -> bool:
    """Whether a file of JSON is one array; many that end in .json are JSON Lines."""
    with _opened(path) as read_block:
        while block := read_block():
            if start := block.removeprefix(b"\xef\xbb\xbf").lstrip():
                return start.startswith(b"[")
    return False


def _lines(name: str, path: Path) -> Iterator[Row]:
    with _opened(path) as read_block:
        for number, (_, line) in enumerate(unpack.lines(read_block, MAX_LINE_BYTES), 1):
            place = f"{name}:{number}"
            if isinstance(line, int):
                limit = size_text(MAX_LINE_BYTES)
                yield Row(name, place, None, f"the line has {size_text(line)}, the limit is {limit}")
            elif line.strip():
                yield _row(name, place, line)


def _row(name: str, place: str, line: bytes) -> Row:
    try:
        values = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return Row(name, place, None, f"not UTF-8: {error.reason} at byte {error.start}")
    except (ValueError, RecursionError) as error:
        return Row(name, place, None, f"not JSON: {error}"[:200])
    return _checked(name, place, values)


def _checked(name: str, place: str, values: Any) -> Row:
    if not isinstance(values, dict):
        return Row(name, place, None, f"expected an object with columns, found {_kind(values)}")
    return Row(name, place, values)


def _array(name: str, path: Path) -> Iterator[Row]:
    try:
        data = unpack.whole(path, max_bytes=MAX_JSON_BYTES, expansion=EXPANSION)
        values = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # also of text that is not UTF-8
        raise FormatError(f"{path}: not JSON: {error}"[:400]) from error
    except FormatError as error:
        raise FormatError(f"{path}: {error}. Write large files as .jsonl, one row in a line") from error
    for number, one in enumerate(values, 1):
        yield _checked(name, f"{name} row {number}", one)


def _parquet(name: str, path: Path, columns: Container[str]) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            there: list[str] = file.schema_arrow.names
            wanted = [column for column in there if column in columns]
            for group in range(file.num_row_groups):
                if (claimed := file.metadata.row_group(group).total_byte_size) > MAX_GROUP_BYTES:
                    raise FormatError(f"{path}: row group {group} unpacks to {size_text(claimed)}")
                for batch in parquet_batches(file, wanted, groups=[group]):
                    for values in batch.to_pylist():
                        number += 1
                        yield Row(name, f"{name} row {number}", {**dict.fromkeys(there), **values})
    except (pyarrow.ArrowException, UnicodeDecodeError, OverflowError) as error:
        raise FormatError(f"{path}: broken after row {number}: {error}"[:400]) from error


def _kind(value: Any) -> str:
    names = {type(None): "nothing", list: "a list", str: "text", bool: "true or false", dict: "an object"}
    return names.get(type(value), "a number")
