"""What models answered in exams: a few held-out prompts, as they stand in the records, good and bad alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from matura.core.preferences import HELDOUT, Ranking, mean_rewards, read_rankings
from matura.evaluate.story.chapters import Chapter

MAX_ANSWERS = 6
MAX_TEXT = 600
"""Characters shown of a question or an answer."""


def judged(one: Chapter) -> list[dict[str, str]]:
    """The first answers of a stage `rank` to held-out prompts, spread over them, each with what it was judged worth
    and, where the reward knows one, the right answer. Raises FormatError for a file of another form."""
    if one.made is None or HELDOUT not in one.made.record["files"]:
        return []
    count = _prompts(one.made.summary)
    step = max(1, count // MAX_ANSWERS)
    rows = islice(read_rankings(one.made.file(HELDOUT)), 0, None, step)
    return list(islice((told for row in rows for told in _first(row)), MAX_ANSWERS))


def examined(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """The questions of an exam that are only looked at, with the answers of both models."""
    return [
        _told(str(one["question"]), str(one["child"]), before=str(one.get("parent") or ""))
        for one in results.get("samples", ())[:MAX_ANSWERS]
    ]


def means(summary: Mapping[str, Any]) -> str:
    """The mean of each reward over the answers to held-out prompts, in words; "" where there is none."""
    found = mean_rewards(summary)
    if not found:
        return ""
    listed = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
    return f"Means over {summary['heldout'].get('answers', 0):,} answers to held-out prompts: {listed}."


def _prompts(summary: Mapping[str, Any]) -> int:
    side = summary.get("heldout") or {}
    return int(side.get("prompts") or 0)


def _first(row: Ranking) -> Iterator[dict[str, str]]:
    if row.answers:
        answer = row.answers[0]
        worth = "" if answer.score is None else f"worth {answer.score:.3g}"
        yield _told(_text(row.messages[-1]), answer.text, worth=worth, right=row.facts.get("gold", ""))


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else ""


def _told(
    question: str, answer: str, *, before: str = "", worth: str = "", right: str = ""
) -> dict[str, str]:
    texts = {"question": question, "answer": answer, "before": before, "right": right}
    return {key: text[:MAX_TEXT] + "…" * (len(text) > MAX_TEXT) for key, text in texts.items()} | {
        "worth": worth
    }
