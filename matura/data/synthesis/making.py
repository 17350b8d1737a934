"""Requests to kept records: ask, take the answers apart, drop what is of no use, count everything."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matura.core.files import atomic_write
from matura.core.records import Conversation, said
from matura.core.synthesis_settings import Keep, Tasks
from matura.data.split import held_out
from matura.data.synthesis import filters
from matura.data.synthesis.answers import Teacher, ask
from matura.data.synthesis.asking import Request, Writer, again, records

SHORT, LONG, COPIED, RUN = "too short", "too long", "copied from the document", "long run of the document"
DISAGREES, EXACT, NEAR = "answers disagree", "exact duplicate", "near duplicate"
Output = tuple[Conversation, Request]


@dataclass(slots=True)
class Asking:
    """Who is asked and how: the teacher, its name in provenance, how many asks belong together, where answers go."""

    teacher: Teacher
    name: str
    folder: Path
    answer: Writer
    group: int = 1
    advance: Callable[[int], None] = lambda _: None


@dataclass(slots=True)
class Made:
    """Kept records in order; of each dropped one its reason; counts by task."""

    kept: list[Conversation] = field(default_factory=list)
    dropped: list[tuple[str, Conversation]] = field(default_factory=list)
    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def count(self, task: str, what: str) -> None:
        """One more of `what`: asked, outputs, kept, "failed: ..." or "dropped: ..."."""
        self.counts.setdefault(task, Counter())[what] += 1

    def drop(self, output: Output, reason: str) -> None:
        """Leave one out."""
        self.count(output[1].task, f"dropped: {reason}")
        self.dropped.append((reason, output[0]))

    def funnel(self) -> dict[str, dict[str, int]]:
        """The counts by task, for the report."""
        return {task: dict(sorted(counts.items())) for task, counts in self.counts.items()}


def make(requests: Sequence[Request], tasks: Tasks, least: int, asking: Asking) -> Made:
    """Ask all and keep what passes: length (`least` characters), copying, agreement, duplicates, in this order.

    Raises what the teacher raises; answers that came before are kept in `asking.folder`.
    """
    made = Made()
    outputs: list[Output] = []
    asks = [request.ask for request in requests]
    answers = ask(asking.teacher, asks, asking.folder / "answers.jsonl", asking.advance, asking.group)
    for request, answer in zip(requests, answers, strict=True):
        made.count(request.task, "asked")
        found = records(request, answer, asking.name)
        if isinstance(found, str):
            made.count(request.task, f"failed: {found}")
            continue
        for row in found:
            made.count(request.task, "outputs")
            if reason := fault(row, request.ask.document, tasks.keep, least):
                made.drop((row, request), reason)
            else:
                outputs.append((row, request))
    if tasks.keep.agree:
        outputs = _agreeing(outputs, tasks, asking, made)
    seen = filters.Seen(tasks.keep.near)
    for row, request in outputs:
        if copy := seen.copy_of(row.id, said(row)):
            made.drop((row, request), EXACT if copy[0] == "exact" else NEAR)
        else:
            made.count(request.task, "kept")
            made.kept.append(row)
    return made


def fault(row: Conversation, document: str, keep: Keep, least: int) -> str:
    """Why a record is not kept, or an empty text. Of a question and its answer, the answer counts."""
    text = row.messages[-1]["content"] if row.messages else row.text
    if len(text.strip()) < least:
        return SHORT
    if len(text) > keep.max_characters:
        return LONG
    if filters.copied_share(text, document, keep.copy_words) > keep.max_copied:
        return COPIED
    return RUN if filters.longest_run(text, document) > keep.max_run else ""


def _agreeing(outputs: Sequence[Output], tasks: Tasks, asking: Asking, made: Made) -> list[Output]:
    """Self-consistency (arXiv:2203.11171): a right answer comes again when the question is asked anew."""
    keep = tasks.keep
    questions = [output for output in outputs if output[0].messages]
    asks = [one for row, request in questions for one in again(row, request, keep.agree, asking.answer)]
    answers = ask(asking.teacher, asks, asking.folder / "again.jsonl", lambda _: None, asking.group)
    doubtful = set()
    for number, output in enumerate(questions):
        first = output[0].messages[-1]["content"]
        others = answers[number * keep.agree : (number + 1) * keep.agree]
        votes = sum(filters.overlap(first, other.text) >= keep.overlap for other in others)
        if votes < keep.agreement * keep.agree:
            doubtful.add(output[0].id)
            made.drop(output, DISAGREES)
    return [output for output in outputs if output[0].id not in doubtful]


def split(
    rows: Sequence[Conversation], heldout: int, seed: int
) -> tuple[list[Conversation], list[Conversation]]:
    """(train, held out). All records of one document are on one side. Raises MaturaError for under 3 documents."""
    entries = [(row.provenance["document"],) * 2 + (len(said(row)),) for row in rows]
    out = held_out(entries, heldout, seed)
    train = [row for row in rows if row.provenance["document"] not in out]
    return train, [row for row in rows if row.provenance["document"] in out]


def dropped_rows(made: Made) -> list[dict[str, Any]]:
    """What was left out and why, with the beginning of its text, as plain values."""
    return [
        {"id": row.id, "reason": reason, "text": said(row)[:500], "provenance": row.provenance}
        for reason, row in made.dropped
    ]


def write_dropped(path: Path, made: Made) -> None:
    """Those rows as JSON lines, atomically."""
    with atomic_write(path) as temporary, open(temporary, "w", encoding="ascii") as file:
        file.writelines(json.dumps(row) + "\n" for row in dropped_rows(made))
