"""Records to training examples: the same ids that the exam scores and the chat sends."""

from __future__ import annotations

from collections.abc import Iterable

from matura.core.errors import MaturaError
from matura.core.records import CUT, Conversation, Document
from matura.tokenizer.conversation import Format
from matura.train.batches import Example, chunk_document


def from_documents(documents: Iterable[Document], format: Format, length: int) -> list[Example]:
    """Documents cut into pieces of at most `length` tokens, every token trained once."""
    texts = list(documents)
    encoded = format.tokenizer.encode_batch([document.text for document in texts])
    return [example for ids in encoded for example in chunk_document(ids, length, format.begin_id)]


def from_conversations(
    conversations: Iterable[Conversation], format: Format, length: int
) -> tuple[list[Example], int]:
    """Answers trained, questions read; plain texts trained whole. Cut after `length` tokens.

    An answer marked as cut (`records.CUT`) is trained without its stop token: nobody should learn to stop there.

    Returns the examples, and how many rows were dropped because nothing trained was left of them. Raises MaturaError
    naming the row that the template cannot write.
    """
    examples: list[Example] = []
    dropped = 0
    for row in conversations:
        if not row.messages:
            made = chunk_document(format.tokenizer.encode(row.text), length, format.begin_id)
            examples += made
            dropped += not made
            continue
        try:
            rendered = format.render(row.messages)
        except MaturaError as error:
            raise MaturaError(f"conversation {row.id!r}: {error}") from error
        end = len(rendered.ids)
        if CUT.items() <= row.messages[-1].items():
            end = max(i for i, trained in enumerate(rendered.mask) if trained)  # without the stop token
        end = min(end, length)
        example = Example(tuple(rendered.ids[:end]), tuple(rendered.mask[:end]))
        if example.trained:
            examples.append(example)
        dropped += not example.trained
    return examples, dropped
