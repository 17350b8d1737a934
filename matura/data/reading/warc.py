"""Web archives (WARC 1.0 and 1.1, ISO 28500; WET): pages answered with 200, as text.

A file is cut by bytes: a record belongs to the range in which it starts. In a gz file each record is a member of its
own, so the next start is where a member unpacks to a WARC header. In a plain file records are stepped over by length.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from matura.core.errors import FormatError
from matura.data.extraction import normalise
from matura.data.formats.http import content, known_charset, parse_answer
from matura.data.formats.nesting import check_depth
from matura.data.reading.task import (
    BROKEN,
    NO_PAGE,
    NO_TEXT,
    STATUS,
    TRUNCATED,
    Context,
    Found,
    Piece,
    trouble,
)
from matura.data.sources import LARGE, Skipped

PAGES = {"text/html": "html", "application/xhtml+xml": "html", "text/plain": "txt"}
MAGIC = b"\x1f\x8b\x08"
WINDOW = 1 << 20
HEADER = 16 << 10


def plan_ranges(path: Path, size: int, part_bytes: int) -> list[tuple[int, int]]:
    """Ranges of bytes in which records start; the whole file when it cannot be cut."""
    with path.open("rb") as file:
        packed = file.read(3) == MAGIC
        step = max(part_bytes // 4, 1) if packed else part_bytes
        if size <= step:
            return [(0, size)]
        if not packed:
            return _stepped(file, size, step)
        # Packed as a whole, against the standard: nothing starts after the first byte.
        if _next_member(file, 1, min(size, 64 << 20)) is None:
            return [(0, size)]
    return [(start, min(start + step, size)) for start in range(0, size, step)]


def _stepped(file: BinaryIO, size: int, step: int) -> list[tuple[int, int]]:
    starts, at = [0], 0
    while at < size:
        file.seek(at)
        head = file.read(HEADER)
        length = re.search(rb"(?i)\ncontent-length:[ \t]*(\d{1,15})\r?\n", head)
        end = head.find(b"\r\n\r\n")
        if not head.startswith(b"WARC/") or length is None or not 0 <= length.start() < end:
            break  # damaged from here: the last range finds out
        at += end + 4 + int(length[1]) + 4
        if at - starts[-1] >= step and at < size:
            starts.append(at)
    return list(zip(starts, [*starts[1:], size], strict=True))


def _next_member(file: BinaryIO, start: int, end: int) -> int | None:
    """Where the first gz member that holds a record starts, at or after `start` and before `end`."""
    while start < end:
        file.seek(start)
        window = file.read(WINDOW + 512)
        at = window.find(MAGIC)
        while 0 <= at < WINDOW and start + at < end:
            try:
                if zlib.decompressobj(31).decompress(window[at : at + 512], 7).startswith(b"WARC/1."):
                    return start + at
            except zlib.error:
                pass
            at = window.find(MAGIC, at + 1)
        start += WINDOW
    return None


def _next_record(file: BinaryIO, start: int, end: int) -> int | None:
    """Where the next line that begins as a record does is, at or after `start` and before `end`, in a plain file."""
    while start < end:
        file.seek(start - 1)
        window = file.read(WINDOW + 8)
        at = window.find(b"\nWARC/1.")
        if 0 <= at < WINDOW:
            return start + at if start + at < end else None
        start += WINDOW
    return None


def read_warc(piece: Piece, context: Context) -> Iterator[Found | Skipped]:
    """Pages and texts whose records start in the piece's range. After a damaged record it goes on at the next."""
    name, start, end = piece["name"], piece["start"], piece["end"]
    with open(piece["path"], "rb") as file:
        packed = file.read(3) == MAGIC
        at: int | None = start
        if packed and start:
            at = _next_member(file, start, end)
        while at is not None and at < end:
            position = _Position(at)
            try:
                yield from _records(file, position, piece, context)
                return
            except (OSError, ValueError) as error:
                yield Skipped(f"{name}@{position.at}", BROKEN, str(error)[:200])
            at = (_next_member if packed else _next_record)(file, position.at + 1, end)


class _Position:
    """Where the record under way starts."""

    def __init__(self, at: int) -> None:
        self.at = at


