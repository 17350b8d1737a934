"""Prompts with answers, as a person would be asked about them."""

from pathlib import Path

from matura.align.ranking.journal import Journal, open_journal
from matura.align.ranking.sitting import Sitting
from matura.core.preferences import Answer, Ranking


def row(number: int, *texts: str) -> Ranking:
    """A prompt with these answers, or with four that differ."""
    asked = {"role": "user", "content": f"Question {number}?"}
    answers = tuple(Answer(text) for text in texts or [f"Answer {number}-{k}" for k in range(4)])
    return Ranking(f"p{number}", (asked,), answers)


def sitting(
    folder: Path, rows: list[Ranking] | None = None, annotator: str = "ada", seed: int = 0
) -> Sitting:
    """A sitting over a journal in `folder`, with three prompts of four answers."""
    asked = [row(n) for n in range(3)] if rows is None else rows
    journal: Journal = open_journal(folder / "rankings.jsonl")
    journal.add(asked)
    return Sitting(journal, asked, annotator, seed)
