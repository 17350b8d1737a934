"""Several answers of one row with what is thought of each: a list of objects, lists side by side, or a column each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matura.core.errors import FormatError
from matura.core.preferences import MAX_ANSWERS, Answer
from matura.data.conversations.messages import text

LISTS = ("completions", "answers", "responses", "candidates", "solutions")
TEXTS = ("response", "completion", "answer", "text", "content", "output", "solution")
SCORES = ("overall_score", "score", "rating", "reward", "fine-grained_score")
THUMBS = ("is_correct", "correct", "liked", "label")
SOURCES = ("model", "model_name", "source")
BESIDE = {"scores": "score", "ratings": "score", "rewards": "score", "ranks": "rank", "labels": "liked"}
"""Columns of one value for each answer, beside a list of texts."""
COLUMNS = (*LISTS, *BESIDE)


def has(values: Mapping[str, Any]) -> bool:
    """Whether a row holds answers with what is thought of them."""
    return any(isinstance(values.get(name), list | tuple) for name in LISTS) or bool(_columns(values))


def answers(values: Mapping[str, Any]) -> tuple[Answer, ...]:
    """The answers of a row. Raises FormatError when they are not in order, or nothing is thought of any."""
    name = next((name for name in LISTS if values.get(name) is not None), None)
    if name is None:
        made = [_answer(one, column, column) for column, one in _columns(values).items()]
    else:
        made = _listed(values, name)
    if len(made) > MAX_ANSWERS:
        raise FormatError(f"{name}: {len(made):,} answers, the limit is {MAX_ANSWERS:,}")
    if not any(one.rank is not None or one.score is not None or one.liked is not None for one in made):
        known = ", ".join((*SCORES, "rank", *THUMBS))
        raise FormatError(f"{name or 'answers'}: nothing says which answer is better; known are {known}")
    return tuple(made)


def _columns(values: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Columns that hold an answer each: an object with a text and a boolean."""
    return {
        str(name): value
        for name, value in values.items()
        if isinstance(value, Mapping)
        and any(isinstance(value.get(one), bool) for one in THUMBS)
        and any(isinstance(value.get(one), str) for one in TEXTS)
    }


def _listed(values: Mapping[str, Any], name: str) -> list[Answer]:
    items = values[name]
    if not isinstance(items, list | tuple) or not items:
        raise FormatError(f"{name}: expected a list of answers, found {items!r:.60}")
    if len(items) > MAX_ANSWERS:
        raise FormatError(f"{name}: {len(items):,} answers, the limit is {MAX_ANSWERS:,}")
    if isinstance(items[0], Mapping):
        return [_answer(one, f"{name}[{i}]") for i, one in enumerate(items)]
    judged: list[dict[str, Any]] = [{"text": one} for one in items]
    for beside, field in BESIDE.items():
        column = values.get(beside)
        if column is None:
            continue
        if not isinstance(column, Sequence) or isinstance(column, str) or len(column) != len(items):
            raise FormatError(
                f"{beside}: expected {len(items)} values, one for each of {name}, found {column!r:.60}"
            )
        for one, value in zip(judged, column, strict=True):
            one[field] = value
    return [_answer(one, f"{name}[{i}]") for i, one in enumerate(judged)]


def _answer(value: Any, place: str, source: str = "") -> Answer:
    if not isinstance(value, Mapping):
        raise FormatError(f"{place}: expected an object with a text, found {value!r:.60}")
    name = _first(value, TEXTS)
    if name is None:
        raise FormatError(f"{place}: has no text; known are {', '.join(TEXTS)}")
    content = text(value[name], f"{place}.{name}")
    graded, thumb, writer = (_first(value, names) for names in (SCORES, THUMBS, SOURCES))
    liked = value[thumb] if thumb else None
    if liked is not None and not isinstance(liked, bool):
        raise FormatError(f"{place}.{thumb}: expected true or false, found {liked!r:.60}")
    return Answer(
        content,
        rank(value.get("rank"), f"{place}.rank"),
        score(value[graded], f"{place}.{graded}") if graded else None,
        liked,
        source=text(value[writer], f"{place}.{writer}") if writer else source,
    )


def _first(value: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if value.get(name) is not None), None)


def score(value: Any, place: str) -> float:
    """A finite number. Raises FormatError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FormatError(f"{place}: expected a number, found {value!r:.60}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise FormatError(f"{place}: expected a finite number, found {value!r:.60}")
    return number


def rank(value: Any, place: str, best: int = 1) -> int | None:
    """A rank that is 1 for the best, from one that is `best` for it; None where there is none (tables write that as a
    number that is not one). Raises FormatError for anything else."""
    if value is None or value != value:
        return None
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole or value < best:
        raise FormatError(f"{place}: expected {best} (the best), {best + 1}, ..., found {value!r:.60}")
    return int(value) + 1 - best
