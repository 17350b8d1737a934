"""Domain-adaptive training with a larger vocabulary: what the documents repeat becomes a token before it is learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matura.core.artifact import Artifact, RawInput
from matura.core.peft_settings import Vocabulary
from matura.core.records import read_documents
from matura.tokenizer.conversation import Format
from matura.tokenizer.growing import Grown, grow


def vocabulary(settings: Vocabulary, inputs: Mapping[str, Artifact | RawInput], format: Format) -> Grown:
    """The format with tokens for what the corpus's documents to learn repeat; as it is where none are asked for."""
    if not settings.add:
        return Grown(format)
    corpus = inputs["corpus"]
    assert isinstance(corpus, Artifact)
    texts = (row.text for row in read_documents(corpus.file("train.parquet")))
    return grow(format, texts, settings.add, settings.min_count)


def told(grown: Grown) -> dict[str, Any]:
    """For a summary: how many tokens were added, and by how much the documents became shorter; nothing without."""
    if not grown.pieces:
        return {}
    shorter = 1 - grown.after / grown.before
    return {"vocabulary": {"added": len(grown.pieces), "fewer_tokens": round(shorter, 4)}}
