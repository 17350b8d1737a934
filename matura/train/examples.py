"""Records to training examples: the same ids that the exam scores and the chat sends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from matura.core.conversation_settings import Truncation, Turns
from matura.core.errors import MaturaError
from matura.core.records import CUT, Conversation, Document
from matura.tokenizer.conversation import Format, Rendered
from matura.train.batches import Example, chunk_document

EMPTY, UNTRAINED = "empty", "no trained answer"
CUT_AWAY, LONG = "answer cut away", "too long"
"""Why a row is dropped."""
_OURS = ("weight", *CUT)
"""What a message says to training only; no template sees it."""


class Made(NamedTuple):
    """Examples, and how many rows were dropped for each reason."""

    examples: list[Example]
    dropped: Counter[str]


def from_documents(documents: Iterable[Document], format: Format, length: int) -> list[Example]:
    """Documents cut into pieces of at most `length` tokens, every token trained once."""
    texts = list(documents)
    encoded = format.tokenizer.encode_batch([document.text for document in texts])
    return [example for ids in encoded for example in chunk_document(ids, length, format.begin_id)]


def from_conversations(
    conversations: Iterable[Conversation],
    format: Format,
    length: int,
    *,
    turns: Turns = "all",
    truncation: Truncation = "keep_start",
) -> Made:
    """Answers trained, questions read; plain texts trained whole. Raises as `from_conversation`."""
    made = Made([], Counter())
    for row in conversations:
        examples, reason = from_conversation(row, format, length, turns=turns, truncation=truncation)
        made.examples.extend(examples)
        if reason:
            made.dropped[reason] += 1
    return made


def from_conversation(
    row: Conversation,
    format: Format,
    length: int,
    *,
    turns: Turns = "all",
    truncation: Truncation = "keep_start",
) -> tuple[list[Example], str]:
    """The examples of one row; without any, the reason why it is dropped, else "".

    `turns` says which answers are trained, each with the weight of its message (0: it is only read). What follows the
    last trained token changes no loss and is left out. A row over `length` tokens keeps its beginning, so an answer
    that is cut there is trained without its stop token, or is dropped, by `truncation`. An answer that its writer did
    not finish (`records.CUT`) is trained without its stop token too: nobody should learn to stop there.

    Raises MaturaError naming the row that the template cannot write.
    """
    if not row.messages:
        made = chunk_document(format.tokenizer.encode(row.text), length, format.begin_id)
        return made, "" if made else EMPTY
    try:
        rendered = format.render([seen(message) for message in row.messages], row.tools)
    except MaturaError as error:
        raise MaturaError(f"conversation {row.id!r}: {error}") from error
    weights = _weights(row.messages, rendered, turns)
    end = next((i for i in range(len(weights), 0, -1) if weights[i - 1]), 0)
    if not end:
        return [], UNTRAINED
    if end > length and truncation == "drop":
        return [], LONG
    example = Example(tuple(rendered.ids[:end][:length]), tuple(weights[:end][:length]))
    return ([example], "") if example.trained else ([], CUT_AWAY)


def seen(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as the template gets it."""
    return {name: value for name, value in message.items() if name not in _OURS}


def _weights(messages: tuple[dict[str, Any], ...], rendered: Rendered, turns: Turns) -> list[float]:
    """The weight of every token's loss."""
    weights = [0.0] * len(rendered.ids)
    for answer in rendered.answers[-1:] if turns == "last" else rendered.answers:
        message = messages[answer.message]
        end = answer.end - (CUT.items() <= message.items())  # without the stop token
        weights[answer.start : end] = [float(message.get("weight", 1.0))] * (end - answer.start)
    return weights
