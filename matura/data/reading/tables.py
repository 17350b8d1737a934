"""Tables with a column of text: JSON Lines, CSV, TSV, Parquet. Rows are named by where they start in the file."""

from __future__ import annotations

import csv
import datetime
import decimal
import difflib
import json
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from matura.core.columnar import parquet_batches
from matura.core.errors import FormatError
from matura.core.files import size_text
from matura.data.extraction import normalise
from matura.data.reading import unpack
from matura.data.reading.task import BROKEN, NO_COLUMN, NO_TEXT, Context, Found, Piece
from matura.data.sources import LARGE, Skipped

META = ("id", "title", "url", "license", "language", "date", "provenance")
"""Columns that are kept beside the text, when they hold text or numbers."""
BESIDE = (str, int, float, datetime.date, uuid.UUID, decimal.Decimal)
MAX_GROUP_BYTES = 4 << 30


def plan_table(name: str, path: Path, size: int, context: Context, part_bytes: int) -> list[dict[str, Any]]:
    """Pieces of a table: ranges of bytes at ends of rows, or row groups. Packed text is one piece.

    Raises FormatError for a file that is not what its suffix says or lacks the column, and OSError.
    """
    below, packing = unpack.inner_name(name.lower())
    suffix = Path(below).suffix
    common = {"name": name, "path": str(path), "bytes": size}
    if suffix == ".parquet":
        return [{**common, "reader": "parquet", **group} for group in _row_groups(path, context, part_bytes)]
    if suffix in (".jsonl", ".ndjson"):
        head: dict[str, Any] = {"reader": "jsonl"}
        first = 0
    else:
        head, first = _csv_head(path, suffix, context)
        head["reader"] = "csv"
    if packing:
        return [{**common, **head, "start": first, "end": None}]
    cuts = _cuts(path, size, part_bytes, first, quoted=head["reader"] == "csv")
    return [{**common, **head, "start": a, "end": b} for a, b in zip(cuts, [*cuts[1:], size], strict=True)]


def _cuts(path: Path, size: int, part_bytes: int, first: int, *, quoted: bool) -> list[int]:
    """Starts of ranges, each just after the end of a row: a newline outside quotes."""
    cuts, at, odd = [first], first, False
    if size <= part_bytes:
        return cuts
    with path.open("rb") as file:
        if not quoted:
            while cuts[-1] + part_bytes < size:
                file.seek(cuts[-1] + part_bytes)
                while (block := file.readline(unpack.BLOCK)) and not block.endswith(b"\n"):
                    pass
                if file.tell() >= size:
                    break
                cuts.append(file.tell())
            return cuts
        file.seek(first)
        while block := file.read(unpack.BLOCK):
            wanted = cuts[-1] + part_bytes - at
            if wanted < len(block):
                place, odd_here = 0, odd
                while (end := block.find(b"\n", place)) >= 0:
                    odd_here ^= block.count(b'"', place, end) % 2 == 1
                    place = end + 1
                    if place > wanted and not odd_here and at + place < size:
                        cuts.append(at + place)
                        wanted = place + part_bytes
            odd ^= block.count(b'"') % 2 == 1
            at += len(block)
    return cuts


def _csv_head(path: Path, suffix: str, context: Context) -> tuple[dict[str, Any], int]:
    with unpack.opened(path, expansion=context.limits.expansion) as read:
        line = next(unpack.lines(read, context.limits.document_bytes), (0, b""))[1]
    if isinstance(line, int):
        raise FormatError(f"{LARGE}: its first line has {line:,} bytes")
    head = line.decode("utf-8-sig", "replace").rstrip("\r")
    delimiter = "\t" if suffix == ".tsv" else ";" if ";" in head and "," not in head else ","
    columns = next(csv.reader([head], delimiter=delimiter), [])
    if head.count('"') % 2:
        raise FormatError(f"{BROKEN}: a column's name goes over several lines")
    check_column(context.text, columns)
    return {"columns": columns, "delimiter": delimiter}, len(line) + 1


