"""Rankings as rows in the formats that TRL reads."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

from matura.core.preferences import Ranking
from matura.core.records import write_lines
from matura.data.preferences import pairs


def to_trl(rankings: Iterable[Ranking]) -> Iterator[dict[str, Any]]:
    """Rows of TRL's conversational preference format with an explicit prompt: `prompt`, `chosen` and `rejected` are
    lists of messages. Of a ranking of K answers up to K(K-1)/2 rows; the format has no place for their weights.
    When any prompt has tools, every row has a list `tools`."""
    rows = list(rankings)
    tooled = any(row.tools for row in rows)
    for row in rows:
        for pair in pairs.of(row):
            yield {
                "prompt": list(row.messages),
                "chosen": [{"role": "assistant", "content": pair.chosen.text}],
                "rejected": [{"role": "assistant", "content": pair.rejected.text}],
                **({"tools": list(row.tools)} if tooled else {}),
            }


def to_trl_unpaired(rankings: Iterable[Ranking]) -> Iterator[dict[str, Any]]:
    """Rows of TRL's unpaired preference format, one for each answer with a thumb: `prompt`, `completion`, `label`."""
    for row in rankings:
        for answer in row.answers:
            if answer.liked is not None:
                yield {
                    "prompt": list(row.messages),
                    "completion": [{"role": "assistant", "content": answer.text}],
                    "label": answer.liked,
                }


def write_trl(path: str | os.PathLike[str], rankings: Iterable[Ranking]) -> int:
    """Write pairs in TRL's preference format as JSONL, atomically; returns how many. Raises FormatError for text that
    is not valid Unicode, ArtifactError when the disk is full."""

    def line(row: tuple[int, dict[str, Any]]) -> bytes:
        return json.dumps(row[1], ensure_ascii=False, allow_nan=False).encode() + b"\n"

    return write_lines(path, enumerate(to_trl(rankings), 1), line, lambda row: f"pair {row[0]}")
