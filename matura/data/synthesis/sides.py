"""The files of a `conversations` artifact that was synthesized, whoever wrote it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from matura.core.files import write_json
from matura.core.records import Conversation, write_conversations


def write(
    folder: Path, train: Iterable[Conversation], heldout: Iterable[Conversation], summary: Mapping[str, Any]
) -> None:
    """train.jsonl, heldout.jsonl, and the summary as report.json."""
    write_conversations(folder / "train.jsonl", train)
    write_conversations(folder / "heldout.jsonl", heldout)
    write_json(folder / "report.json", summary)
