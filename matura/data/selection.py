"""Steps that choose by length or by a list of ids, and the two choices made over a whole corpus: mixture and copies."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from matura.core.records import Document
from matura.data.parts import Row, read_dropped
from matura.data.steps import Dropped, Outcome, Step, drop


@dataclass(frozen=True)
class _Short:
    least: int
    name: str = "length"

    def __call__(self, documents: Sequence[Document]) -> Outcome:
        outcome = Outcome(measures={"length.characters": [float(len(one.text)) for one in documents]})
        for one in documents:
            if len(one.text) < self.least:
                detail = f"{len(one.text)} characters of text"
                outcome.dropped.append(drop(one, self.name, "too short", detail))
            else:
                outcome.kept.append(one)
        return outcome


def short(least: int) -> Step:
    """Drop documents of fewer characters."""
    return _Short(least)


@dataclass(frozen=True)
class _Listed:
    name: str
    rows: Mapping[str, Dropped]

    def __call__(self, documents: Sequence[Document]) -> Outcome:
        outcome = Outcome()
        for one in documents:
            row = self.rows.get(one.id)
            if row is None:
                outcome.kept.append(one)
            else:
                outcome.dropped.append(drop(one, self.name, row.reason, row.detail))
        return outcome


def listed(name: str, path: str) -> Step:
    """Drop the documents whose ids stand in a file of `parts.write_dropped`, with the reasons that stand there."""
    return _Listed(name, {row.id: row for row in read_dropped(Path(path))})


def mixture(
    rows: Iterable[Row], weights: Mapping[str, float], total: int, unit: Literal["bytes", "tokens"], seed: int
) -> set[str]:
    """Ids that are too many for a corpus of `total` bytes (or tokens, at 4 bytes each) with these weights of origins.

    Every origin fills its own share, in an order of hashes of seed and id, until the next document is too much. One
    that has less gives all; the others do not fill up for it, so the corpus is smaller then.
    """
    room = {
        origin: total * (4 if unit == "tokens" else 1) * w / sum(weights.values())
        for origin, w in weights.items()
    }
    used: Counter[str] = Counter()
    out: set[str] = set()
    closed: set[str] = set()
    for row in sorted(rows, key=lambda row: _rank(seed, row.id)):
        if row.origin in closed or used[row.origin] + row.bytes > room[row.origin]:
            closed.add(row.origin)
            out.add(row.id)
        else:
            used[row.origin] += row.bytes
    return out


def _rank(seed: int, identity: str) -> bytes:
    return hashlib.sha256(f"mixture\n{seed}\n{identity}".encode()).digest()
