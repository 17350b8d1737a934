"""Rankings as rows in the formats that TRL reads."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from matura.core.errors import FormatError
from matura.core.files import atomic_write
from matura.core.preferences import Ranking
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
    count = 0
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        for row in to_trl(rankings):
            try:
                file.write(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n")
            except UnicodeEncodeError as error:
                raise FormatError(
                    f"{Path(path).name}: pair {count + 1} is not valid Unicode: {error}"
                ) from error
            count += 1
    return count
