"""General text by which a fine-tuning is watched where nothing else is given: the exam's control texts."""

from __future__ import annotations

from matura.core.artifact import Artifact, RawInput
from matura.evaluate.tasks import passages
from matura.model.transformer import Transformer
from matura.tokenizer.conversation import Format
from matura.train import examples
from matura.train.batches import Example
from matura.train.material import spread
from matura.train.meter import Meter, Text

PASSAGES = 24
"""Texts of about 240 tokens that are chosen from: more than a look reads."""


def control_texts(wheel: Artifact | RawInput, format: Format, length: int) -> list[Example]:
    """Paragraphs of English novels in the exam's wheel, as examples of at most `length` tokens.

    Raises FormatError when the wheel is broken.
    """
    assert isinstance(wheel, RawInput)
    found = passages(wheel.file(next(iter(wheel.files))), PASSAGES)
    return examples.from_documents(found, format, length)


def meter(
    wheel: Artifact | RawInput | None, format: Format, parent: Transformer, tokens: int, length: int = 512
) -> Meter | None:
    """The forgetting meter over `tokens` of them; None without a wheel."""
    if wheel is None:
        return None
    text = Text.of(spread(control_texts(wheel, format, length), tokens), format.tokenizer)
    return Meter(text, parent) if text.bytes else None
