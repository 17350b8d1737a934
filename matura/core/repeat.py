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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from matura.core.config import Place, did_you_mean

KEY, STAGES = "repeat", "stages"
KEYS = (KEY, "while", "until", "first", "from", STAGES)
MAX_ROUNDS = 100
RESERVED = ("previous", "round")
"""No stage and no group may have these names."""

_ROUND = re.compile(r"\$round\b")
_PREVIOUS = "$previous."
Complain = Callable[[Place, str], None]


@dataclass(frozen=True)
class Rounds:
    """A group that was written out. `rounds` has, for each round, the stages by their names in the group; `starts` says
    which input of a stage of the first round takes what `first` names: (stage, setting)."""

    name: str
    rounds: tuple[Mapping[str, str], ...]
    gates: tuple[str, ...] = ()
    mode: Literal["while", "until"] = "while"
    starts: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def where(self, stage: str) -> tuple[int, str] | None:
        """(round, counted from 1; name in the group) of one of its stages."""
        return next(
            (
                (n, short)
                for n, one in enumerate(self.rounds, 1)
                for short, full in one.items()
                if full == stage
            ),
            None,
        )

    def gates_of(self, number: int) -> list[str]:
        """The stages of a round that decide whether there is another."""
        return [self.rounds[number - 1][gate] for gate in self.gates]


@dataclass(frozen=True)
class Expanded:
    """The stages with all rounds written out, where each new one was written, and the groups."""

    stages: dict[str, Any]
    origin: dict[str, Place]
    groups: tuple[Rounds, ...]


@dataclass(frozen=True)
class _Group:
    """A group as it is written, checked."""

    name: str
    count: int
    stages: dict[str, dict[str, Any]]
    gates: tuple[str, ...]
    mode: Literal["while", "until"]
    first: dict[str, Any]
    changes: dict[int, dict[str, dict[str, Any]]]

    @property
    def place(self) -> Place:
        return ("stages", self.name)

    def full(self, number: int, short: str) -> str:
        return f"{self.name}-{number}-{short}"

    def settings(self, number: int, short: str) -> dict[str, Any]:
        """What a stage is asked for in a round: as written, with the changes from this round or an earlier one on."""
        made = self.stages[short]
        for start in sorted(self.changes):
            if start <= number:
                made = _merged(made, self.changes[start].get(short, {}))
        return made


