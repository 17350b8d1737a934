"""What an exam leaves behind: its results as one value, and the files that are written from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matura.core.files import atomic_write, write_json
from matura.core.records import Document
from matura.evaluate import contamination, exam, gates, harness, report
from matura.evaluate.gates import Gate
from matura.evaluate.report import Context
from matura.evaluate.sitting import CHILD, PARENT, Paper, Scores


@dataclass(frozen=True)
class Settings:
    """How figures are judged."""

    margins: exam.Margins
    resamples: int
    seed: int


def results(
    paper: Paper,
    scores: Scores,
    chosen: Sequence[Gate],
    settings: Settings,
    notes: list[str],
    trained_on: Iterable[Document],
) -> dict[str, Any]:
    """All figures, without names or places: equal models and items give equal bytes. What is found of test items in
    the text `trained_on` is added to `notes`."""
    found = contamination.search(paper.sections, trained_on)
    if found is not None:
        notes += contamination.notes(found, paper.sections)
    draws = {"resamples": settings.resamples, "seed": settings.seed}
    compared = exam.metrics(paper, scores, settings.margins) if PARENT in scores.replies else []
    judged, reasons = gates.judge(compared, chosen, **draws)
    figures = {who: exam.standings(paper, scores, who, **draws) for who in scores.replies}
    return {
        "schema": 2,
        "line": exam.line(judged) if judged else exam.line_of_one(figures[CHILD]),
        "gate": {"passed": not reasons, "reasons": reasons},
        "metrics": [one.as_dict() for one in judged],
        "tasks": figures,
        "gates": [asdict(gate) for gate in chosen],
        "kl": exam.divergence(scores.kl, **draws),
        "documents": exam.document_lines(paper, scores, exam.DOMAIN),
        "samples": [
            {"question": question, **{who: answers[i] for who, answers in scores.answers.items()}}
            for i, question in enumerate(paper.questions)
        ],
        "items": exam.asked(paper),
        "contamination": None if found is None else asdict(found),
        "notes": notes,
    }


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """JSON Lines, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="ascii")


def write_harness(
    folder: Path,
    paper: Paper,
    scores: Scores,
    found: Mapping[str, Any],
    settings: Settings,
    *,
    texts: bool,
) -> None:
    """harness.json, and with `texts` a file of samples for each task of the examined model."""
    told = {
        "model": "matura",
        "window": paper.window,
        "resamples": settings.resamples,
        "seed": settings.seed,
    }
    write_json(folder / "harness.json", harness.results(paper.sections, found["tasks"][CHILD], told))
    for one in paper.sections if texts else ():
        rows = harness.samples(one, scores.replies[CHILD][one.name])
        write_lines(folder / f"samples-{one.name}.jsonl", rows)


def write_report(folder: Path, found: Mapping[str, Any], context: Context) -> None:
    """report.html."""
    with atomic_write(folder / "report.html") as temporary:
        temporary.write_text(report.render(found, context), encoding="utf-8")
