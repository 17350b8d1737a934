"""Dictionaries in the format of dictd(8): a text, packed by dictzip or not, and an index of its entries.

A line of the index is a headword, where its entry starts and how many bytes it has (numbers of base 64), with tabs
between. Several headwords may share an entry; it is read once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from matura.core.errors import FormatError
from matura.data import sources
from matura.data.extraction import normalise
from matura.data.reading import unpack
from matura.data.reading.task import BOMB, BROKEN, NO_TEXT, TRUNCATED, Context, Found, Piece
from matura.data.sources import LARGE, Skipped

MAX_INDEX_LINE = 4096
MAX_INDEX_BYTES = 256 << 20
FLOOR, MAX_OVERLAP = 1 << 20, 4
"""Entries may overlap, but not have more bytes in all than this and this many times the text."""
ABOUT = re.compile(r"00-?database")
"""Headwords of what is told about the dictionary itself."""
_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_VALUE = {digit: value for value, digit in enumerate(_DIGITS)}


class Entry(NamedTuple):
    """Where an entry lies in the unpacked text, and its first headword."""

    start: int
    bytes: int
    headword: str


def is_index(path: Path) -> bool:
    """Whether a file is the index of a dictionary beside it."""
    stem = path.with_suffix("")
    return path.suffix.lower() == ".index" and any(
        stem.with_name(stem.name + suffix).exists() for suffix in (".dict.dz", ".dict", ".dict.gz")
    )


def plan_dictionary(name: str, path: Path, size: int) -> dict[str, Any]:
    """The piece for a dictionary. Raises FormatError when there is no index beside it, or one too large."""
    stem = unpack.inner_name(path.name)[0]
    index = path.with_name(f"{Path(stem).stem}.index")
    if not index.is_file():
        raise FormatError(f"{BROKEN}: a dictionary without its index {index.name}")
    if (length := index.stat().st_size) > MAX_INDEX_BYTES:
        raise FormatError(f"{LARGE}: the index has {length:,} bytes, the limit is {MAX_INDEX_BYTES:,}")
    return {"reader": "dictionary", "name": name, "path": str(path), "index": str(index), "bytes": size}


def read_dictionary(piece: Piece, context: Context) -> Iterator[Found | Skipped]:
    """The entries in their order. The part of the text that is in memory is that of one entry."""
    name, limit = piece["name"], context.limits.document_bytes
    entries, wrong = read_index(Path(piece["index"]))
    if wrong:
        yield Skipped(
            f"{name} (index)", BROKEN, f"{len(wrong)} lines are no entries, such as line {wrong[0]}"
        )
    held, at, given = b"", 0, 0  # what is held of the text, where that begins, bytes in all entries so far
    with unpack.opened(piece["path"], expansion=context.limits.expansion) as read:
        for entry in entries:
            place = f"{name}@{entry.start}"
            if entry.bytes > limit:
                yield Skipped(place, LARGE, f"an entry of {entry.bytes:,} bytes, the limit is {limit:,}")
                continue
            while at + len(held) < entry.start + entry.bytes:
                block = read()
                if not block:
                    raise FormatError(f"{TRUNCATED}: the text ends before {entry.headword!r:.60}")
                gone = min(max(0, entry.start - at), len(held))
                held, at = held[gone:] + block, at + gone
            given += entry.bytes
            if given > FLOOR + MAX_OVERLAP * (at + len(held)):
                raise FormatError(f"{BOMB}: the entries have over {given:,} bytes, out of {at + len(held):,}")
            data = held[entry.start - at : entry.start - at + entry.bytes]
            yield _entry(place, entry, data)


def read_index(path: Path) -> tuple[list[Entry], list[int]]:
    """The entries by their places, each once, and the numbers of the lines that are none."""
    found: dict[tuple[int, int], str] = {}
    wrong: list[int] = []
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_INDEX_LINE):
            number += 1
            fields = line.decode("utf-8", "replace").rstrip("\n").split("\t")
            numbers = [_number(field) for field in fields[1:3]]
            if not line.endswith(b"\n") and len(line) == MAX_INDEX_LINE:
                while (rest := file.readline(MAX_INDEX_LINE)) and not rest.endswith(b"\n"):
                    pass
                numbers = []
            if len(numbers) < 2 or None in numbers:
                wrong.append(number)
            elif not ABOUT.match(fields[0]):
                found.setdefault((numbers[0] or 0, numbers[1] or 0), fields[0])
    return [Entry(*where, found[where]) for where in sorted(found)], wrong


def _number(digits: str) -> int | None:
    """Of base 64, as dictd writes it; None for what is none, or beyond 2^48."""
    value = 0
    if not 0 < len(digits) <= 8:
        return None
    for digit in digits:
        if digit not in _VALUE:
            return None
        value = value * 64 + _VALUE[digit]
    return value


def _entry(place: str, entry: Entry, data: bytes) -> Found | Skipped:
    try:
        text, encoding = sources.decode(data)
    except FormatError as error:
        return Skipped(place, *str(error).split(": ", 1))
    text = normalise(text)
    if not text.strip():
        return Skipped(place, NO_TEXT, f"an entry of {entry.bytes} bytes")
    meta = {"kind": "dictionary", "encoding": encoding, "title": normalise(entry.headword)[:500]}
    return Found(place, text, meta, place)
