"""What a model is to learn from, read: documents or conversations, of an artifact or of people's own files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from matura.core.artifact import Artifact
from matura.core.conversation_settings import FOR_FILES, ConversationData
from matura.core.errors import ConfigError
from matura.core.raw import RawInput
from matura.core.records import Conversation, Document, read_conversations, read_documents
from matura.data import conversations
from matura.tokenizer.conversation import Format
from matura.train import examples
from matura.train.batches import Example
from matura.train.examples import Made

SIDES = ("train", "heldout")


@dataclass(frozen=True)
class Material:
    """Rows to learn from and rows held out, all of one kind, and what reading them found."""

    train: Sequence[Document] | Sequence[Conversation]
    heldout: Sequence[Document] | Sequence[Conversation]
    found: dict[str, Any] = field(default_factory=dict)


def read(source: Artifact | RawInput, settings: ConversationData) -> Material:
    """A corpus, what `synthesize` wrote, or files of conversations; see `matura.data.conversations`."""
    if isinstance(source, RawInput):
        loaded = conversations.load(source.path, settings)
        found = {"heldout_rows": len(loaded.heldout), "bad_rows": len(loaded.bad)}
        return Material(loaded.train, loaded.heldout, found)
    if source.kind == "corpus":
        documents = [list(read_documents(source.file(f"{side}.parquet"))) for side in SIDES]
        return Material(documents[0], documents[1])
    talks = [list(read_conversations(source.file(f"{side}.jsonl"))) for side in SIDES]
    return Material(talks[0], talks[1])


def check_settings(settings: ConversationData, source: Artifact | RawInput | None) -> None:
    """Raises ConfigError for settings of files that were given although what is learned is no file."""
    if isinstance(source, RawInput):
        return
    default = ConversationData()
    for name in FOR_FILES:
        if getattr(settings, name) != getattr(default, name):
            raise ConfigError(f"data.{name} is for files of conversations, and there are none to learn from")


def make(rows: Sequence[Any], format: Format, length: int, settings: ConversationData) -> Made:
    """The examples of documents or conversations, each at most `length` tokens long."""
    if rows and isinstance(rows[0], Document):
        return Made(examples.from_documents(rows, format, length), Counter())
    return examples.from_conversations(
        rows, format, length, turns=settings.turns, truncation=settings.truncation
    )


def spread(made: Sequence[Example], tokens: int) -> list[Example]:
    """Examples from all over the list that have about `tokens` together; at least one."""
    total = sum(len(example.ids) for example in made)
    count = max(1, min(len(made), len(made) * tokens // max(total, 1)))
    return [made[i * len(made) // count] for i in range(count)] if made else []
