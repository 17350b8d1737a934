"""IFEval: which instructions does a model follow?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matura.core.panel_settings import Following
from matura.evaluate import ifeval, rows
from matura.evaluate.asking import Write
from matura.evaluate.panels.figures import Figure
from matura.evaluate.panels.sheet import Figures, Replies, Room, Sheet, written
from matura.evaluate.tasks import select

PLACES = ("ifeval/input_data.jsonl", "input_data.jsonl", "ifeval.jsonl")


def sheet(settings: Following, room: Room) -> Sheet | None:
    """The prompts as messages of a chat. Raises ConfigError without rows, FormatError for wrong ones."""
    if not settings.prompts:
        return None
    found, unknown = ifeval.read(one.row for one in rows.read(room.sources, PLACES, "ifeval"))
    prompts = select("ifeval", found, settings.prompts)
    tokens = min(settings.tokens, room.window // 2)
    notes = [f"Left out, since the detector does not know their language: {', '.join(unknown)}."] * bool(
        unknown
    )
    if tokens < settings.tokens:
        notes.append(f"Answers end at {tokens} tokens, half of what the model reads.")

    def graded(replies: Replies) -> list[ifeval.Followed]:
        return [ifeval.grade(prompt, written(one)[0]) for prompt, one in zip(prompts, replies, strict=True)]

    return Sheet(
        "ifeval",
        [prompt.id for prompt in prompts],
        [[Write(prompt.text, (), tokens, chat=True)] for prompt in prompts],
        lambda replies: _figures(prompts, graded(replies)),
        lambda replies: [_mark(one) for one in graded(replies)],
        notes,
    )


def _figures(prompts: Sequence[ifeval.Prompt], followed: Sequence[ifeval.Followed]) -> Figures:
    counted = [one.figures() for one in followed]
    figures: Figures = [
        Figure(name, [one[name][0] for one in counted], [one[name][1] for one in counted])
        for name in ifeval.FIGURES
    ]
    return [*figures, *_families(prompts, followed)]


def _families(prompts: Sequence[ifeval.Prompt], followed: Sequence[ifeval.Followed]) -> Figures:
    """The share of instructions that were strictly followed, by family; prompts are the items."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for prompt, one in zip(prompts, followed, strict=True):
        done: dict[str, list[float]] = {}
        for instruction, strict in zip(prompt.instructions, one.strict, strict=True):
            done.setdefault(instruction.kind.split(":")[0], []).append(float(strict))
        for family, values in done.items():
            sums, counts = found.setdefault(family, ([], []))
            sums.append(sum(values))
            counts.append(float(len(values)))
    return [Figure("instruction_strict", *found[family], part=family) for family in sorted(found)]


def _mark(one: ifeval.Followed) -> dict[str, Any]:
    return {"strict": list(one.strict), "loose": list(one.loose)}
