"""The known forms of a row with judged answers, told by its columns, and the rankings that each becomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from matura.core import preferences
from matura.core.errors import FormatError
from matura.core.preferences import Answer, Ranking
from matura.data.conversations.forms import ANSWERS, MESSAGES, near
from matura.data.conversations.messages import Message, check_json, message, text, tools_of
from matura.data.preferences import candidates, trees
from matura.data.preferences.asked import (
    LAST_QUESTION,
    QUESTIONS,
    answered,
    check_prompt,
    is_dialogue,
    joined,
    prompt,
    turns,
)

DIFFER, EQUAL = "chosen and rejected answer different prompts", "chosen equals rejected"
GOLD = ("gold", "ground_truth")
"""Columns with the right answer, which becomes the fact `gold`."""
_SCORES = (("score_chosen", "score_rejected"), ("chosen_score", "rejected_score"))
_BESIDE = (
    "chosen",
    "rejected",
    "label",
    "instruction",
    "context",
    "history",
    "system",
    "system_prompt",
    "tools",
)
COLUMNS = frozenset(
    (*QUESTIONS, LAST_QUESTION, *ANSWERS, *MESSAGES, *_BESIDE, *GOLD, *sum(_SCORES, ()), *candidates.COLUMNS)
).union(trees.COLUMNS, ("id", "messages", "answers", "group", "annotator", "facts", "provenance"))
"""All columns that are read."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that is in order and says nothing about what is preferred."""

    why: str


def form_of(values: Mapping[str, Any]) -> str:
    """The form that a row shows; the first that fits, in the order below. Raises FormatError when none does."""
    has = {name for name, value in values.items() if value is not None}
    if isinstance(values.get("prompt"), Mapping) and has.intersection(("message_tree_id", "tree_state")):
        return "oasst"
    if has.issuperset(("message_id", "role", "text")):
        return "oasst_messages"
    if has.issuperset(("chosen", "rejected")):
        return "hh" if is_dialogue(values["chosen"]) and not has.intersection(QUESTIONS) else "pairs"
    if "messages" in has and has.intersection(("answers", "facts", "group", "annotator")):
        return "rankings"
    if isinstance(values.get("label"), bool) and has.intersection((*ANSWERS, *MESSAGES)):
        return "thumbs"
    if candidates.has(values):
        return "answers"
    if "label" in has and has.intersection(ANSWERS):
        raise FormatError(_no_thumb(values["label"]))
    names = sorted(f"{name}{'' if name in has else ' (null)'}" for name in values)
    shown = ", ".join(names[:20]) or "none"
    known = (
        "messages and answers; an Open Assistant tree; chosen and rejected, with or without a prompt; prompt, "
        "completion and label; prompt and completions with scores"
    )
    raise FormatError(
        f"the columns ({shown}) fit none of the known forms ({known}). Name them, for example with "
        "data.columns.prompt=NAME data.columns.chosen=NAME"
    )


def read(form: str, values: Mapping[str, Any], place: str) -> Iterator[Ranking | Dropped]:
    """The rankings of a row. Raises FormatError saying what is wrong with it."""
    yield from _READERS[form](values, place)


def _rankings(values: Mapping[str, Any], place: str) -> Iterator[Ranking]:
    """Our own form, as `write_rankings` writes it."""
    found = preferences.ranking({k: v for k, v in values.items() if v is not None}, "ranking", place)
    messages = [message(one, f"messages[{i}]") for i, one in enumerate(found.messages)]
    for i, answer in enumerate(found.answers):
        text(answer.text, f"answers[{i}].text")
    check_prompt(messages, "messages")
    check_json(values, "ranking")
    yield found


def _pairs(values: Mapping[str, Any], place: str) -> Iterator[Ranking | Dropped]:
    """Chosen and rejected, as texts or messages. The prompt is a column, or the messages before the last ones."""
    name, asked = prompt(values)
    (before, chosen), (other, rejected) = (
        _answered(values, side, name, asked) for side in ("chosen", "rejected")
    )
    yield _pair(values, place, before, chosen, other, rejected)