def expand(stages: Mapping[str, Any], complain: Complain) -> Expanded:
    """All rounds written out. `complain(place, message)` is told what is wrong."""
    groups = {
        name: group
        for name, raw in stages.items()
        if is_group(raw) and (group := _read(name, raw, stages, complain)) is not None
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


def is_group(raw: Any) -> bool:
    """Whether this is a group of rounds and no stage."""
    return isinstance(raw, dict) and "stage" not in raw and (KEY in raw or STAGES in raw)


def _read(name: str, raw: dict[str, Any], stages: Mapping[str, Any], complain: Complain) -> _Group | None:
    """A group as values; None when it cannot be written out. All that is wrong is told."""
    wrong: list[str] = []

    def bad(message: str, *place: str | int) -> None:
        wrong.append(message)
        complain(("stages", name, *place), message)

    for key in raw.keys() - set(KEYS):
        bad(f"unknown key{did_you_mean(key, KEYS)}", key)
    if name in RESERVED:
        bad(f"rounds cannot be called {name}; in a round ${name} has a meaning")
    count, inner = raw.get(KEY), raw.get(STAGES)
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_ROUNDS:
        bad(f"expected a number of rounds from 1 to {MAX_ROUNDS}, got {count!r}", KEY)
    if not isinstance(inner, dict) or not inner:
        bad("expected the stages of one round: name: {stage: KIND, ...}", STAGES)
        return None
    for short, settings in inner.items():
        if not isinstance(settings, dict):
            bad(f"expected settings, {{stage: KIND, ...}}, got {settings!r:.60}", STAGES, short)
        elif is_group(settings):
            bad("rounds cannot hold rounds; put one group after the other", STAGES, short)
        elif "sweep" in settings:
            bad(
                "rounds cannot be swept: run the recipe under another --name for each value",
                STAGES,
                short,
                "sweep",
            )
        if short in RESERVED:
            bad(f"a stage of a round cannot be called {short}; there ${short} has a meaning", STAGES, short)
    gates, mode = _gates(raw, inner, bad)
    first = _first(raw, inner, bad)
    changes = _changes(raw, inner, bad)
    if wrong:
        return None
    return _Group(name, int(count or 1), inner, gates, mode, first, changes)


Bad = Callable[..., None]


def _gates(
    raw: Mapping[str, Any], inner: Mapping[str, Any], bad: Bad
) -> tuple[tuple[str, ...], Literal["while", "until"]]:
    if "while" in raw and "until" in raw:
        bad("give either `while` (as long as gates pass) or `until` (one passes), and not both", "until")
    mode: Literal["while", "until"] = "until" if "until" in raw else "while"
    given = raw.get(mode)
    listed = [] if given is None else given if isinstance(given, list) and mode == "while" else [given]
    for one in listed:
        if not isinstance(one, str) or one not in inner:
            bad(f"there is no stage {one!r} in these rounds{did_you_mean(str(one), inner)}", mode)
    return tuple(str(one) for one in listed), mode


def _first(raw: Mapping[str, Any], inner: Mapping[str, Any], bad: Bad) -> dict[str, Any]:
    first = raw.get("first", {})
    if not isinstance(first, dict):
        bad("expected what the first round starts from, such as {tuned: $start}", "first")
        return {}
    used = {used for settings in inner.values() for used in _previous_in(settings)}
    for short, value in first.items():
        if short not in inner:
            bad(f"there is no stage {short!r} in these rounds{did_you_mean(short, inner)}", "first", short)
        elif not isinstance(value, str) and value is not None:
            bad(f"expected $stage, a reference or null for nothing, got {value!r:.60}", "first", short)
        elif short not in used:
            bad(f"would do nothing: no stage of a round uses {_PREVIOUS}{short}", "first", short)
    return first


def _changes(
    raw: Mapping[str, Any], inner: Mapping[str, Any], bad: Bad
) -> dict[int, dict[str, dict[str, Any]]]:
    given = raw.get("from", {})
    if not isinstance(given, dict):
        bad("expected settings by the round from which on they hold: {3: {ranked: {...}}}", "from")
        return {}
    count = raw.get(KEY)
    found: dict[int, dict[str, dict[str, Any]]] = {}
    for number, changes in given.items():
        if not str(number).isdecimal() or not 1 <= int(number) <= MAX_ROUNDS:
            bad(f"expected the number of a round, got {number!r}", "from", number)
        elif isinstance(count, int) and int(number) > count:
            bad(f"would do nothing: there are {count} rounds", "from", number)
        elif not isinstance(changes, dict):
            bad("expected stages with settings: {ranked: {...}}", "from", number)
        else:
            found[int(number)] = changes
            for short, settings in changes.items():
                if short not in inner:
                    bad(
                        f"there is no stage {short!r} in these rounds{did_you_mean(short, inner)}",
                        "from",
                        number,
                        short,
                    )
                elif not isinstance(settings, dict) or "stage" in settings:
                    bad("expected other settings of this stage; its kind stays", "from", number, short)
    return found


def _merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with changes, group by group."""
    made = dict(settings)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(made.get(key), dict)
        made[key] = _merged(made[key], value) if both else value
    return made


def _previous_in(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value.startswith(_PREVIOUS):
        yield value.removeprefix(_PREVIOUS)
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _previous_in(one)


_NOTHING = object()


def _written_out(
    group: _Group, groups: Mapping[str, _Group], complain: Complain
) -> tuple[Rounds, dict[str, Any], dict[str, Place]]:
    """The group's stages, round by round, and where each was written."""
    made: dict[str, Any] = {}
    starts: dict[str, tuple[str, str]] = {}
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
        if value.startswith(_PREVIOUS):
            return previous(value.removeprefix(_PREVIOUS), number, stage, place)
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
            complain(at, f"{_PREVIOUS}{short}: {where if known else missing}")
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


def _outside(raw: Any, groups: Mapping[str, _Group]) -> Any:
    """A stage outside of all groups, with $rounds.tuned as the last round's."""
    if not isinstance(raw, dict):
        return raw
    made = {key: _renamed(value, groups) for key, value in raw.items() if key != "after"}
    return made | _waiting(made, _names(raw.get("after")), groups)


def _renamed(value: Any, groups: Mapping[str, _Group]) -> Any:
    if isinstance(value, dict):
        return {key: _renamed(one, groups) for key, one in value.items()}
    if isinstance(value, list):
        return [_renamed(one, groups) for one in value]
    return _outer(value, groups) if isinstance(value, str) else value


def _outer(value: str, groups: Mapping[str, _Group]) -> str:
    """$rounds.tuned -> $rounds-3-tuned; everything else as it is."""
    name, dot, short = value.removeprefix("$").partition(".")
    if value.startswith("$") and dot and name in groups and short in groups[name].stages:
        return f"${groups[name].full(groups[name].count, short)}"
    return value


def _names(after: Any) -> list[Any]:
    """What `after` lists; the recipe checks it."""
    listed = [] if after is None else after if isinstance(after, list) else [after]
    return [one.removeprefix("$") if isinstance(one, str) else one for one in listed]


def _waiting(made: Any, after: list[Any], groups: Mapping[str, _Group]) -> dict[str, Any]:
    """`after` of a stage: what it names, the last round of a group that it names, and the last gates of every group
    whose outputs it uses, for they say which round's outputs those are."""
    found: list[Any] = []
    for one in after:
        group = groups.get(one) if isinstance(one, str) else None
        found += [group.full(group.count, short) for short in group.stages] if group else [one]
    for group in groups.values():
        last = {f"${group.full(group.count, short)}" for short in group.stages}
        if last & set(_texts(made)):
            found += [group.full(group.count, gate) for gate in group.gates]
    unique = [one for i, one in enumerate(found) if one not in found[:i]]
    return {"after": unique} if unique else {}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


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
