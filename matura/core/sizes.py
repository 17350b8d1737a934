"""Sizes: one recipe at several scales.

    size: small                          # the default
    sizes:
      tiny:  {model: {sizes: {tokens: 500k}}, rounds: {repeat: 1}}
      small: {}
      large: {model: {sizes: {tokens: 2B}}, samples: null}
    stages: ...

A size is settings over those in `stages`, merged group by group; null in the place of a stage leaves it out (see
`core/left_out.py`). `size=tiny` on the command line chooses another. What follows is an ordinary recipe; nothing behind
it knows of sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from matura.core.config import Place, did_you_mean
from matura.core.problems import ABOUT_NAMES, NAME, Found, Problems
from matura.core.rounds import STAGES, is_group, merged

KEY, SIZES = "size", "sizes"
MAX_SIZES = 16

Made = TypeVar("Made")
Check = Callable[[dict[str, Any], Iterable[str], Problems], Made]
"""Checks stages with overrides, and makes something of them; what is wrong becomes a problem."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of a recipe and the one that is asked for. A recipe without sizes has one, without a name."""

    changes: Mapping[str, Mapping[str, Any]]  # size -> stage -> settings, or None: left out
    default: str
    chosen: str

    def title(self, name: str) -> str:
        """The name of the run: in another size than the default a name of its own, so that outputs stay apart."""
        return name if self.chosen == self.default else f"{name}-{self.chosen}"


def read(
    values: Mapping[str, Any], stages: Mapping[str, Any], overrides: Iterable[str], problems: Problems
) -> tuple[Sizes, list[str]]:
    """The sizes of a recipe, and the overrides but `size=NAME`. What is wrong becomes a problem."""
    changes = _all_changes(values[SIZES], stages, problems) if SIZES in values else {}
    default = _default(values, changes, problems)
    chosen, others = default, []
    for assignment in overrides:
        key, equals, name = assignment.partition("=")
        if key.strip() != KEY or not equals:
            others.append(assignment)
        elif name.strip() in changes:
            chosen = name.strip()
        elif changes:
            problems.say(f"'{assignment}': there is no such size{did_you_mean(name.strip(), changes)}")
        elif SIZES not in values:
            problems.say(f"'{assignment}': this recipe has no `sizes`")
    return Sizes(changes if chosen in changes else {"": {}, **changes}, default, chosen), others


def check(
    sizes: Sizes, stages: dict[str, Any], overrides: Iterable[str], problems: Problems, run: Check[Made]
) -> Made:
    """What `run` makes of the stages in the chosen size. The other sizes are checked as they are written, and told is
    what they alone made wrong: what else is missing there may be meant for the command line."""

    def tried(changes: Mapping[str, Any], given: Iterable[str]) -> tuple[Made, Problems]:
        aside = problems.aside()
        return run(merged(stages, changes), given, aside), aside

    made, wrong = tried(sizes.changes[sizes.chosen], overrides)
    own = _own(sizes.chosen, wrong, lambda: tried({}, overrides)[1])
    problems.found += [one for one in wrong.found if one not in own]
    _tell(sizes.chosen, own, problems)
    for size, changes in sizes.changes.items():
        if size != sizes.chosen and changes:
            _tell(size, _own(size, tried(changes, ())[1], lambda: tried({}, ())[1]), problems)
    return made


def _own(size: str, wrong: Problems, plain: Callable[[], Problems]) -> list[Found]:
    """The problems that a size made: in a stage that it changes, and not there without it."""
    touched = [one for one in wrong.found if one.line and _written(size, one.stage) in wrong.lines]
    known = {(one.place, one.message) for one in plain().found} if touched else set()
    return [one for one in touched if (one.place, one.message) not in known]


def _tell(size: str, own: list[Found], problems: Problems) -> None:
    for one in own:
        problems.add(_written(size, one.place), one.message)


def _written(size: str, place: Place) -> Place:
    """Where a size says what stands at a place in `stages`."""
    return (SIZES, size, *place[1:])


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of both keys, for names that match `name`."""
    names = {"propertyNames": {"pattern": f"^{name}$"}}
    settings = {"anyOf": [{"type": "object", "not": {"required": ["stage"]}}, {"type": "null"}]}
    return {
        KEY: {"type": "string", "pattern": f"^{name}$", "description": "The default, one of `sizes`."},
        SIZES: {
            "type": "object",
            "minProperties": 1,
            "maxProperties": MAX_SIZES,
            "description": "The recipe at other scales: settings over those in `stages`, by size and stage; null "
            "leaves a stage out.",
            **names,
            "additionalProperties": {"type": "object", **names, "additionalProperties": settings},
        },
    }


def _default(values: Mapping[str, Any], changes: Mapping[str, Any], problems: Problems) -> str:
    """The size that the recipe names, or "" when it has none or names it wrongly."""
    given = values.get(KEY)
    if SIZES not in values:
        if KEY in values:
            problems.add((KEY,), "would do nothing without `sizes`")
    elif KEY not in values:
        known = f": {', '.join(changes)}" if changes else ""
        problems.add((SIZES,), f"needs a default; add `size` with one of them{known}")
    elif not isinstance(given, str):
        problems.add(
            (KEY,), f"expected the name of a size, got {given!r}; quote it if it looks like a number"
        )
    elif given in changes:
        return given
    elif changes:
        problems.add((KEY,), f"there is no size {given!r}{did_you_mean(given, changes)}")
    return ""


def _all_changes(given: Any, stages: Mapping[str, Any], problems: Problems) -> dict[str, dict[str, Any]]:
    if not isinstance(given, dict) or not given:
        problems.add((SIZES,), "expected settings by size and stage: {tiny: {tuned: {...}}, small: {}}")
        return {}
    if len(given) > MAX_SIZES:
        problems.add((SIZES,), f"there are {len(given)} sizes; the most are {MAX_SIZES}")
        given = dict(list(given.items())[:MAX_SIZES])
    found: dict[str, dict[str, Any]] = {}
    for size, changes in given.items():
        if not NAME.fullmatch(size):
            problems.add((SIZES, size), f"the name {ABOUT_NAMES}")
        found[size] = _changes(changes, stages, (SIZES, size), problems)
    return found


def _changes(given: Any, stages: Mapping[str, Any], place: Place, problems: Problems) -> dict[str, Any]:
    """What is to be merged into stages: settings of those that exist, or None; the rest is told."""
    if not isinstance(given, dict):
        problems.add(place, f"expected stages with settings, or {{}} for no change, got {given!r:.60}")
        return {}
    good: dict[str, Any] = {}
    for name, settings in given.items():
        here, raw = (*place, name), stages.get(name)
        if name not in stages:
            problems.add(here, f"there is no stage '{name}'{did_you_mean(name, stages)}")
        elif settings is None:
            good[name] = None
        elif not isinstance(settings, dict):
            wrong = "expected settings, {key: value}, or null to leave the stage out"
            problems.add(here, f"{wrong}, got {settings!r:.60}")
        elif "stage" in settings:
            problems.add(
                (*here, "stage"), "a stage is of the same kind in every size; give only other settings"
            )
        elif isinstance(raw, dict):
            good[name] = settings
            if is_group(raw) and STAGES in settings and isinstance(raw.get(STAGES), dict):
                inner = _changes(settings[STAGES], raw[STAGES], (*here, STAGES), problems)
                good[name] = settings | {STAGES: inner}
    return good
