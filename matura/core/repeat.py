"""Rounds: a group of stages of a recipe that is repeated, each time from what the time before made.

    rounds:
      repeat: 3
      while: exam                          # another round only as long as this stage's gate passes
      first: {tuned: $start}               # what $previous.tuned is in the first round
      stages:
        sampled: {stage: sample, model: $previous.tuned, prompts: $skill, seed: $round}
        ranked:  {stage: rank, samples: $sampled, ...}
        tuned:   {stage: finetune, model: $previous.tuned, conversations: $ranked}
        exam:    {stage: evaluate, model: $tuned, parent: $previous.tuned}

stands for rounds-1-sampled, ..., rounds-3-exam. Outside of the group $rounds.tuned is what the last good round made.
What follows is an ordinary recipe; `core/course.py` knows when rounds end early.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from matura.core.config import Place, did_you_mean
from matura.core.rounds import (
    KEY,
    MAX_ROUNDS,
    PREVIOUS,
    STAGES,
    Complain,
    Group,
    Rounds,
    is_group,
    read,
    texts,
)

_ROUND = re.compile(r"\$round\b")


@dataclass(frozen=True)
class Expanded:
    """The stages with all rounds written out, where each new one was written, and the groups."""

    stages: dict[str, Any]
    origin: dict[str, Place]
    groups: tuple[Rounds, ...]


def expand(stages: Mapping[str, Any], complain: Complain) -> Expanded:
    """All rounds written out. `complain(place, message)` is told what is wrong."""
    groups = {
        name: group
        for name, raw in stages.items()
        if is_group(raw) and (group := read(name, raw, stages, complain)) is not None
    }
    made: dict[str, Any] = {}
    origin: dict[str, Place] = {}
    found: list[Rounds] = []
    for name, raw in stages.items():
        if name in groups:
            rounds, written, places = _written_out(groups[name], groups, complain)
            if taken := [one for one in written if one in stages or one in made]:
                complain(
                    ("stages", name),
                    f"one of its stages would be called {taken[0]}, and there is one already",
                )
            made |= written
            origin |= places
            found.append(rounds)
        elif not is_group(raw):
            made[name] = _outside(raw, groups)
            origin[name] = ("stages", name)
    return Expanded(made, origin, tuple(found))


_NOTHING = object()


def _written_out(
    group: Group, groups: Mapping[str, Group], complain: Complain
) -> tuple[Rounds, dict[str, Any], dict[str, Place]]:
    """The group's stages, round by round, and where each was written."""
    made: dict[str, Any] = {}
    starts: dict[str, str | tuple[str, str]] = {
        short: _outer(given, groups)[1:] for short, given in group.first.items() if str(given).startswith("$")
    }
    told: set[Place] = set()
    others = {name: one for name, one in groups.items() if name != group.name}

    def named(value: Any, number: int, stage: str, place: Place) -> Any:
        """A value of a setting with the names that it has outside of the group."""
        if isinstance(value, dict):
            inner = {key: named(one, number, stage, (*place, key)) for key, one in value.items()}
            return {key: one for key, one in inner.items() if one is not _NOTHING}
        if isinstance(value, list):
            return [one for item in value if (one := named(item, number, stage, place)) is not _NOTHING]
        if not isinstance(value, str):
            return value
        if value == "$round":
            return number
        if value.startswith(PREVIOUS):
            return previous(value.removeprefix(PREVIOUS), number, stage, place)
        if value.startswith("$") and value[1:] in group.stages:
            return f"${group.full(number, value[1:])}"
        return _outer(_ROUND.sub(str(number), value), others)

    def previous(short: str, number: int, stage: str, place: Place) -> Any:
        if number > 1 and short in group.stages:
            return f"${group.full(number - 1, short)}"
        if short in group.first:
            given = group.first[short]
            if given is None:
                return _NOTHING
            starts.setdefault(short, (group.full(1, stage), ".".join(map(str, place))))
            return _outer(given, others)
        at = (*group.place, STAGES, stage, *place)
        if at not in told:
            told.add(at)
            known = short in group.stages
            where = f"first: {{{short}: ...}} must say what it is in the first round (null for nothing)"
            missing = f"there is no stage {short!r} in these rounds{did_you_mean(short, group.stages)}"
            complain(at, f"{PREVIOUS}{short}: {where if known else missing}")
        return _NOTHING

    for number in range(1, group.count + 1):
        for short in group.stages:
            settings = group.settings(number, short)
            waits = _names(settings.get("after"))
            waits = [group.full(number, one) if one in group.stages else one for one in waits]
            if number > 1:
                waits += [group.full(number - 1, gate) for gate in group.gates]
            full = group.full(number, short)
            made[full] = {
                key: new
                for key, value in settings.items()
                if key != "after" and (new := named(value, number, short, (key,))) is not _NOTHING
            }
            made[full] |= _waiting(made[full], waits, others)
    shorts = list(group.stages)
    rounds = tuple({one: group.full(n, one) for one in shorts} for n in range(1, group.count + 1))
    origin: dict[str, Place] = {
        group.full(n, one): (*group.place, STAGES, one) for n in range(1, group.count + 1) for one in shorts
    }
    return Rounds(group.name, rounds, group.gates, group.mode, starts), made, origin


