"""Bytes of plain and packed files (gz and its kin dictzip, bz2, xz, zst), always in bounded portions.

What can be read of a damaged file is read: the error comes after it. Errors are FormatError, with the reason first.
"""

from __future__ import annotations

import bz2
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matura.core.errors import FormatError
from matura.data.reading.task import BOMB, BROKEN, TRUNCATED
from matura.data.sources import LARGE

PACKED = {".gz": "gz", ".dz": "gz", ".bz2": "bz2", ".xz": "xz", ".zst": "zst"}
BLOCK = 1 << 20
FLOOR = 4 << 20  # bytes unpacked before the ratio is looked at: tiny files of one letter are no bombs
XZ_MEMORY = 256 << 20

Read = Callable[[], bytes]
"""The next portion, at most about 1 MiB; empty at the end."""


def inner_name(name: str) -> tuple[str, str | None]:
    """The name below the packing, and the packing: "a.md.gz" gives ("a.md", "gz")."""
    stem, suffix = os.path.splitext(name)
    packing = PACKED.get(suffix.lower())
    return (stem, packing) if packing else (name, None)


@contextmanager
def opened(path: str | Path, *, expansion: float, start: int = 0, end: int | None = None) -> Iterator[Read]:
    """A function that gives the unpacked bytes portion by portion; `start` and `end` are of plain files only.

    It raises FormatError: "truncated", "broken" or "expands too much", after everything before has been given.
    """
    _, packing = inner_name(str(path))
    with open(path, "rb") as file:
        if packing is None:
            yield _plain(file, start, end)
        else:
            portions = _unpacked(file, packing, expansion)
            yield lambda: next(portions, b"")


def whole(path: str | Path, *, max_bytes: int, expansion: float) -> bytes:
    """All bytes of a file, unpacked. Raises FormatError, also for more than `max_bytes`, and OSError."""
    parts: list[bytes] = []
    size = 0
    with opened(path, expansion=expansion) as read:
        while block := read():
            size += len(block)
            if size > max_bytes:
                raise FormatError(f"{LARGE}: over {max_bytes:,} bytes")
            parts.append(block)
    return b"".join(parts)


def lines(read: Read, max_bytes: int, start: int = 0) -> Iterator[tuple[int, bytes | int]]:
    """Where each line starts, and the line without its newline; of a line over `max_bytes` only its length.

    A long line is never in memory as a whole. `start` is the offset of the first byte.
    """
    held: list[bytes] = []
    size = 0  # of the line under way, held or not
    while block := read():
        *ended, rest = block.split(b"\n")
        for piece in ended:
            total = size + len(piece)
            yield start, total if total > max_bytes else (b"".join((*held, piece)) if held else piece)
            start += total + 1
            held, size = [], 0
        size += len(rest)
        held = [*held, rest] if size <= max_bytes else []
    if size:
        yield start, size if size > max_bytes else b"".join(held)


def _plain(file: io.BufferedReader, start: int, end: int | None) -> Read:
    file.seek(start)
    left = (1 << 62) if end is None else end - start

    def read() -> bytes:
        nonlocal left
        block = file.read(min(BLOCK, left))
        left -= len(block)
        return block

    return read


def _unpacked(file: io.BufferedReader, packing: str, expansion: float) -> Iterator[bytes]:
    size = 0
    for block in _zstd(file) if packing == "zst" else _members(file, packing):
        size += len(block)
        if size > FLOOR and size > expansion * max(file.tell(), 1):
            raise FormatError(
                f"{BOMB}: over {size:,} bytes out of {file.tell():,} (limit {expansion:g} times)"
            )
        yield block


def _members(file: io.BufferedReader, packing: str) -> Iterator[bytes]:
    """Each gz member, bz2 or xz stream after the other."""
    data = b""
    members = 0
    while data or (data := file.read(BLOCK // 8)):
        if members and not data.strip(b"\0"):  # padding after the last member
            data = b""
            continue
        decoder = _decoder(packing)
        try:
            while not decoder.eof:
                block = decoder.decompress(data, BLOCK)
                if block:
                    yield block
                if decoder.eof:
                    break
                data = decoder.unconsumed_tail if packing == "gz" else b""
                pending = len(block) == BLOCK if packing == "gz" else not decoder.needs_input
                if data or pending:
                    continue
                data = file.read(BLOCK // 8)
                if not data:
                    raise FormatError(f"{TRUNCATED}: the {packing} data ends in the middle")
        except (zlib.error, OSError, lzma.LZMAError, EOFError) as error:
            after = "after the end of the data" if members else "data"
            raise FormatError(f"{BROKEN}: {packing} {after}: {error}") from error
        data = decoder.unused_data
        members += 1


def _decoder(packing: str) -> Any:
    if packing == "gz":
        return zlib.decompressobj(zlib.MAX_WBITS | 16)
    if packing == "bz2":
        return bz2.BZ2Decompressor()
    return lzma.LZMADecompressor(lzma.FORMAT_AUTO, memlimit=XZ_MEMORY)


def _zstd(file: io.BufferedReader) -> Iterator[bytes]:
    import pyarrow

    # A small portion at a time: of a frame cut in the middle, all portions before come out.
    stream = pyarrow.CompressedInputStream(file, "zstd")
    try:
        while block := stream.read(BLOCK // 8):
            yield block
    except OSError as error:
        reason = TRUNCATED if "runcated" in str(error) else BROKEN
        raise FormatError(f"{reason}: zst data: {error}") from error
