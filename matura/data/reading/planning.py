"""Sources to tasks, and tasks to documents."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from matura.core import costs, credentials
from matura.core.corpus_settings import Limits, Source
from matura.core.errors import ConfigError, FormatError, MaturaError
from matura.core.grouping import neighbours
from matura.core.records import Document
from matura.data.reading import Task, code, dictionary, folder, identity, made, sql, tables, warc, wikipedia
from matura.data.reading.task import CHANGED, DAMAGE, Context, Found, Piece, Reader, trouble
from matura.data.sources import LARGE, UNKNOWN, Skipped, paths, regular

MAX_PIECES = 5_000  # in a task, so that tasks of tiny files stay small
PACKED = 4  # how much text is expected in a packed byte

READERS: dict[str, Reader] = {
    "warc": warc.read_warc,
    "wikipedia": wikipedia.read_dump,
    "code": code.read_code,
    "tar": code.read_tar,
    "jsonl": tables.read_jsonl,
    "csv": tables.read_csv,
    "parquet": tables.read_parquet,
    "sql": sql.read_sql,
    "made": made.read_made,
    "dictionary": dictionary.read_dictionary,
}


def plan_sources(sources: Mapping[str, Mapping[str, Any]], limits: Limits, part_bytes: int) -> list[Task]:
    """See :func:`matura.data.reading.plan`."""
    tasks: list[Task] = []
    for origin in sorted(sources):
        values = dict(sources[origin])
        resolved, files = values.pop("resolved", None), values.pop("files", None) or {}
        source = Source(**values)
        context = Context(limits, source.text, source.query)
        common = {
            "origin": origin,
            "license": source.license,
            "text": source.text,
            "query": source.query,
            "limits": limits.model_dump(mode="json"),
        }
        pieces = _source(origin, source, resolved, context, part_bytes)
        for group in neighbours(pieces, part_bytes, _weight, MAX_PIECES):
            for piece in group:
                _as_listed(piece, files.get(piece["name"]))
            tasks.append({**common, "pieces": group})
    return tasks


def _source(
    origin: str, source: Source, resolved: Any, context: Context, part_bytes: int
) -> Iterator[dict[str, Any]]:
    """The pieces of a source, in the order of names."""
    if source.kind == "sql" or (source.path and sql.is_database(source.path)):
        if not source.path:
            raise ConfigError(f"sources.{origin}: a database needs its URL in `path`.")
        yield sql.plan_sql(origin, source.path, source.query)
        return
    if source.query is not None:
        raise ConfigError(f"sources.{origin}: `query` is for databases, such as sqlite:///file.db.")
    if resolved is None:
        raise ConfigError(f"sources.{origin}: give `path` or `made`.")
    root = Path(resolved)
    if source.made is not None:
        yield made.plan_made(root)
        return
    if source.kind == "code" and root.is_dir():
        pieces, skips = code.read_files(paths(root, include=source.include, exclude=source.exclude))
        for piece in pieces:
            size = regular(piece["name"], Path(piece["path"]))
            yield _skip(size) if isinstance(size, Skipped) else {**piece, "bytes": size}
        yield from map(_skip, skips)
        return
    for name, path in paths(root, include=source.include, exclude=source.exclude):
        size = regular(name, path)
        if isinstance(size, Skipped):
            yield _skip(size)
            continue
        try:
            yield from _file(name, path, size, source, context, part_bytes, alone=root.is_file())
        except (FormatError, OSError) as error:
            yield _skip(trouble(name, error))


def _file(
    name: str, path: Path, size: int, source: Source, context: Context, part_bytes: int, *, alone: bool
) -> Iterable[dict[str, Any]]:
    """The pieces of one file. Raises FormatError when it is not what it must be."""
    kind = folder.kind_of(name) if source.kind == "auto" else source.kind
    if kind == "table":
        if folder.kind_of(name) != "table":
            return [_skip(Skipped(name, UNKNOWN, "expected jsonl, csv, tsv or parquet"))]
        return tables.plan_table(name, path, size, context, part_bytes)
    if kind == "warc":
        common = {"reader": "warc", "name": name, "path": str(path), "bytes": size}
        ranges = warc.plan_ranges(path, size, part_bytes)
        return [{**common, "start": start, "end": end} for start, end in ranges]
    if kind == "dictionary":
        return [dictionary.plan_dictionary(name, path, size)]
    if dictionary.is_index(path):
        return []  # read with its dictionary
    if kind == "wikipedia":
        return wikipedia.plan_dump(name, path, size, context, part_bytes)
    if kind == "code" or (kind == "tar" and alone):
        if folder.kind_of(name) != "tar":
            raise FormatError(f"{UNKNOWN}: source code comes as a folder or a tar archive")
        chosen = {"include": list(source.include), "exclude": list(source.exclude)}
        return [{"reader": "tar", "name": name, "path": str(path), "bytes": size, **chosen}]
    if size > context.limits.file_bytes and folder.kind_of(name) == "documents":
        detail = f"{size:,} bytes, the limit is {context.limits.file_bytes:,}"
        return [_skip(Skipped(name, LARGE, detail))]
    piece = folder.plan_file(name, path, size, context.limits.file_bytes)
    return [_skip(piece) if isinstance(piece, Skipped) else piece]


def _skip(item: Skipped) -> dict[str, Any]:
    return {"reader": "skipped", "name": item.name, "reason": item.reason, "detail": item.detail}


def _weight(piece: Mapping[str, Any]) -> int:
    start, end = piece.get("start", 0), piece.get("end")
    size: int = end - start if end is not None else piece.get("bytes", 0)
    return size * (PACKED if costs.is_packed(str(piece.get("path", ""))) else 1)


def read_task(task: Mapping[str, Any]) -> Iterator[Document | Skipped]:
    """See :func:`matura.data.reading.read`."""
    limits = Limits(**task["limits"])
    context = Context(limits, task["text"], task["query"])
    documents = folder.DocumentReader(context)
    try:
        for piece in task["pieces"]:
            reader = documents if piece["reader"] == "document" else READERS.get(piece["reader"], _skipped)
            for found in _careful(reader, piece, context):
                item = _document(found, task, limits) if isinstance(found, Found) else _nameable(found)
                if limits.strict and isinstance(item, Skipped) and item.reason in DAMAGE:
                    where = credentials.shown(piece.get("path", item.name))
                    raise MaturaError(
                        f"{where}: {item.name}: {item.reason}: {item.detail} (limits.strict is set: put it "
                        "right or leave the file out with `exclude`)"
                    )
                yield item
    finally:
        documents.close()


def _as_listed(piece: dict[str, Any], known: Mapping[str, Any] | None) -> None:
    """Note how a file was: what is read must be what the lineage names. Documents are compared by their hash."""
    if known and piece["reader"] == "document":
        piece["sha256"] = known["sha256"]
    elif "path" in piece and piece["reader"] != "sql":
        now = _state(piece["path"])
        piece["seen"] = [known["bytes"] if known else now[0], now[1]]


def _state(path: str) -> list[int]:
    """Size and time of change; zeros when it is gone, which the reading tells."""
    try:
        status = os.stat(path)
    except OSError:
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def _careful(reader: Reader, piece: Piece, context: Context) -> Iterator[Found | Skipped]:
    """What comes before a damage, then a line about it."""
    seen = piece.get("seen")
    if seen and (now := _state(piece["path"])) != seen and now != [0, 0]:
        yield Skipped(piece["name"], CHANGED, "it is not what it was when it was listed")
        return
    try:
        yield from reader(piece, context)
    except FormatError as error:
        yield trouble(piece["name"], error)
    except (MaturaError, ImportError):
        raise
    except (
        Exception
    ) as error:  # parsers of damaged files raise almost anything; one file must not cost the others
        yield trouble(piece["name"], error)
    if seen and (now := _state(piece["path"])) != seen and now != [0, 0]:
        yield Skipped(piece["name"], CHANGED, "while it was read; what had been read is kept")


def _skipped(piece: Piece, context: Context) -> Iterator[Skipped]:
    yield Skipped(piece["name"], piece["reason"], piece["detail"])


def unicode_name(name: str) -> str:
    """A file's name as text that can be stored: bytes that are no UTF-8 are shown as \\xNN."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return name


def _nameable(item: Skipped) -> Skipped:
    return Skipped(unicode_name(item.name), item.reason, unicode_name(item.detail))


def _document(found: Found, task: Mapping[str, Any], limits: Limits) -> Document | Skipped:
    text = found.text
    limit = limits.document_bytes
    if len(text) * 4 > limit and (size := len(text.encode("utf-8", "replace"))) > limit:
        return Skipped(found.source, LARGE, f"{size:,} bytes of text, the limit is {limit:,}")
    meta = {
        "origin": task["origin"],
        **({"license": task["license"]} if task["license"] else {}),
        **{key: unicode_name(value) for key, value in found.meta.items()},
    }
    source = unicode_name(found.source or found.place)
    return Document(identity(task["origin"], found.place, text), text, source, meta)
