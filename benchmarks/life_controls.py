"""What is learned from in the controls of a life: the same words, answers and marks, dealt by lot."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from matura.core.artifact import Artifact
from matura.core.preferences import HELDOUT, TRAIN, Ranking, read_rankings, write_rankings
from matura.core.records import (
    Conversation,
    Document,
    read_conversations,
    read_documents,
    write_conversations,
    write_documents,
)

WORD = re.compile(r"\S+")


def write(made: Mapping[str, Artifact], folder: Path, seed: int) -> None:
    """Make mixed_text.parquet from the documents, mixed_lessons/ from the lessons and by_lot/ from the preferences of a
    life. The same life and seed give the same files. Held-out rows, which only meters read, are as they were."""
    folder.mkdir(parents=True, exist_ok=True)
    documents = read_documents(made["corpus"].file("train.parquet"))
    write_documents(folder / "mixed_text.parquet", (mixed_text(one, seed) for one in documents))
    for name in ("mixed_lessons", "by_lot"):
        (folder / name).mkdir(exist_ok=True)
    lessons, judged = made["lessons"], made["preferred"]
    learned = mixed_lessons(list(read_conversations(lessons.file(TRAIN))), seed)
    write_conversations(folder / "mixed_lessons" / TRAIN, learned)
    write_conversations(folder / "mixed_lessons" / HELDOUT, read_conversations(lessons.file(HELDOUT)))
    ranked = (by_lot(row, seed) for row in read_rankings(judged.file(TRAIN)))
    write_rankings(folder / "by_lot" / TRAIN, ranked)
    write_rankings(folder / "by_lot" / HELDOUT, read_rankings(judged.file(HELDOUT)))


def mixed_text(document: Document, seed: int) -> Document:
    """The words of a document in an order by lot; the space between them stays."""
    words = WORD.findall(document.text)
    random.Random(f"{seed}\n{document.id}").shuffle(words)
    dealt = iter(words)
    return replace(document, text=WORD.sub(lambda _: next(dealt), document.text))


def mixed_lessons(rows: Sequence[Conversation], seed: int) -> list[Conversation]:
    """Every question with the answer to another one."""
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    other = dict(zip(order, [*order[1:], *order[:1]], strict=True))  # one ring: nobody keeps the answer
    return [
        replace(row, messages=(*row.messages[:-1], rows[other[i]].messages[-1])) for i, row in enumerate(rows)
    ]


def by_lot(row: Ranking, seed: int) -> Ranking:
    """The ranks and scores of a prompt's answers, dealt to them by lot: as many pairs, ties and margins as before."""
    marks = [(one.rank, one.score, one.liked) for one in row.answers]
    random.Random(f"{seed}\n{row.id}").shuffle(marks)
    dealt = [
        replace(one, rank=rank, score=score, liked=liked)
        for one, (rank, score, liked) in zip(row.answers, marks, strict=True)
    ]
    return replace(row, answers=tuple(dealt))