def _records(
    file: BinaryIO, position: _Position, piece: Piece, context: Context
) -> Iterator[Found | Skipped]:
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    packed = file.read(3) == MAGIC
    file.seek(position.at)
    whole = piece["start"] == 0 and piece["end"] == piece["bytes"]
    wanted = WarcRecordType.response | WarcRecordType.conversion | WarcRecordType.resource
    # All types are stepped through: the end of the range, and of the file, may lie at one that is not wanted.
    for record in ArchiveIterator(file, parse_http=False):
        position.at = record.stream_pos
        if position.at >= piece["end"] and not whole:
            return
        if not record.record_type & wanted:
            continue
        url = (record.headers.get("WARC-Target-URI") or "").strip("<>")
        place = f"{piece['name']}#{url or position.at}"
        length = record.content_length
        if not packed and position.at + length > size:
            raise ValueError(f"{url}: it claims {length:,} bytes, more than the file has")
        if length > context.limits.file_bytes:
            yield Skipped(place, LARGE, f"{length:,} bytes, the limit is {context.limits.file_bytes:,}")
            continue
        record.freeze()
        if record.content_length < length:
            yield Skipped(place, TRUNCATED, f"{record.content_length:,} of {length:,} bytes")
            continue
        plain = record.record_type == WarcRecordType.conversion
        try:
            yield _page(record, plain, place, url, position.at, context)
        except Exception as error:  # one bad page must not cost the others
            yield trouble(place, error)


def _page(record: Any, plain: bool, place: str, url: str, at: int, context: Context) -> Found | Skipped:
    limit = context.limits.file_bytes
    data = record.reader.read()
    kind, charset = "txt", "utf-8" if plain else None
    if not plain:
        told = record.headers.get("Content-Type") or ""
        # The archive's reader goes wrong for good at an answer that is packed wrongly, so it is not asked for that.
        if record.is_http:
            answer = parse_answer(data)
            if answer.status != 200:
                return Skipped(place, STATUS, str(answer.status))
            told = answer.headers.get("content-type", "")
        content_type = told.partition(";")[0].strip().lower()
        kind, charset = PAGES.get(content_type, ""), known_charset(told)
        if not kind:
            return Skipped(place, NO_PAGE, content_type or "no content type")
        if record.is_http:
            data = content(answer, limit)
    found = page_text(data, charset) if kind == "html" else (plain_text(data, charset), {})
    if not found[0]:
        return Skipped(place, NO_TEXT, f"nothing to read in {len(data):,} bytes")
    meta = {"kind": "html" if kind == "html" else "txt", "url": url, **found[1]}
    date = record.headers.get("WARC-Date")
    return Found(f"{url}@{at}", found[0], {**meta, **({"date": date} if date else {})}, place)


def plain_text(data: bytes, charset: str | None) -> str:
    """Text in the charset told, else detected; bytes that do not fit are replaced."""
    from resiliparse.parse.encoding import detect_encoding

    encoding = charset or ("utf-8" if _is_utf8(data) else detect_encoding(data)) or "utf-8"
    return normalise(_decoded(data, encoding))


def _decoded(data: bytes, encoding: str) -> str:
    from resiliparse.parse.encoding import bytes_to_str

    try:
        text: str = bytes_to_str(data, encoding=encoding, errors="replace", fallback_encodings=["utf-8"])
    except LookupError:  # detection knows names of encodings that Python has no codec for
        return data.decode("utf-8", "replace")
    return text


def page_text(data: bytes, charset: str | None) -> tuple[str, dict[str, str]]:
    """The main text of a web page, and its title, language and encoding as far as it tells them.

    The charset of the HTTP header comes first, then the page's own, then detection.
    """
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import detect_encoding
    from resiliparse.parse.html import HTMLTree

    encoding = charset or detect_encoding(data, from_html_meta=True) or "utf-8"
    try:
        source = _decoded(data, encoding)
        check_depth(source)
        tree = HTMLTree.parse(source)
        text = extract_plain_text(tree, main_content=True, alt_texts=False)
        root = tree.document.query_selector("html") if tree.document is not None else None
        language = (root.getattr("lang", "") or "") if root is not None else ""
        title = (tree.title or "").strip()
    except (ValueError, RuntimeError) as error:
        raise FormatError(f"{BROKEN}: HTML that cannot be parsed: {error}") from error
    meta = {"encoding": encoding}
    if replaced := source.count("\ufffd"):
        meta["replaced"] = str(replaced)
    if title:
        meta["title"] = title[:300]
    if re.fullmatch(r"[A-Za-z]{2,3}([-_].*)?", language):
        meta["declared_language"] = (
            language[:2].lower() if len(language) == 2 or language[2] in "-_" else language
        )
    return normalise(text), meta


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
