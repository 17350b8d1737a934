"""Replies that were given before: kept by a hash of model, window and requests, so the same exam costs nothing again.

The unit is a chunk of items that are asked together. Its key covers every text and setting that could change a reply,
and a reply's last bits depend on what shares its batch, so a chunk that is found again has exactly the same bits. A
kill loses one chunk. The files may be deleted at any time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matura.core.errors import FormatError
from matura.core.files import canonical_hash, read_json, write_json
from matura.evaluate.asking import Reply, Request, Scored
from matura.evaluate.score import Bits

VERSION = 2
"""Raised when the same requests would be answered differently."""
MAX_BYTES = 1 << 28
"""Of one file of replies."""


@dataclass(frozen=True)
class Shelf:
    """Where chunks are kept: `place` belongs to this run, `shared` (if any) to all exams of a workspace."""

    place: Path
    shared: Path | None = None

    def read(self, key: str) -> list[Any] | None:
        """The values under a key; None when there are none that can be read."""
        for folder in (self.place, self.shared):
            if folder is not None:
                with contextlib.suppress(OSError, FormatError, KeyError):
                    found = read_json(_file(folder, key), limit=MAX_BYTES, what="replies of an exam")
                    if found["version"] == VERSION:
                        return list(found["values"])
        return None

    def write(self, key: str, values: Sequence[Any]) -> None:
        """Keep values, atomically. Raises ArtifactError when the disk is full."""
        path = _file(self.shared or self.place, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"version": VERSION, "values": list(values)})


def _file(folder: Path, key: str) -> Path:
    return folder / key[:2] / f"{key}.json"


def key(model: str, window: int, requests: Sequence[Request]) -> str:
    """The name of what a model (an artifact's id) replies to these requests."""
    asked = [[type(one).__name__, asdict(one)] for one in requests]
    return canonical_hash({"version": VERSION, "model": model, "window": window, "asked": asked})


def pack(reply: Reply) -> list[Any]:
    """A reply as JSON holds it."""
    match reply:
        case Scored(logprob, greedy, size, tokens):
            return ["scored", logprob, greedy, size, tokens]
        case Bits(bits, size, tokens):
            return ["bits", bits, size, tokens]
        case text:
            return ["text", text]


def unpack(value: Sequence[Any]) -> Reply:
    """The reply again, with the same bits."""
    kind, *rest = value
    if kind == "scored":
        return Scored(*rest)
    return Bits(*rest) if kind == "bits" else str(rest[0])