def check_column(wanted: str, columns: list[str]) -> None:
    """Raises FormatError ("no such column: ...") with what there is instead."""
    if wanted not in columns:
        close = difflib.get_close_matches(wanted, columns, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        shown = ", ".join(columns[:20])
        raise FormatError(f"{NO_COLUMN}: {wanted!r} is not among: {shown}{hint}. Set `text` to one of them.")


def _row_groups(path: Path, context: Context, part_bytes: int) -> list[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            check_column(context.text, file.schema_arrow.names)
            groups, rows, size, start = [], 0, 0, 0
            held: list[int] = []
            for number in range(file.num_row_groups):
                held.append(number)
                group = file.metadata.row_group(number)
                size += group.total_byte_size
                rows += group.num_rows
                if size >= part_bytes or number == file.num_row_groups - 1:
                    groups.append({"groups": held, "first_row": start})
                    start, held, size = rows, [], 0
            return groups
    except pyarrow.ArrowException as error:
        raise FormatError(f"{BROKEN}: not a Parquet file: {error}") from error


def read_jsonl(piece: Piece, context: Context) -> Iterator[Found | Skipped]:
    """The rows that are objects with the column; others are passed over line by line."""
    number = _LineNumbers(piece)
    for offset, line in _lines(piece, context):
        place = f"{piece['name']}@{offset}"
        if isinstance(line, int):
            limit = f"{2 * context.limits.document_bytes:,}"
            yield Skipped(place, LARGE, f"line {number(offset):,} has {line:,} bytes, the limit is {limit}")
            continue
        if not line.strip():
            continue
        text = line.decode("utf-8-sig" if offset == 0 else "utf-8", "replace")
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            yield Skipped(place, BROKEN, f"line {number(offset):,} is not JSON: {error}"[:200])
            continue
        if not isinstance(row, dict) or context.text not in row:
            there = ", ".join(list(row)[:20]) if isinstance(row, dict) else f"a {type(row).__name__}"
            detail = f"line {number(offset):,}: {context.text!r} is not among: {there}"
            yield Skipped(place, NO_COLUMN, detail[:300])
            continue
        replaced = text.count("\ufffd") if "\ufffd" in text else 0
        yield found_row(row, context.text, place, replaced)


def read_csv(piece: Piece, context: Context) -> Iterator[Found | Skipped]:
    """The rows of a CSV file (RFC 4180); a row with another number of fields than the head is passed over.

    After a row that is too large it goes on at the next line.
    """
    csv.field_size_limit(context.limits.document_bytes)
    columns: list[str] = piece["columns"]
    number, feed = _LineNumbers(piece), _Feed(piece, context)
    rows = csv.reader(feed, delimiter=piece["delimiter"])
    while True:
        feed.replaced = 0
        try:
            row = next(rows, None)
        except csv.Error as error:
            place, reason = f"{piece['name']}@{feed.at}", LARGE if "limit" in str(error) else BROKEN
            yield Skipped(place, reason, f"the row that reaches line {number(feed.at):,}: {error}")
            continue
        if row is None:
            if feed.failed is not None:
                raise feed.failed
            return
        place = f"{piece['name']}@{feed.at}"  # of its last line, which is as good a name as its first
        if row and len(row) != len(columns):
            detail = f"line {number(feed.at):,}: {len(row)} fields, the head has {len(columns)}"
            yield Skipped(place, BROKEN, detail)
        elif row:
            yield found_row(dict(zip(columns, row, strict=True)), context.text, place, feed.replaced)


class _Feed:
    """The lines of a piece for csv.reader, which may go on after an error; `at` is where the last one started."""

    def __init__(self, piece: Piece, context: Context) -> None:
        self.at, self.replaced = piece["start"], 0
        self.failed: FormatError | None = (
            None  # what ended the lines early, told after the rows that are complete
        )
        self._lines = _lines(piece, context)

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        try:
            self.at, line = next(self._lines)
        except FormatError as error:
            self.failed = error
            raise StopIteration from None
        if isinstance(line, int):
            raise csv.Error(f"a line of {line:,} bytes, over the limit")
        text = line.decode("utf-8", "replace") + "\n"
        self.replaced += text.count("\ufffd")
        return text


class _LineNumbers:
    """The number of the line at an offset, from 1. Only what must be told is looked up, by reading once more."""

    def __init__(self, piece: Piece) -> None:
        self._piece, self._at, self._number = piece, 0, 1

    def __call__(self, offset: int) -> int:
        packing = unpack.inner_name(str(self._piece["path"]))[1]
        if packing is not None:  # cannot be entered in the middle
            self._at, self._number = 0, 1
        left = offset - self._at
        bounds = {} if packing else {"start": self._at, "end": offset}
        with unpack.opened(self._piece["path"], expansion=float("inf"), **bounds) as read:
            while left > 0 and (block := read()):
                self._number += block[:left].count(b"\n")
                left -= len(block)
        self._at = offset
        return self._number


def _lines(piece: Piece, context: Context) -> Iterator[tuple[int, bytes | int]]:
    start, end = piece["start"], piece["end"]
    packed = end is None
    bounds = {} if packed else {"start": start, "end": end}
    with unpack.opened(piece["path"], expansion=context.limits.expansion, **bounds) as read:
        for offset, line in unpack.lines(read, 2 * context.limits.document_bytes, 0 if packed else start):
            if offset >= start:
                yield offset, line


def read_parquet(piece: Piece, context: Context) -> Iterator[Found | Skipped]:
    """The rows of some row groups, a batch in memory at a time. A damaged group costs what is left of itself."""
    import pyarrow
    import pyarrow.parquet

    first = piece["first_row"]
    try:
        with pyarrow.parquet.ParquetFile(piece["path"], page_checksum_verification=True) as file:
            schema = file.schema_arrow
            if schema.field(context.text).type not in (pyarrow.string(), pyarrow.large_string()):
                kind = schema.field(context.text).type
                raise FormatError(f"{NO_COLUMN}: {context.text!r} holds {kind}, expected text")
            for group in piece["groups"]:
                yield from _row_group(file, group, first, piece["name"], context.text)
                first += file.metadata.row_group(group).num_rows
    except (pyarrow.ArrowException, OSError) as error:
        raise FormatError(f"{BROKEN}: {error}") from error


def _row_group(file: Any, group: int, first: int, name: str, text: str) -> Iterator[Found | Skipped]:
    import pyarrow

    number = first
    if (claimed := file.metadata.row_group(group).total_byte_size) > MAX_GROUP_BYTES:
        yield Skipped(f"{name}@{number}", LARGE, f"row group {group} unpacks to {size_text(claimed)}")
        return
    names = [column for column in dict.fromkeys((text, *META)) if column in file.schema_arrow.names]
    try:
        for batch in parquet_batches(file, names, groups=[group]):
            for row in batch.to_pylist():
                yield found_row(row, text, f"{name}@{number}")
                number += 1
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        yield Skipped(f"{name}@{number}", BROKEN, f"row group {group} after row {number:,}: {error}"[:300])


def found_row(row: Mapping[str, Any], column: str, place: str, replaced: int = 0) -> Found | Skipped:
    """A row as a text with what its other columns say."""
    value = row[column]
    if value is None or (isinstance(value, str) and not value.strip()):
        return Skipped(place, NO_TEXT, f"an empty {column!r}")
    if not isinstance(value, str):
        return Skipped(place, NO_COLUMN, f"{column!r} holds a {type(value).__name__}, expected text")
    meta = {"kind": "table"}
    for key in META:
        if key != column and isinstance(beside := row.get(key), BESIDE) and str(beside):
            meta["row" if key == "id" else key] = normalise(str(beside))[:500]
    if replaced:
        meta["replaced"] = str(replaced)
    return Found(place, normalise(value), meta, place)
