"""General text by which a fine-tuning is watched where nothing else is given: the exam's control texts."""

from __future__ import annotations

from matura.core.artifact import Artifact, RawInput
from matura.evaluate.tasks import passages
from matura.tokenizer.conversation import Format
from matura.train import examples
from matura.train.batches import Example

PASSAGES = 24
"""Texts of about 240 tokens that are chosen from: more than a look reads."""


def control_texts(wheel: Artifact | RawInput, format: Format, length: int) -> list[Example]:
    """Paragraphs of English novels in the exam's wheel, as examples of at most `length` tokens.

    Raises FormatError when the wheel is broken.
    """
    assert isinstance(wheel, RawInput)
    found = passages(wheel.file(next(iter(wheel.files))), PASSAGES)
    return examples.from_documents(found, format, length)
