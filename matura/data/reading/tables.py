"""Tables with a column of text: JSON Lines, CSV, TSV, Parquet. Rows are named by where they start in the file."""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from matura.core.errors import FormatError
from matura.core.files import size_text
from matura.data.extraction import normalise
from matura.data.reading import unpack
from matura.data.reading.task import BROKEN, NO_COLUMN, NO_TEXT, Context, Found, Piece
from matura.data.sources import LARGE, Skipped

META = ("id", "title", "url", "license", "language", "date", "provenance")
"""Columns that are kept beside the text, when they hold text or numbers."""
MAX_GROUP_BYTES = 4 << 30
BATCH_ROWS = 256


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
        raise FormatError(f"{NO_COLUMN}: {wanted!r} is not among: {shown}{hint} Set `text` to one of them.")


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
    for offset, line in _lines(piece, context):
        place = f"{piece['name']}@{offset}"
        if isinstance(line, int):
            yield Skipped(place, LARGE, f"a line of {line:,} bytes, limit {context.limits.document_bytes:,}")
            continue
        if not line.strip():
            continue
        text = line.decode("utf-8-sig" if offset == 0 else "utf-8", "replace")
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            yield Skipped(place, BROKEN, f"not JSON: {error}"[:200])
            continue
        if not isinstance(row, dict) or context.text not in row:
            there = ", ".join(list(row)[:20]) if isinstance(row, dict) else f"a {type(row).__name__}"
            yield Skipped(place, NO_COLUMN, f"{context.text!r} is not among: {there}")
            continue
        replaced = text.count("\ufffd") if "\ufffd" in text else 0
        yield found_row(row, context.text, place, replaced)


def read_csv(piece: Piece, context: Context) -> Iterator[Found | Skipped]:
    """The rows of a CSV file (RFC 4180); a row with another number of fields than the head is passed over."""
    csv.field_size_limit(context.limits.document_bytes)
    columns: list[str] = piece["columns"]
    where: list[Any] = [piece["start"], None, 0]  # offset of the line under way, an overlong one, replaced

    def feed() -> Iterator[str]:
        for offset, line in _lines(piece, context):
            where[0] = offset
            if isinstance(line, int):
                raise FormatError(f"{LARGE}: a line of {line:,} bytes at byte {offset:,}")
            text = line.decode("utf-8", "replace") + "\n"
            where[2] += text.count("\ufffd")
            yield text

    rows = csv.reader(feed(), delimiter=piece["delimiter"])
    while True:
        where[2] = 0
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise FormatError(f"{BROKEN}: row that ends near byte {where[0]:,}: {error}") from error
        if row is None:
            return
        place = f"{piece['name']}@{where[0]}"  # of its last line, which is as good a name as its first
        if row and len(row) != len(columns):
            yield Skipped(place, BROKEN, f"{len(row)} fields, the head has {len(columns)}")
        elif row:
            yield found_row(dict(zip(columns, row, strict=True)), context.text, place, where[2])


def _lines(piece: Piece, context: Context) -> Iterator[tuple[int, bytes | int]]:
    start, end = piece["start"], piece["end"]
    packed = end is None
    bounds = {} if packed else {"start": start, "end": end}
    with unpack.opened(piece["path"], expansion=context.limits.expansion, **bounds) as read:
        for offset, line in unpack.lines(read, 2 * context.limits.document_bytes, 0 if packed else start):
            if offset >= start:
                yield offset, line


def read_parquet(piece: Piece, context: Context) -> Iterator[Found | Skipped]:
    """The rows of some row groups, a batch in memory at a time."""
    import pyarrow
    import pyarrow.parquet

    number = piece["first_row"]
    try:
        with pyarrow.parquet.ParquetFile(piece["path"]) as file:
            for group in piece["groups"]:
                if (claimed := file.metadata.row_group(group).total_byte_size) > MAX_GROUP_BYTES:
                    raise FormatError(f"{LARGE}: row group {group} unpacks to {size_text(claimed)}")
            names = [n for n in dict.fromkeys((context.text, *META)) if n in file.schema_arrow.names]
            if file.schema_arrow.field(context.text).type not in (pyarrow.string(), pyarrow.large_string()):
                kind = file.schema_arrow.field(context.text).type
                raise FormatError(f"{NO_COLUMN}: {context.text!r} holds {kind}, expected text")
            for batch in file.iter_batches(BATCH_ROWS, row_groups=piece["groups"], columns=names):
                for row in batch.to_pylist():
                    yield found_row(row, context.text, f"{piece['name']}@{number}")
                    number += 1
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{BROKEN}: after row {number:,}: {error}") from error


def found_row(row: Mapping[str, Any], column: str, place: str, replaced: int = 0) -> Found | Skipped:
    """A row as a text with what its other columns say."""
    value = row[column]
    if value is None or (isinstance(value, str) and not value.strip()):
        return Skipped(place, NO_TEXT, f"an empty {column!r}")
    if not isinstance(value, str):
        return Skipped(place, NO_COLUMN, f"{column!r} holds a {type(value).__name__}, expected text")
    meta = {"kind": "table"}
    for key in META:
        if key != column and isinstance(beside := row.get(key), str | int | float) and str(beside):
            meta["row" if key == "id" else key] = normalise(str(beside))[:500]
    if replaced:
        meta["replaced"] = str(replaced)
    return Found(place, normalise(value), meta, place)
