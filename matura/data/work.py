"""What a worker does with one part: documents through the steps, and a count of all that happened."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from matura.core.grouping import filled
from matura.core.records import Document, read_documents, text_size, write_documents
from matura.data import tally
from matura.data.parts import PartFiles, Row, Sampler, order, write_dropped, write_rows
from matura.data.pii_step import hide
from matura.data.split import fingerprint
from matura.data.steps import SAMPLE_CHARACTERS, Dropped, Outcome, Step, build

BATCH_DOCUMENTS = 512
BATCH_CHARACTERS = 8 << 20
READ = "read"
CUT_CHARACTERS = 60  # of a cut sample: longer than cards, phone numbers and most addresses


def work(part: dict[str, Any]) -> dict[str, Any]:
    """Do one part unless its marker is there; returns the marker: {"documents": int, "steps": tallies}.

    A part is {"folder", "number", "steps": [[factory, settings], ...]} with either "task" (of `reading.plan`) or
    "input" (a file of documents). With "index" the documents are sorted and a light index is written beside them;
    "names" is the user's finder of names, for the examples.
    """
    files = PartFiles(Path(part["folder"]), part["number"])
    marker = files.finished()
    if marker is not None:
        return marker
    run = _Run([build(factory, settings) for factory, settings in part["steps"]], part.get("balance", False))
    documents = run.through(run.read(part["task"]) if "task" in part else read_documents(part["input"]))
    files.folder.mkdir(parents=True, exist_ok=True)
    if part.get("index"):
        chosen = sorted(documents, key=order)
        write_rows(files.path(".index.parquet"), map(row, chosen))
        count = write_documents(files.path(".parquet"), chosen)
    else:
        count = write_documents(files.path(".parquet"), documents)
    write_dropped(files.path(".dropped.parquet"), shown(run.samples.rows(), part.get("names")))
    return files.finish({"documents": count, "steps": list(run.tallies.values())})


class _Run:
    """The steps of one part, with what they counted."""

    def __init__(self, steps: Sequence[Step], balance: bool = False) -> None:
        self.steps = steps
        self.mentions = _mentions if balance else None
        self.tallies: dict[str, tally.StepTally] = {}
        self.samples = Sampler()

    def read(self, task: dict[str, Any]) -> Iterator[Document]:
        """Documents of a task; what was passed over is counted as dropped by the reading."""
        from matura.data import reading

        step = self.tallies.setdefault(READ, tally.empty(READ))
        began = time.perf_counter()
        for item in reading.read(task):
            if isinstance(item, Document):
                outcome = Outcome(kept=[item])
            else:
                outcome = Outcome(dropped=[Dropped("", item.name, READ, item.reason, item.detail)])
            # Skipped files were not text: what the reading took in is only known of documents.
            (size,) = tally.sizes(outcome.kept) or [0]
            which = "documents" if outcome.kept else "passed over"
            outcome.counts += Counter({f"{which}.{task['origin']}": 1, f"bytes.{task['origin']}": size})
            tally.note(step, [size], outcome, time.perf_counter() - began)
            self.samples.add(outcome.dropped)
            yield from outcome.kept
            began = time.perf_counter()

    def through(self, documents: Iterable[Document]) -> Iterator[Document]:
        """What the steps leave, batch by batch."""
        for batch in batches(documents):
            came = tally.sizes(batch)
            groups = self.mentions(batch, {}) if self.mentions else {}
            for step in self.steps:
                began = time.perf_counter()
                outcome = step(batch)
                seconds = time.perf_counter() - began
                sums = self.tallies.setdefault(step.name, tally.empty(step.name))
                came = tally.note(sums, came, outcome, seconds)
                if self.mentions:
                    tally.note_mentions(sums, "in", _total(batch, groups))
                    groups = self.mentions(outcome.kept, groups)
                    tally.note_mentions(sums, "out", _total(outcome.kept, groups))
                self.samples.add(outcome.dropped)
                batch = outcome.kept
            yield from batch
        for step in self.steps:
            self.tallies.setdefault(step.name, tally.empty(step.name))


Mentions = dict[str, tuple[str, Counter[str]]]
"""Of documents by id: the text, and how often it mentions each group of people."""


def _mentions(documents: Sequence[Document], known: Mentions) -> Mentions:
    """Texts are counted again only where a step changed them."""
    from matura.data.filters import balance

    found: Mentions = {}
    for one in documents:
        before = known.get(one.id)
        same = before is not None and before[0] is one.text
        found[one.id] = before if before and same else (one.text, balance.mentions([one.text]))
    return found


def _total(documents: Sequence[Document], groups: Mentions) -> Counter[str]:
    total: Counter[str] = Counter()
    for document in documents:
        total.update(groups[document.id][1])
    return total


def batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Groups of documents, bounded in number and in text."""
    return filled(documents, BATCH_CHARACTERS, text_size, BATCH_DOCUMENTS)


def shown(rows: Sequence[Dropped], names: str | None = None) -> list[Dropped]:
    """Examples as they may be shown: personal data of every kind masked, whatever the corpus does with its own.

    `names` is the finder of `pii.names`.
    """
    # A value that the end of the sample cuts in two is no longer found as one: the last words go.
    samples = [
        one.sample if len(one.sample) < SAMPLE_CHARACTERS else one.sample[:-CUT_CHARACTERS].rpartition(" ")[0]
        for one in rows
    ]
    details = hide([one.detail for one in rows], names)
    return [
        replace(one, sample=sample, detail=detail)
        for one, sample, detail in zip(rows, hide(samples, names), details, strict=True)
    ]


def row(document: Document) -> Row:
    """What choosing needs to know of a document."""
    content = hashlib.sha256(document.text.encode()).hexdigest()
    origin = document.meta.get("origin", "")
    return Row(
        document.id,
        document.source,
        origin,
        fingerprint(document.text)[:32],
        hashlib.sha256(f"{_place(document, origin)}\n{content}".encode()).hexdigest()[:20],
        len(document.text),
        len(document.text.encode()),
        document.meta.get("language", ""),
        document.meta.get("license", ""),
    )


def _place(document: Document, origin: str) -> str:
    return f"{origin}\n{document.source}" if origin else document.source
