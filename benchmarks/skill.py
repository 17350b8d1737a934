"""A skill to be learned from questions and answers: a file of one's own, such as GSM8K's, or sums made by a program."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matura.core.conversation_settings import ConversationData
from matura.core.records import Conversation, read_conversations
from matura.data import conversations
from matura.data.synthesis import programs

HELD_OUT = 200
SUMS = 4000


@dataclass(frozen=True)
class Skill:
    """Rows to learn from, and rows held out; `name` is for people."""

    name: str
    train: Sequence[Conversation]
    heldout: Sequence[Conversation]


def read(text: str | None, seed: int) -> Skill:
    """The rows of a file (JSON Lines of questions and answers), or, without one, of the program `arithmetic`."""
    if text is not None:
        path = Path(text)
        found = conversations.load(path, ConversationData(heldout=HELD_OUT))
        return Skill(path.name, found.train, found.heldout)
    with tempfile.TemporaryDirectory() as folder:
        programs.make("arithmetic", SUMS, HELD_OUT, seed, Path(folder))
        sides = [list(read_conversations(Path(folder, f"{side}.jsonl"))) for side in ("train", "heldout")]
    return Skill("the program arithmetic", *sides)
