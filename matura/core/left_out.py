"""Stages that are left out: null in their place, in a size or on the command line.

    size: small
    sizes:
      small: {look: null}
      taught: {lessons: null, tuned: {conversations: ~/mine.jsonl}}
    stages:
      lessons: {stage: synthesize, program: dates}
      tuned: {stage: finetune, model: smollm2-135m-instruct, conversations: $lessons}
      look: {stage: evaluate, model: $tuned}

What others still need stays, and is told. What follows is a recipe without the stages that are left out; nothing behind
it knows of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from matura.core.config import Place, dotted
from matura.core.rounds import PREVIOUS, STAGES, is_group, placed_texts

Complain = Callable[[Place, str], None]
Named = tuple[Place, Place]
"""Where a stage is named, and which: (name,), or of rounds (name, "stages", name)."""


def without(stages: Mapping[str, Any], written: Mapping[str, Any], complain: Complain) -> dict[str, Any]:
    """`stages` without those that are null there and not as they are `written`. If one of them is still needed,
    `complain(place, message)` is told, and all of them are there as they are written."""
    left = list(_left_out(stages, written))
    named = list(_named(stages)) if left else []
    needed = False
    for one in left:
        if needing := [dotted(where) for where, stage in named if stage[: len(one)] == one]:
            needed = True
            wrong = f"is left out, but needed by {' and '.join(needing)}"
            complain(("stages", *one), f"{wrong}: name something else there, or leave that out too")
    if needed:
        return {name: _restored(raw, written[name]) for name, raw in stages.items()}
    made = {name: _pruned(name, raw, left) for name, raw in stages.items() if (name,) not in left}
    if not made:
        complain(("stages",), "all are left out; keep at least one")
    return made


def is_left_out(stages: Mapping[str, Any], setting: Sequence[str]) -> bool:
    """Whether a setting (`a.b.c` in parts) would be one of a stage that is left out."""
    inner = _inner(stages.get(setting[0]))
    if len(setting) > 2 and setting[1] == STAGES and setting[2] in inner:
        return inner[setting[2]] is None
    return stages.get(setting[0]) is None


def _left_out(stages: Mapping[str, Any], written: Mapping[str, Any]) -> Iterator[Place]:
    for name, raw in stages.items():
        before, inner = written[name], _inner(written[name])
        if raw is None and isinstance(before, dict):
            yield (name,)
        for short, settings in _inner(raw).items():
            if settings is None and isinstance(inner.get(short), dict):
                yield (name, STAGES, short)


def _inner(raw: Any) -> Mapping[str, Any]:
    """The stages of rounds; none of a stage."""
    found = raw.get(STAGES) if is_group(raw) else None
    return found if isinstance(found, dict) else {}


def _restored(raw: Any, written: Any) -> Any:
    if not (inner := _inner(raw)):
        return written if raw is None else raw
    before = _inner(written)
    return raw | {STAGES: {short: _restored(one, before.get(short)) for short, one in inner.items()}}


def _pruned(name: str, raw: Any, left: Collection[Place]) -> Any:
    """A stage, or rounds without those of their stages that are left out and without what is said of these."""
    gone = {one[-1] for one in left if len(one) > 1 and one[0] == name}
    if not gone:
        return raw

    def rest(given: Any) -> Any:
        return {k: one for k, one in given.items() if k not in gone} if isinstance(given, dict) else given

    made = dict(raw) | {key: rest(raw[key]) for key in (STAGES, "first") if key in raw}
    if isinstance(changes := raw.get("from"), dict):
        made["from"] = {number: rest(settings) for number, settings in changes.items()}
    return made


def _named(stages: Mapping[str, Any]) -> Iterator[Named]:
    """Every place where a stage is named, but for those in stages that are left out."""
    for name, raw in stages.items():
        if is_group(raw):
            yield from _named_in_rounds(name, raw)
        else:
            yield from ((where, _stage(text)) for where, text in _names(raw, (name,)))


def _named_in_rounds(name: str, raw: Mapping[str, Any]) -> Iterator[Named]:
    inner = _inner(raw)

    def stage(text: str) -> Place:
        short = text.removeprefix(PREVIOUS[1:])
        return (name, STAGES, short) if short in inner else _stage(text)

    for key in ("while", "until"):
        yield from (((name, key), (name, STAGES, one)) for one in _listed(raw.get(key)))
    blocks: list[tuple[Place, Mapping[str, Any]]] = [((name, STAGES), inner)]
    if isinstance(changes := raw.get("from"), dict):
        blocks += [((name, "from", number), one) for number, one in changes.items() if isinstance(one, dict)]
    for place, block in blocks:
        for short, settings in block.items():
            if inner.get(short) is not None:
                yield from ((where, stage(text)) for where, text in _names(settings, (*place, short)))
    if isinstance(first := raw.get("first"), dict):
        kept = {short: value for short, value in first.items() if inner.get(short) is not None}
        yield from ((where, _stage(text)) for where, text in _names(kept, (name, "first")))


def _names(settings: Any, place: Place) -> Iterator[tuple[Place, str]]:
    """Where settings name a stage, and how: by what follows a $, and by what `after` lists."""
    if not isinstance(settings, dict):
        return
    for key, value in settings.items():
        if key == "after":
            yield from (((*place, key), one.removeprefix("$")) for one in _listed(value))
        else:
            found = placed_texts(value, (*place, key))
            yield from ((where, text[1:]) for where, text in found if text.startswith("$"))


def _stage(text: str) -> Place:
    """`tuned` is a stage, `rounds.tuned` one of rounds."""
    name, dot, short = text.partition(".")
    return (name, STAGES, short) if dot else (name,)


def _listed(value: Any) -> list[str]:
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]
