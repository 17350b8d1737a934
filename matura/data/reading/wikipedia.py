"""Wikipedia dumps (MediaWiki export, XML; plain, bz2, gz, xz, zst): articles as clean text.

A plain file is cut by bytes, a bz2 file of many streams (`multistream`) by streams: a page belongs to the range in
which it starts. The XML around the pages is never parsed as a whole.
"""

from __future__ import annotations

import bz2
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

from matura.core.errors import FormatError
from matura.data.extraction import normalise
from matura.data.reading import unpack
from matura.data.reading.task import (
    BOMB,
    BROKEN,
    NAMESPACE,
    NO_PAGE,
    NO_TEXT,
    REDIRECT,
    TRUNCATED,
    Context,
    Found,
    Piece,
    trouble,
)
from matura.data.reading.wikitext import Names, clean
from matura.data.sources import LARGE, Skipped

STREAM = re.compile(rb"BZh[1-9]1AY&SY")
HEAD = 256 << 10
SHOWN_NAMESPACES = {"0"}


def plan_dump(name: str, path: Path, size: int, context: Context, part_bytes: int) -> list[dict[str, Any]]:
    """Pieces of a dump, with what its head says of language, address and names of namespaces."""
    packing = unpack.inner_name(path.name)[1]
    head = b""
    try:
        with unpack.opened(path, expansion=context.limits.expansion) as read:
            while len(head) < HEAD and b"</siteinfo>" not in head and (block := read()):
                head += block
    except (FormatError, OSError):
        pass  # the reading tells
    site = _site(head[:HEAD].decode("utf-8", "replace"))
    step = size if packing in ("gz", "xz", "zst") else part_bytes // 4 if packing else part_bytes
    common = {"reader": "wikipedia", "name": name, "path": str(path), "packing": packing, **site}
    starts = range(0, size, max(step, 1))
    return [{**common, "start": start, "end": min(start + max(step, 1), size)} for start in starts]


def _site(head: str) -> dict[str, Any]:
    language = re.search(r'<mediawiki\b[^>]*\bxml:lang="([\w-]+)"', head)
    base = re.search(r"<base>(https?://[^<]+/)[^</]*</base>", head)
    names = re.findall(r'<namespace key="(-?\d+)"[^>]*>([^<]+)</namespace>', head)
    return {
        "language": language[1] if language else "",
        "base": base[1] if base else "",
        "media": [name for key, name in names if key in ("6", "14")],
    }


def read_dump(piece: Piece, context: Context) -> Iterator[Found | Skipped]:
    """The articles that start in the piece's range."""
    names, start = Names.of(piece["media"]), piece["start"]
    with open(piece["path"], "rb") as file:
        while True:
            chunks = _chunks(file, {**piece, "start": start}, context)
            try:
                for page in _pages(chunks, context.limits.file_bytes, piece["name"]):
                    if isinstance(page, Skipped) and page.reason == NO_PAGE and start:
                        continue  # a later range of a dump that cannot be cut: the first one has all
                    yield page if isinstance(page, Skipped) else _article(page, piece, names)
                return
            except _BadStream as error:
                yield trouble(piece["name"], error)
                start = error.at + 1
                if _next_stream(file, start, piece["end"]) is None:
                    return


class _BadStream(FormatError):  # noqa: N818
    """A damaged bz2 stream, and where it starts: the next one may be whole."""

    def __init__(self, message: str, at: int) -> None:
        super().__init__(message)
        self.at = at


Chunk = tuple[bytes, bool]
"""Bytes of XML, and whether pages that start in them belong to the range."""


def _chunks(file: BinaryIO, piece: Piece, context: Context) -> Iterator[Chunk]:
    if piece["packing"] == "bz2":
        yield from _streams(file, piece["start"], piece["end"], context.limits.expansion)
        return
    start, end = (piece["start"], piece["end"]) if piece["packing"] is None else (0, 1 << 62)
    with unpack.opened(piece["path"], expansion=context.limits.expansion, start=start) as read:
        while block := read():
            own = max(min(end - start, len(block)), 0)
            if own:
                yield block[:own], True
            if own < len(block):
                yield block[own:], False
            start += len(block)


