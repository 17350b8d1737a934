"""Conversations that stand in documents already: a handbook has headings and what to do under them, a list of questions
its answers. Patterns say where they are; nobody writes anything new.

What was held out as a document is held out as a conversation, and a question that is asked there is dropped from the
ones to learn from, so no exam asks what was learned by heart.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute

from matura.core.chance import chance
from matura.core.errors import MaturaError
from matura.core.extract_settings import FIELD, Extract
from matura.core.grouping import filled
from matura.core.records import Conversation, Document, Held, text_size
from matura.data.synthesis import sides

AT_ONCE, CHARACTERS_AT_ONCE = 512, 8 << 20  # documents whose pieces are searched together, and their text


@dataclass
class Side:
    """Conversations of one side, and why pieces gave none."""

    documents: int = 0
    rows: list[Conversation] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def make(
    train: Iterable[Document], heldout: Iterable[Document], settings: Extract, folder: Path
) -> dict[str, Any]:
    """Write train.jsonl, heldout.jsonl and report.json; returns the report. Raises MaturaError when no document to
    learn from, or none of the held-out ones, gave a conversation."""
    held = found(heldout, settings)
    asked = {_question(row) for row in held.rows}
    learned = found((one for one in train if in_share(one.id, settings)), settings, asked)
    for name, side in (("train", learned), ("held-out", held)):
        if not side.rows:
            raise MaturaError(
                f"`extract` found nothing in {side.documents:,} {name} documents ({dict(side.left_out)}): try its "
                "patterns on one of them, or widen `first` and `last`"
            )
    summary = {
        "line": f"{len(learned.rows):,} conversations found in {learned.documents:,} documents, "
        f"{len(held.rows):,} held out from {held.documents:,}",
        "documents": learned.documents,
        "train": len(learned.rows),
        "heldout": len(held.rows),
        "left_out": {"train": dict(learned.left_out), "heldout": dict(held.left_out)},
    }
    sides.write(folder, learned.rows, held.rows, summary)
    return summary


def found(documents: Iterable[Document], settings: Extract, taken: Iterable[str] = ()) -> Side:
    """All conversations of the documents, each question once and none of those `taken`."""
    side, seen, held = Side(), set(taken), Held("extract")
    for group in filled(documents, CHARACTERS_AT_ONCE, text_size, AT_ONCE):
        side.documents += len(group)
        for document, number, values in _pieces(group, settings):
            row = _conversation(document, number, values, settings)
            if reason := _unfit(row, settings, seen):
                side.left_out[reason] += 1
            else:
                seen.add(_question(row))
                side.rows.append(held.add(row))
    return side


def in_share(id: str, settings: Extract) -> bool:
    """Whether a document belongs to the share from `first` to `last`: by its id, so another corpus moves nothing."""
    return settings.first <= chance(f"extract\n{id}") < settings.last


def _pieces(group: list[Document], settings: Extract) -> Iterator[tuple[Document, int, dict[str, str]]]:
    """What the groups of both patterns found, for each piece in which both were found: document, number, values."""
    sources = _groups_found([one.source for one in group], settings.source)
    cut = _cut([one.text for one in group], settings.split)
    flat = [piece for pieces in cut for piece in pieces]
    values = iter(_groups_found(flat, settings.text))
    for document, pieces, named in zip(group, cut, sources, strict=True):
        for number, in_text in enumerate([next(values) for _ in pieces]):
            if in_text is not None and named is not None:
                yield document, number, {**named, **in_text}


def _cut(texts: list[str], pattern: str) -> list[list[str]]:
    if not pattern:
        return [[text] for text in texts]
    cut: list[list[str]] = pyarrow.compute.split_pattern_regex(
        pyarrow.array(texts, pyarrow.string()), pattern
    ).to_pylist()
    return cut


def _groups_found(texts: list[str], pattern: str) -> list[dict[str, str] | None]:
    """What the named groups found in each text; None where the pattern is not found, {} for no pattern at all."""
    if not pattern:
        return [{} for _ in texts]
    found: list[dict[str, str] | None] = pyarrow.compute.extract_regex(
        pyarrow.array(texts, pyarrow.string()), pattern
    ).to_pylist()
    return found


def _conversation(
    document: Document, number: int, values: Mapping[str, str], settings: Extract
) -> Conversation:
    clean = {name: textwrap.dedent(value).strip() for name, value in values.items()}
    said = [FIELD.sub(lambda one: clean[one[1]], text) for text in (settings.question, settings.answer)]
    messages = ({"role": "user", "content": said[0]}, {"role": "assistant", "content": said[1]})
    return Conversation(
        f"{document.id}/{number}", messages, provenance={"document": document.id, "source": document.source}
    )


def _question(row: Conversation) -> str:
    return str(row.messages[0]["content"])


def _unfit(row: Conversation, settings: Extract, seen: set[str]) -> str:
    """Why a conversation is left out, or nothing."""
    said = [str(message["content"]) for message in row.messages]
    if not all(said):
        return "empty"
    if max(map(len, said)) > settings.max_characters:
        return "too long"
    return "asked before" if said[0] in seen else ""
