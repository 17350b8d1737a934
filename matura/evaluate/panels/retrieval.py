"""Retrieval from long contexts, by likelihood against other numbers and by what is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matura.core.errors import ConfigError
from matura.core.panel_settings import Needle as Settings
from matura.evaluate import needle
from matura.evaluate.asking import Request, Write
from matura.evaluate.needle import Needle
from matura.evaluate.panels.figures import Figure
from matura.evaluate.panels.sheet import Figures, Replies, Room, Sheet, choices, scored, written


def sheet(settings: Settings, room: Room) -> Sheet | None:
    """Questions of every length and depth; one of each has a twin without the number. Raises ConfigError for a length
    that the models do not read."""
    if not settings.lengths:
        return None
    if (longest := max(settings.lengths)) > room.window - needle.ANSWER_TOKENS:
        raise ConfigError(
            f"panels.needle.lengths: {longest} tokens and an answer of {needle.ANSWER_TOKENS} do not fit the "
            f"{room.window} that are read; ask for less, or raise `window` up to the models' context"
        )
    build = (room.count, settings.lengths, settings.depths)
    asked = [*needle.grid(*build, settings.each), *needle.grid(*build, 1, present=False)]
    return Sheet(
        "needle",
        [one.id for one in asked],
        [_requests(one) for one in asked],
        lambda replies: _figures(asked, replies),
        lambda replies: [
            {"first": _first(one), "written": needle.found(question, written(one)[0])}
            for question, one in zip(asked, replies, strict=True)
        ],
    )


def _requests(one: Needle) -> list[Request]:
    numbers = choices(one.prompt, [one.answer, *one.decoys])
    return [*numbers, Write(one.prompt, ("\n", "."), needle.ANSWER_TOKENS)]


def _first(replies: Sequence[Any]) -> bool:
    """Whether the right number is the likeliest by itself."""
    right, *others = (one.logprob for one in scored(replies))
    return right > max(others)


def _figures(asked: Sequence[Needle], replies: Replies) -> Figures:
    found: Figures = []
    cells: dict[str, tuple[list[float], list[float]]] = {}
    for question, one in zip(asked, replies, strict=True):
        part = (
            f"{question.length} tokens, depth {question.depth:g}"
            if question.present
            else "without the number"
        )
        first, wrote = cells.setdefault(part, ([], []))
        first.append(float(_first(one)))
        wrote.append(float(needle.found(question, written(one)[0])))
    chance = asked[0].chance
    for part, (first, wrote) in cells.items():
        found.append(Figure("likeliest of the numbers", first, neutral=chance, part=part))
        found.append(Figure("written", wrote, neutral=0.0, part=part))
    return found
