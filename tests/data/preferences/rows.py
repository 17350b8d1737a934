"""A file of rows made on the spot, and what is read of it."""

import json
from pathlib import Path
from typing import Any

from matura.core.preference_settings import PreferenceData
from matura.data.preferences.loading import Loaded, load_files

ALL = PreferenceData(heldout=0)


def write(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def loaded(folder: Path, *rows: Any, settings: PreferenceData = ALL) -> Loaded:
    return load_files(write(folder / "mine.jsonl", list(rows)), settings)


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