def _outside(raw: Any, groups: Mapping[str, Group]) -> Any:
    """A stage outside of all groups, with $rounds.tuned as the last round's."""
    if not isinstance(raw, dict):
        return raw
    made = {key: _renamed(value, groups) for key, value in raw.items() if key != "after"}
    return made | _waiting(made, _names(raw.get("after")), groups)


def _renamed(value: Any, groups: Mapping[str, Group]) -> Any:
    if isinstance(value, dict):
        return {key: _renamed(one, groups) for key, one in value.items()}
    if isinstance(value, list):
        return [_renamed(one, groups) for one in value]
    return _outer(value, groups) if isinstance(value, str) else value


def _outer(value: str, groups: Mapping[str, Group]) -> str:
    """$rounds.tuned -> $rounds-3-tuned; everything else as it is."""
    name, dot, short = value.removeprefix("$").partition(".")
    if value.startswith("$") and dot and name in groups and short in groups[name].stages:
        return f"${groups[name].full(groups[name].count, short)}"
    return value


def _names(after: Any) -> list[Any]:
    """What `after` lists; the recipe checks it."""
    listed = [] if after is None else after if isinstance(after, list) else [after]
    return [one.removeprefix("$") if isinstance(one, str) else one for one in listed]


def _waiting(made: Any, after: list[Any], groups: Mapping[str, Group]) -> dict[str, Any]:
    """`after` of a stage: what it names, the last round of a group that it names, and the last gates of every group
    whose outputs it uses, for they say which round's outputs those are."""
    found: list[Any] = []
    for one in after:
        group = groups.get(one) if isinstance(one, str) else None
        found += [group.full(group.count, short) for short in group.stages] if group else [one]
    for group in groups.values():
        last = {f"${group.full(group.count, short)}" for short in group.stages}
        if last & set(texts(made)):
            found += [group.full(group.count, gate) for gate in group.gates]
    unique = [one for i, one in enumerate(found) if one not in found[:i]]
    return {"after": unique} if unique else {}


def schema(stage: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The JSON Schema of a group of rounds whose stages follow the schema `stage` and whose names match `name`."""
    stages = {"type": "object", "propertyNames": {"pattern": f"^{name}$"}}
    text = {"type": "string"}
    return {
        "type": "object",
        "additionalProperties": False,
        "description": "A group of stages that is repeated.",
        "required": [KEY, STAGES],
        "properties": {
            KEY: {"type": "integer", "minimum": 1, "maximum": MAX_ROUNDS, "description": "How many rounds."},
            "while": {
                "anyOf": [text, {"type": "array", "items": text}],
                "description": "Stages of a round whose gates must pass, or there is no further round.",
            },
            "until": {
                **text,
                "description": "A stage of a round whose gate passes when the goal is reached.",
            },
            "first": {
                "type": "object",
                "additionalProperties": {"type": ["string", "null"]},
                "description": "What $previous.NAME is in the first round; null: the setting is left out.",
            },
            "from": {
                "type": "object",
                "propertyNames": {"pattern": "^[1-9][0-9]*$"},
                "additionalProperties": {"type": "object", "additionalProperties": {"type": "object"}},
                "description": "Settings that are others from a round on: {3: {ranked: {...}}}.",
            },
            STAGES: {**stages, "minProperties": 1, "additionalProperties": dict(stage)},
        },
    }


def allow_numbers(properties: dict[str, Any]) -> None:
    """Let `$round` stand for whole numbers in the schema of a stage."""
    for name, one in properties.items():
        if one.get("type") == "integer":
            kept = {key: one[key] for key in ("description", "default", "title") if key in one}
            properties[name] = {"anyOf": [one, {"const": "$round"}], **kept}