def _streams(file: BinaryIO, start: int, end: int, expansion: float) -> Iterator[Chunk]:
    """The streams that start in a range and, for a page cut by its end, those that follow."""
    at = _next_stream(file, start, end)
    if at is None:
        if start == 0:
            raise FormatError(f"{BROKEN}: not bz2 data")
        return
    file.seek(at)
    data, unpacked = b"", 0
    while True:
        decoder = bz2.BZ2Decompressor()
        own = at < end
        data = data or file.read(unpack.BLOCK)
        if not data:
            return
        while not decoder.eof:
            try:
                block = decoder.decompress(data, unpack.BLOCK)
            except (OSError, EOFError) as error:
                raise _BadStream(f"{BROKEN}: bz2 stream at byte {at:,}: {error}", at) from error
            unpacked += len(block)
            if unpacked > unpack.FLOOR and unpacked > expansion * (file.tell() - start):
                raise _BadStream(f"{BOMB}: over {unpacked:,} bytes (limit {expansion:g} times)", at)
            if block:
                yield block, own
            data = b""
            if decoder.needs_input and not decoder.eof:
                data = file.read(unpack.BLOCK)
                if not data:
                    raise FormatError(f"{TRUNCATED}: the bz2 data ends in the middle")
        data = decoder.unused_data
        at = file.tell() - len(data)


def _next_stream(file: BinaryIO, start: int, end: int) -> int | None:
    while start < end:
        file.seek(start)
        window = file.read(unpack.BLOCK + 9)
        match = STREAM.search(window)
        if match and start + match.start() < end and match.start() < unpack.BLOCK:
            return start + match.start()
        start += unpack.BLOCK
    return None


def _pages(chunks: Iterator[Chunk], max_bytes: int, name: str) -> Iterator[bytes | Skipped]:
    """`<page>...</page>` that start in owned bytes; what is larger than `max_bytes` only as a line."""
    held, searched, own_until = bytearray(), 0, None  # own_until: where in `held` the range ends
    inside, large, any_page = False, 0, False
    broken: FormatError | None = None
    while True:
        while True:  # all pages that are complete
            tag = b"</page>" if inside else b"<page>"
            at = held.find(tag, searched)
            if at < 0:
                searched = max(len(held) - len(tag) + 1, 0)
                break
            if not inside:
                if own_until is not None and at >= own_until:
                    return
                cut = at
            else:
                cut = at + len(tag)
                any_page = True
                yield (
                    Skipped(name, LARGE, f"a page over {max_bytes:,} bytes") if large else bytes(held[:cut])
                )
            inside, large = not inside, 0
            del held[:cut]
            own_until = None if own_until is None else own_until - cut
            searched = 6 if inside else 0
        if not inside or len(held) > max_bytes:  # nothing of it is needed but a tag that may be cut
            large += inside
            own_until = None if own_until is None else own_until - searched
            del held[:searched]
            searched = 0
        if not inside and own_until is not None and own_until <= 0:
            return
        if broken is not None:
            raise broken
        try:
            block, own = next(chunks, (b"", True))
        except FormatError as error:  # what came before is complete
            broken = error
            continue
        if not block:
            break
        if not own and own_until is None:
            own_until = len(held)
        held += block
    if inside:
        yield Skipped(name, TRUNCATED, "the last page has no end")
    elif not any_page:
        yield Skipped(name, NO_PAGE, "no pages of a MediaWiki dump in this part")


def _article(page: bytes, piece: Piece, names: Names) -> Found | Skipped:
    try:
        # Pages stand inside the document, so no declaration, and with it no entity of its own, can be here.
        root = ElementTree.fromstring(page.decode("utf-8", "replace"))
    except (ElementTree.ParseError, RecursionError) as error:
        return Skipped(piece["name"], BROKEN, f"a page that is not XML: {error}")
    title = root.findtext("title") or ""
    number = root.findtext("id") or ""
    place = f"{piece['name']}#{title}"
    if (root.findtext("ns") or "0") not in SHOWN_NAMESPACES:
        return Skipped(place, NAMESPACE, f"namespace {root.findtext('ns')}")
    if root.find("redirect") is not None:
        return Skipped(place, REDIRECT)
    revisions = root.findall("revision")  # a full history: the last one counts
    last = revisions[-1] if revisions else None
    source = (last.findtext("text") or "") if last is not None else ""
    model = (last.findtext("model") or "wikitext") if last is not None else "wikitext"
    if model != "wikitext":
        return Skipped(place, NAMESPACE, f"content model {model}")
    if re.match(r"\s*#\w+:?\s*\[\[", source):
        return Skipped(place, REDIRECT)
    text = normalise(clean(source, names))
    if not text:
        return Skipped(place, NO_TEXT, f"nothing left of {len(source):,} characters of wikitext")
    meta = {"kind": "wikipedia", "title": title}
    if piece["language"]:
        meta["language"] = piece["language"]
    if piece["base"]:
        meta["url"] = piece["base"] + title.replace(" ", "_")
    return Found(f"{number}#{title}", text, meta, place)