def _answered(
    values: Mapping[str, Any], side: str, name: str, asked: list[Message]
) -> tuple[list[Message], Message]:
    """What one side answers, and its answer."""
    value = values.get(side)
    if value is None:
        raise FormatError(f"has no {side}" + near(side, values))
    if is_dialogue(value):
        *before, last = turns(value, side)
        found = [*joined(before), last]
    else:
        found = answered(value, side)
    if found[0]["role"] == "assistant":
        if not asked:
            raise FormatError(
                f"{side}: where its prompt ends cannot be told; give a column prompt, or conversations as messages"
            )
        found = [*asked, *found]
    elif asked and name not in MESSAGES and not _holds(found, asked):
        raise FormatError(f"{side}: holds a conversation, but not with what is asked in {name}")
    if found[-1]["role"] != "assistant":
        raise FormatError(f"{side}: ends with a {found[-1]['role']}'s message, not an assistant's")
    if found[-1].get("tool_calls"):
        raise FormatError(f"{side}: an answer that calls tools cannot be compared; only texts can")
    return [{key: one[key] for key in one if key != "weight"} for one in found[:-1]], found[-1]


def _holds(messages: list[Message], asked: list[Message]) -> bool:
    """Whether a conversation has the last thing that was asked in it."""
    return any(
        one["role"] == "user" and one["content"].strip() == asked[-1]["content"].strip() for one in messages
    )


def _pair(
    values: Mapping[str, Any],
    place: str,
    before: list[Message],
    chosen: Message,
    other: list[Message],
    rejected: Message,
) -> Ranking | Dropped:
    if before != other:
        return Dropped(DIFFER)
    check_prompt(before, "the prompt")
    if chosen["content"] == rejected["content"]:
        return Dropped(EQUAL)
    scores: list[float | None] = [None, None]
    for names in _SCORES:
        if all(values.get(name) is not None for name in names):
            scores = [candidates.score(values[name], name) for name in names]
    texts = (chosen["content"], rejected["content"])
    answers = tuple(
        Answer(one, rank, score) for rank, (one, score) in enumerate(zip(texts, scores, strict=True), 1)
    )
    return _ranking(values, place, before, answers)


def _thumbs(values: Mapping[str, Any], place: str) -> Iterator[Ranking]:
    """A prompt with one completion and a boolean, or a conversation whose last answer it judges."""
    label = values.get("label")
    if not isinstance(label, bool):
        raise FormatError(_no_thumb(label))
    _, asked = prompt(values)
    name = next((name for name in ANSWERS if values.get(name) is not None and name != LAST_QUESTION), None)
    last = question_and_answer(asked, answered(values[name], name) if name else [])
    if last[1] is None:
        raise FormatError("has no completion" + near("completion", values))
    yield _ranking(values, place, last[0], (Answer(last[1], liked=label),))


def _no_thumb(label: Any) -> str:
    return f"label: expected true or false, found {label!r:.60}"


def question_and_answer(asked: list[Message], answer: list[Message]) -> tuple[list[Message], str | None]:
    """What comes before the last answer, and that answer, if the messages end with one."""
    together = [{key: one[key] for key in one if key != "weight"} for one in (*asked, *answer)]
    if not together or together[-1]["role"] != "assistant":
        return together, None
    return together[:-1], together[-1]["content"]


def _answers(values: Mapping[str, Any], place: str) -> Iterator[Ranking]:
    """A prompt with any number of answers, each with a score, a rank or a boolean."""
    _, asked = prompt(values)
    yield _ranking(values, place, asked, candidates.answers(values))


def _ranking(
    values: Mapping[str, Any], place: str, asked: list[Message], answers: tuple[Answer, ...]
) -> Ranking:
    if not asked:
        raise FormatError("has no prompt" + near("prompt", values))
    check_prompt(asked, "the prompt")
    return Ranking(place, tuple(asked), answers, facts=gold(values), tools=tools_of(values.get("tools")))


def gold(values: Mapping[str, Any]) -> dict[str, str]:
    """The right answer, if a column holds it."""
    name = next((name for name in GOLD if isinstance(values.get(name), str)), None)
    return {"gold": text(values[name], name)} if name else {}


_READERS: dict[str, Callable[[Mapping[str, Any], str], Iterator[Ranking | Dropped]]] = {
    "rankings": _rankings,
    "oasst": trees.rankings,
    "hh": _pairs,
    "pairs": _pairs,
    "thumbs": _thumbs,
    "answers": _answers,
}
