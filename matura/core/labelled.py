"""Labelled texts: of a file with one JSON object to a line, {"text": ..., "label": ...}, or of a corpus whose sources
are the labels."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from matura.core.artifact import Artifact
from matura.core.config import did_you_mean
from matura.core.errors import FormatError
from matura.core.records import Held, read_documents, read_lines

MOST_LABELS = 1000
KEYS = ("text", "label")


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text and the name of its label; `heldout` where that is settled already."""

    text: str
    label: str
    heldout: bool | None = None

    @property
    def is_heldout(self) -> bool:
        """Whether it is never trained on: as settled, or one of a tenth. Then the text decides, so copies are on one
        side."""
        if self.heldout is not None:
            return self.heldout
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).digest()[0] < 26


def read_labelled(path: str | Path) -> list[LabelledText]:
    """The rows of a JSONL file. Labels are texts or whole numbers; true and false are labels too.

    Raises FormatError, naming file and line, for anything else, for fewer than two labels and for more than 1000.
    """
    path = Path(path)
    return _checked(
        [_row(line, f"{path}:{number}") for number, line in read_lines(path, "labelled texts")], path
    )


def read_labelled_corpus(corpus: Artifact) -> list[LabelledText]:
    """The documents of a corpus with the names of their sources as labels; what it holds out is held out here.

    Raises FormatError for a corpus of a single source, MaturaError for more text than memory should hold.
    """
    held = Held(corpus.path)
    rows = [
        LabelledText(one.text, one.meta.get("origin", ""), side == "heldout")
        for side in ("train", "heldout")
        for one in map(held.add, read_documents(corpus.file(f"{side}.parquet")))
    ]
    if not all(row.label for row in rows):
        raise FormatError(
            f"{corpus.path}: its documents have no labels. Curate with `sources`, each the texts of one label"
        )
    return _checked(rows, corpus.path)


def _checked(rows: list[LabelledText], path: Path) -> list[LabelledText]:
    labels = {row.label for row in rows}
    if not 2 <= len(labels) <= MOST_LABELS:
        found = f"{len(labels)} label{'' if len(labels) == 1 else 's'} in {len(rows)} rows"
        raise FormatError(f"{path}: {found}; expected 2 to {MOST_LABELS} different ones")
    return rows


def _row(line: bytes, where: str) -> LabelledText:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: not valid JSON: {error}") from error
    if not isinstance(row, dict):
        raise FormatError(f'{where}: expected {{"text": ..., "label": ...}}, found {type(row).__name__}')
    for key in row:
        if key not in KEYS:
            raise FormatError(f"{where}: unknown key {key!r}{did_you_mean(key, KEYS)}")
    text, label = row.get("text"), row.get("label")
    if not isinstance(text, str) or not text.strip():
        raise FormatError(f"{where}: 'text' must be a text that is not empty")
    if not isinstance(label, str | int) or label == "":
        raise FormatError(f"{where}: 'label' must be a text or a whole number, found {label!r:.40}")
    return LabelledText(text, str(label).lower() if isinstance(label, bool) else str(label))
