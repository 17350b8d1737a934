"""`samples.jsonl`: what a model wrote while it was trained. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matura.core.files import atomic_write

SAMPLES = "samples.jsonl"


def read_samples(folder: Path) -> list[dict[str, Any]]:
    """The samples of a run, in order: each with `step`, `prompt` and `text`."""
    try:
        text = (folder / SAMPLES).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    # A sample may hold U+2028, at which splitlines would cut.
    return [json.loads(line) for line in text.split("\n") if line]


def write_samples(folder: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write all of them anew."""
    with atomic_write(folder / SAMPLES) as temporary:
        temporary.write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
        )
