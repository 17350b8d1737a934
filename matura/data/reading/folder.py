"""Files that are one document each, packed or not: what they are by their suffixes, and their text."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matura.core.errors import FormatError
from matura.data import extraction
from matura.data.formats.worker import APART, Parser
from matura.data.reading import unpack
from matura.data.reading.task import CHANGED, NO_TEXT, Context, Found, Piece
from matura.data.sources import LARGE, SUFFIXES, UNKNOWN, Skipped

WARC = re.compile(r"\.(warc|wet)(\.gz)?$", re.IGNORECASE)
WIKI = re.compile(r"(wiki[^/]*|pages-[^/]*)\.xml(-[^/]*)?(\.gz|\.bz2|\.xz|\.zst)?$", re.IGNORECASE)
TABLE = re.compile(r"\.(jsonl|ndjson|csv|tsv)(\.gz|\.bz2|\.xz|\.zst)?$|\.parquet$", re.IGNORECASE)
DICTIONARY = re.compile(r"\.dict(\.dz|\.gz)?$", re.IGNORECASE)
MAN = re.compile(r"(^|/)man\d\w*/[^/]+\.\d\w*(\.gz|\.bz2|\.xz|\.zst)?$")
TAR = re.compile(r"\.(tar(\.gz|\.bz2|\.xz|\.zst)?|tgz)$", re.IGNORECASE)

KINDS = {"warc": WARC, "wikipedia": WIKI, "table": TABLE, "dictionary": DICTIONARY, "tar": TAR}


def kind_of(name: str) -> str:
    """warc, wikipedia, table, dictionary, tar, documents, or "" for what cannot be read, by a file's name."""
    for kind, pattern in KINDS.items():
        if pattern.search(name):
            return kind
    return "documents" if _suffix(name) in SUFFIXES or MAN.search(name) else ""


def plan_file(name: str, path: Path, size: int, max_bytes: int) -> dict[str, Any] | Skipped:
    """The piece for one document."""
    suffix = _suffix(name)
    kind = "man" if MAN.search(path.as_posix()) else SUFFIXES.get(suffix)
    if kind is None:
        return Skipped(name, UNKNOWN, suffix or "no suffix")
    if size > max_bytes:
        return Skipped(name, LARGE, f"{size:,} bytes, the limit is {max_bytes:,}")
    return {"reader": "document", "name": name, "path": str(path), "kind": kind, "bytes": size}


class DocumentReader:
    """Reads documents; one process for risky parsers serves all of a task, and ends with `close`."""

    def __init__(self, context: Context) -> None:
        limits = context.limits
        # An epub or docx holds pictures too, which are not read but count: their total may be larger than a file.
        self._bounds: dict[str, Any] = {"max_bytes": 4 * limits.file_bytes, "expansion": limits.expansion}
        self._parser = Parser(limits.seconds, self._bounds)

    def __call__(self, piece: Piece, context: Context) -> Iterator[Found | Skipped]:
        name, limits = piece["name"], context.limits
        data = unpack.whole(piece["path"], max_bytes=limits.file_bytes, expansion=limits.expansion)
        self._check(piece, data)
        if piece["kind"] in APART:
            text, notes = self._parser.extract(data, piece["kind"])
            encoding = piece["kind"]
        else:
            found = extraction.extract(data, piece["kind"], **self._bounds)
            text, notes, encoding = found.text, found.notes, found.encoding
        if not text.strip():
            yield Skipped(name, NO_TEXT, f"nothing to read in {len(data):,} bytes")
            return
        meta = {"kind": piece["kind"], "encoding": encoding}
        if notes:
            meta["notes"] = "; ".join(notes)[:500]
        yield Found(name, text, meta, name)

    def close(self) -> None:
        self._parser.close()

    def _check(self, piece: Piece, data: bytes) -> None:
        """What is learned from must be what the lineage names."""
        expected = piece.get("sha256")
        if expected is None:
            return
        if unpack.inner_name(piece["path"])[1] is not None:
            data = Path(piece["path"]).read_bytes()
        if hashlib.sha256(data).hexdigest() != expected:
            raise FormatError(f"{CHANGED}: it is not what it was when it was listed")


def _suffix(name: str) -> str:
    return Path(unpack.inner_name(name)[0]).suffix.lower()
