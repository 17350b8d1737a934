"""What people or rewards think of several answers to one prompt: the record that every method of alignment reads.

A prompt alone has no answers, a sample has answers that nobody judged, a ranking has ranks: one record in three states.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from matura.core.config import did_you_mean
from matura.core.errors import FormatError
from matura.core.records import check_messages, objects, read_lines, texts, write_lines

TRAIN, HELDOUT, SAMPLES = "train.jsonl", "heldout.jsonl", "samples.jsonl"
MAX_ANSWERS = 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, and what is known about it.

    `rank`: 1 is the best, equal ranks are ties, None is not ranked (skipped). `score`: a reward's or a rater's number,
    more is better. `liked`: a thumb. `end`: "length" when its writer ran out of tokens, so that nobody learns to stop
    there. `source` says who wrote it.
    """

    text: str
    rank: int | None = None
    score: float | None = None
    liked: bool | None = None
    end: Literal["stop", "length"] = "stop"
    source: str = ""


@dataclass(frozen=True, slots=True)
class Ranking:
    """A prompt (`messages`, the last of them no assistant's) with any number of answers.

    Rows of one `group` stand on one side of every split ("": the prompt is the group). `annotator` judged; `facts`
    are what reward functions may read, such as {"gold": "42"}; `provenance` is read by nobody.
    """

    id: str
    messages: tuple[dict[str, Any], ...] = field(hash=False)
    answers: tuple[Answer, ...] = ()
    group: str = ""
    annotator: str = ""
    facts: dict[str, str] = field(default_factory=dict, hash=False)
    tools: tuple[dict[str, Any], ...] = field(default=(), hash=False)
    provenance: dict[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Pair:
    """Of two answers to one prompt the one that was preferred, and the other. `margin` says by how much, where that is
    known; the weights of all pairs of one ranking sum to 1, so that a prompt counts once."""

    prompt: Ranking
    chosen: Answer
    rejected: Answer
    margin: float | None = None
    weight: float = 1.0


def write_rankings(path: str | os.PathLike[str], rows: Iterable[Ranking]) -> int:
    """Write rankings as JSONL, atomically; returns how many. Fields that say nothing are left out.

    Raises FormatError for text that is not valid Unicode, ArtifactError when the disk is full.
    """
    return write_lines(path, rows, as_line, lambda row: f"ranking {row.id!r}")


def as_line(row: Ranking) -> bytes:
    """A ranking as a line of JSON."""
    made: dict[str, Any] = {"id": row.id, "messages": list(row.messages)}
    if row.answers:
        made["answers"] = [_told(one) for one in row.answers]
    for name in ("group", "annotator", "facts", "provenance"):
        if value := getattr(row, name):
            made[name] = value
    if row.tools:
        made["tools"] = list(row.tools)
    return json.dumps(made, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _told(answer: Answer) -> dict[str, Any]:
    made: dict[str, Any] = {"text": answer.text}
    for name in ("rank", "score", "liked"):
        if (value := getattr(answer, name)) is not None:
            made[name] = value
    if answer.end != "stop":
        made["end"] = answer.end
    if answer.source:
        made["source"] = answer.source
    return made


def read_rankings(path: str | os.PathLike[str]) -> Iterator[Ranking]:
    """The rankings of a JSONL file, in order. Raises FormatError, naming file and line, for anything else."""
    for number, line in read_lines(Path(path), "rankings"):
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{where}: not valid JSON: {error}") from error
        yield ranking(row, where, f"line-{number}")


_FIELDS = ("id", "messages", "answers", "group", "annotator", "facts", "tools", "provenance")
_ANSWER_FIELDS = ("text", "rank", "score", "liked", "end", "source")


def ranking(row: Any, where: str, default_id: str) -> Ranking:
    """A ranking from the values of a row. Raises FormatError that begins with `where`."""
    _known(row, _FIELDS, where)
    identity, messages = row.get("id", default_id), row.get("messages")
    group, annotator = row.get("group", ""), row.get("annotator", "")
    for name, value in (("id", identity), ("group", group), ("annotator", annotator)):
        if not isinstance(value, str):
            raise FormatError(f"{where}: {name} must be text, found {value!r:.60}.")
    if not isinstance(messages, list) or not messages:
        raise FormatError(f"{where}: messages must be a list of at least one message.")
    check_messages(messages, where)
    if messages[-1]["role"] == "assistant":
        raise FormatError(
            f"{where}: the last message is the assistant's; the prompt ends before what is judged."
        )
    answers = row.get("answers", [])
    if not isinstance(answers, list) or len(answers) > MAX_ANSWERS:
        raise FormatError(f"{where}: answers must be a list of at most {MAX_ANSWERS:,}.")
    tools = objects(row.get("tools", []), f"{where}: tools")
    return Ranking(
        identity,
        tuple(messages),
        tuple(_answer(one, f"{where}: answers[{i}]") for i, one in enumerate(answers)),
        group,
        annotator,
        texts(row.get("facts", {}), f"{where}: facts"),
        tools,
        texts(row.get("provenance", {}), f"{where}: provenance"),
    )


def _answer(row: Any, where: str) -> Answer:
    _known(row, _ANSWER_FIELDS, where)
    text, rank, score, liked = (row.get(name) for name in ("text", "rank", "score", "liked"))
    if not isinstance(text, str) or not isinstance(row.get("source", ""), str):
        raise FormatError(f"{where}: text and source must be text.")
    if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int) or rank < 1):
        raise FormatError(f"{where}.rank: expected 1 (the best), 2, ..., found {rank!r:.60}.")
    number = isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score)
    if score is not None and not number:
        raise FormatError(f"{where}.score: expected a number, found {score!r:.60}.")
    if liked is not None and not isinstance(liked, bool):
        raise FormatError(f"{where}.liked: expected true or false, found {liked!r:.60}.")
    end = row.get("end", "stop")
    if end not in ("stop", "length"):
        raise FormatError(f'{where}.end: expected "stop" or "length", found {end!r:.60}.')
    return Answer(text, rank, None if score is None else float(score), liked, end, row.get("source", ""))


def _known(row: Any, fields: tuple[str, ...], where: str) -> None:
    if not isinstance(row, Mapping):
        raise FormatError(f"{where}: expected an object, found {type(row).__name__}.")
    for key in row:
        if key not in fields:
            raise FormatError(f"{where}: unknown key {key!r}{did_you_mean(key, fields)}.")


def mean_rewards(summary: Mapping[str, Any]) -> dict[str, float]:
    """By name the mean of each reward over the answers to held-out prompts, from the summary of a stage `rank`."""
    side = summary.get("heldout") or {}
    return {key.removeprefix("reward."): one for key, one in side.items() if key.startswith("reward.")}
