"""What exams and gates of a run said: figures before and after, the interval of their difference, and the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matura.core.errors import MaturaError
from matura.evaluate import report
from matura.evaluate.story import answers
from matura.evaluate.story.chapters import Chapter

MAX_ROWS = 24
"""Figures shown of one exam; its own report has all."""


def verdicts(chapters: Sequence[Chapter]) -> Iterator[dict[str, Any]]:
    """Of each exam, and of each stage with a gate: its name and line, whether it passed (None: no gate) and why not,
    rows that compare two models, rows about one, the means of rewards, and some answers."""
    for one in chapters:
        if one.made is None:
            continue
        told = {
            "name": one.name,
            "line": one.line,
            "passed": one.passed,
            "reasons": one.reasons,
            "compared": [],
            "alone": [],
            "more": 0,
            "means": "",
            "answers": [],
            "problem": "",
        }
        if one.made.kind == "evaluation":
            yield {**told, **_examined(one)}
        elif one.passed is not None or (one.stage == "rank" and _only_judges(one.made.summary)):
            score = one.made.summary.get("score")
            rows = [report.row(score)] if isinstance(score, Mapping) else []
            yield {**told, "compared": rows, **_judged(one)}


def _only_judges(summary: Mapping[str, Any]) -> bool:
    """Whether a stage `rank` saw held-out prompts alone: it makes nothing to learn from, so it is an exam."""
    train, heldout = summary.get("train"), summary.get("heldout")
    if not isinstance(train, Mapping) or not isinstance(heldout, Mapping):
        return False
    return not train.get("prompts") and bool(heldout.get("prompts"))


def _judged(one: Chapter) -> dict[str, Any]:
    """Rewards and answers of a stage `rank`."""
    if one.made is None or one.stage != "rank":
        return {}
    try:
        return {"means": answers.means(one.made.summary), "answers": answers.judged(one)}
    except MaturaError as error:
        return {"problem": str(error)}


def _examined(one: Chapter) -> dict[str, Any]:
    """The figures of an exam, those that decided first."""
    try:
        found = one.read("results.json", "results of an exam") or {}
        compared = [report.row(figure) for figure in found.get("metrics", ())]
        alone = [report.standing(figure) for figure in found.get("tasks", {}).get("child", ())]
        looked = answers.examined(found)
    except MaturaError as error:
        return {"problem": str(error)}
    except (KeyError, TypeError, ValueError):
        return {"problem": "its results.json has another form than this version of matura reads"}
    compared.sort(key=lambda row: not row["gated"])
    shown = compared or alone
    return {
        "passed": one.passed if compared else None,  # one model alone passes nothing
        "compared": compared[:MAX_ROWS],
        "alone": [] if compared else alone[:MAX_ROWS],
        "more": max(0, len(shown) - MAX_ROWS),
        "answers": looked,
    }
