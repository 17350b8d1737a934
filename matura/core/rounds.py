"""A group of rounds as it is written in a recipe, checked: how many, from what, until when, and what changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from matura.core.config import Place, did_you_mean

KEY, STAGES = "repeat", "stages"
KEYS = (KEY, "while", "until", "first", "from", STAGES)
MAX_ROUNDS = 100
RESERVED = ("previous", "round")
"""No stage and no group may have these names."""
PREVIOUS = "$previous."

Complain = Callable[[Place, str], None]
Bad = Callable[..., None]


@dataclass(frozen=True)
class Rounds:
    """A group that was written out. `rounds` has, for each round, the stages by their names in the group; `starts` says
    what stands for a stage before the first round: another stage, or the input (stage, setting) that took it."""

    name: str
    rounds: tuple[Mapping[str, str], ...]
    gates: tuple[str, ...] = ()
    mode: Literal["while", "until"] = "while"
    starts: Mapping[str, str | tuple[str, str]] = field(default_factory=dict)

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
class Group:
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
                made = merged(made, self.changes[start].get(short, {}))
        return made


def merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with changes: groups of settings key by key, everything else (lists too) replaced."""
    made = dict(settings)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(made.get(key), dict)
        made[key] = merged(made[key], value) if both else value
    return made


def is_group(raw: Any) -> bool:
    """Whether this is a group of rounds and no stage."""
    return isinstance(raw, dict) and "stage" not in raw and (KEY in raw or STAGES in raw)


def read(name: str, raw: dict[str, Any], stages: Mapping[str, Any], complain: Complain) -> Group | None:
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
    used = {short for settings in inner.values() for short in previous_in(settings)}
    used |= {short for short in inner if f"${name}.{short}" in set(texts(dict(stages)))}
    first = _first(raw, inner, used, bad)
    changes = _changes(raw, inner, bad)
    if wrong:
        return None
    return Group(name, int(count or 1), inner, gates, mode, first, changes)


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


def _first(raw: Mapping[str, Any], inner: Mapping[str, Any], used: set[str], bad: Bad) -> dict[str, Any]:
    first = raw.get("first", {})
    if not isinstance(first, dict):
        bad("expected what the first round starts from, such as {tuned: $start}", "first")
        return {}
    for short, value in first.items():
        if short not in inner:
            bad(f"there is no stage {short!r} in these rounds{did_you_mean(short, inner)}", "first", short)
        elif not isinstance(value, str) and value is not None:
            bad(f"expected $stage, a reference or null for nothing, got {value!r:.60}", "first", short)
        elif value is not None and short not in used:
            bad(f"would do nothing: no stage uses {PREVIOUS}{short}", "first", short)
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


def previous_in(value: Any) -> Iterator[str]:
    """The stages of the round before that are named anywhere in a value."""
    return (one.removeprefix(PREVIOUS) for one in texts(value) if one.startswith(PREVIOUS))


def texts(value: Any) -> Iterator[str]:
    """The texts anywhere in a value."""
    return (text for _, text in placed_texts(value))


def placed_texts(value: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """The texts anywhere in a value that stands at `place`, each with its own place."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from placed_texts(one, (*place, key))
