"""Part files of a phase: documents, dropped documents, and the marker that is written last.

`<folder>/<number>.parquet` holds documents, `<number>.dropped.parquet` what was dropped, `<number>.index.parquet` (last
phase) one light row a document. `<number>.json` says that all of them are complete.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from dataclasses import asdict, astuple, dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from matura.core.errors import FormatError
from matura.core.files import atomic_write, read_json, write_json
from matura.core.records import Document, read_documents, write_documents
from matura.data.steps import Dropped

SAMPLES = 100
"""Dropped documents that are kept as examples, for each reason of each step; all of them are counted."""
MAX_MARKER_BYTES = 64 << 20
OPEN_FILES = 64
"""Part files that are merged at once: each holds one row group in memory."""


@dataclass(frozen=True, slots=True)
class Row:
    """What choosing among documents needs to know of each: `copy` is shared by equal texts, `rank` is the identity
    that decides about holding out."""

    id: str
    source: str
    origin: str
    copy: str
    rank: str
    characters: int
    bytes: int
    language: str = ""
    license: str = ""


@dataclass(frozen=True, slots=True)
class PartFiles:
    """The files of one part."""

    folder: Path
    number: int

    def path(self, suffix: str) -> Path:
        """Such as .parquet, .dropped.parquet, .index.parquet or .json."""
        return self.folder / f"{self.number:06d}{suffix}"

    def finished(self) -> dict[str, Any] | None:
        """The marker, if the part is done."""
        try:
            return read_json(self.path(".json"), limit=MAX_MARKER_BYTES, what="the marker of a part")
        except (OSError, FormatError):
            return None

    def finish(self, marker: dict[str, Any]) -> dict[str, Any]:
        """Write the marker; everything else must be there already."""
        write_json(self.path(".json"), marker)
        return marker


def order(document: Document | Row) -> tuple[str, str]:
    """Documents of a corpus are in the order of their sources, then of their ids: of contents, not of parts."""
    return document.source, document.id


def merged(files: list[Path], folder: Path) -> Iterator[Document]:
    """The documents of sorted part files in one order, each id once. `folder` takes what lies between when there are
    too many to be open at once."""
    level = 0
    while len(files) > OPEN_FILES:
        groups = [files[i : i + OPEN_FILES] for i in range(0, len(files), OPEN_FILES)]
        files = []
        for number, group in enumerate(groups):
            files.append(folder / f"merged-{level}-{number:06d}.parquet")
            write_documents(files[-1], heapq.merge(*map(read_documents, group), key=order))
        level += 1
    last = ""
    for document in heapq.merge(*map(read_documents, files), key=order):
        if document.id != last:
            yield document
        last = document.id


class Sampler:
    """The first few dropped documents of each reason, in an order of their own that no partitioning changes."""

    def __init__(self, most: int = SAMPLES) -> None:
        self.most = most
        self.found: dict[tuple[str, str], list[Dropped]] = {}

    def add(self, dropped: Iterable[Dropped]) -> None:
        """Note documents; the text of those that are not kept is let go."""
        for one in dropped:
            rows = self.found.setdefault((one.step, one.reason), [])
            rows.append(one)
            if len(rows) >= 4 * self.most:
                rows[:] = self._first(rows)

    def rows(self) -> list[Dropped]:
        """What is kept, by step, reason and source."""
        kept = [one for rows in self.found.values() for one in self._first(rows)]
        return sorted(kept, key=attrgetter("step", "reason", "source", "id"))

    def _first(self, rows: list[Dropped]) -> list[Dropped]:
        return heapq.nsmallest(self.most, rows, key=_chance)


def _chance(one: Dropped) -> tuple[bytes, str]:
    # Which examples are shown must not depend on names, or one folder would give all of them.
    return hashlib.blake2b(
        f"{one.id}\n{one.source}".encode("utf-8", "replace"), digest_size=8
    ).digest(), one.source


def write_dropped(path: Path, rows: Iterable[Dropped]) -> None:
    """Parquet with the fields of Dropped as columns."""
    texts = [{**asdict(one), **{key: _storable(getattr(one, key)) for key in _TEXTS}} for one in rows]
    _write(path, texts, (*((key, "string") for key in _TEXTS), ("characters", "int64")))


_TEXTS = ("id", "source", "step", "reason", "detail", "sample")


def _storable(text: str) -> str:
    """Names of files need not be valid Unicode; a table must be."""
    return text.encode("utf-8", "replace").decode()


def read_dropped(path: Path) -> list[Dropped]:
    """What `write_dropped` wrote; nothing when there is no file."""
    return [Dropped(**row) for row in _read(path)] if path.exists() else []


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """The light index of a part, as Parquet."""
    numbers = ("characters", "bytes")
    columns = [(key, "int64" if key in numbers else "string") for key in Row.__slots__]
    _write(path, [dict(zip(Row.__slots__, astuple(row), strict=True)) for row in rows], columns)


def read_rows(path: Path) -> list[Row]:
    """What `write_rows` wrote."""
    return [Row(**row) for row in _read(path)]


def _write(path: Path, rows: list[dict[str, Any]], columns: Iterable[tuple[str, str]]) -> None:
    import pyarrow
    import pyarrow.parquet

    types = {"string": pyarrow.string(), "int64": pyarrow.int64()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns])
    with atomic_write(path) as temporary:
        pyarrow.parquet.write_table(
            pyarrow.Table.from_pylist(rows, schema=schema), temporary, compression="zstd"
        )


def _read(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        rows: list[dict[str, Any]] = file.read().to_pylist()
    return rows
