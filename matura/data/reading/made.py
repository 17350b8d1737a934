"""What other stages made: the documents of a corpus, the conversations and texts of `synthesize`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matura.core.errors import FormatError, MaturaError
from matura.core.records import read_documents
from matura.data.extraction import normalise
from matura.data.reading import unpack
from matura.data.reading.tables import META
from matura.data.reading.task import BROKEN, NO_TEXT, Context, Found, Piece
from matura.data.sources import LARGE, Skipped

FILES = ("train.parquet", "train.jsonl")


def plan_made(folder: Path) -> dict[str, Any]:
    """The piece for an artifact: what it has to train on, never what it holds out. Raises MaturaError if nothing."""
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        raise MaturaError(
            f"{folder} has neither {' nor '.join(FILES)}: it was not made to be read as documents."
        )
    return {"reader": "made", "name": path.name, "path": str(path), "bytes": path.stat().st_size}


def read_made(piece: Piece, context: Context) -> Iterator[Found | Skipped]:
    """Its documents. The messages of a conversation become paragraphs; meta of what made them is kept."""
    if piece["path"].endswith(".parquet"):
        for document in read_documents(piece["path"]):
            yield Found(document.id, document.text, document.meta, document.source)
        return
    with unpack.opened(piece["path"], expansion=context.limits.expansion) as read:
        for offset, line in unpack.lines(read, context.limits.document_bytes):
            place = f"{piece['name']}@{offset}"
            if isinstance(line, int):
                yield Skipped(place, LARGE, f"a line of {line:,} bytes")
            elif line.strip():
                yield _conversation(line, place)


def _conversation(line: bytes, place: str) -> Found | Skipped:
    try:
        row = json.loads(line)
        messages = row.get("messages") or []
        text = row.get("text") or "\n\n".join(message["content"] for message in messages)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(f"{BROKEN}: {place} is no conversation: {error!r}"[:300]) from error
    if not isinstance(text, str) or not text.strip():
        return Skipped(place, NO_TEXT)
    meta = {key: str(row[key]) for key in META if key != "id" and isinstance(row.get(key), str | int | float)}
    provenance = row.get("provenance")
    if isinstance(provenance, dict):
        meta["provenance"] = json.dumps(provenance, sort_keys=True, ensure_ascii=False)
    identity = str(row.get("id", place))
    return Found(
        identity, normalise(text), {"kind": "synthetic", **meta}, f"{place.partition('@')[0]}#{identity}"
    )
