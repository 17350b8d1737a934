"""Sweeps: one stage of a recipe with several values of a setting becomes several stages.

    tuned: {stage: finetune, ..., sweep: {lora.rank: [2, 8], optimizer.lr: [1e-4, 5e-4]}}
    exam: {stage: evaluate, model: $tuned, ...}

stands for tuned-rank2-lr0_0001, ..., tuned-rank8-lr0_0005, and an exam of each: a stage that uses a swept one is swept
with it. What follows is an ordinary recipe; nothing behind it knows of sweeps.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from matura.core import config as configs
from matura.core.config import Place
from matura.core.errors import ConfigError

KEY = "sweep"
MAX_VARIANTS = 64
"""Stages that one stage may become."""

Axis = tuple[str, str]
"""A stage and the setting of it that is swept."""
Point = Mapping[Axis, int]
"""Which of its values every axis has."""
Complain = Callable[[Place, str], None]


def expand(stages: Mapping[str, Any], complain: Complain) -> tuple[dict[str, Any], dict[str, str]]:
    """The stages with all sweeps written out, and the stage each new one came from. `complain(place, message)` is told
    what is wrong."""
    values: dict[Axis, list[Any]] = {}
    for name, settings in stages.items():
        for setting, listed in _swept(name, settings, complain):
            values[name, setting] = listed
    axes = _axes(stages, values)
    made: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for name, settings in stages.items():
        points = list(_points(axes[name], values))
        if len(points) > MAX_VARIANTS:
            complain(
                ("stages", name), f"becomes {len(points)} stages by its sweeps; the most are {MAX_VARIANTS}"
            )
            continue
        for point in points:
            new = name + _suffix(axes[name], point, values)
            if new in made or (new != name and new in stages):
                complain(
                    ("stages", name), f"two of its stages would be called {new}; give other values or names"
                )
            made[new], origin[new] = _variant(name, settings, point, stages, axes, values, complain), name
    return made, origin


def _swept(name: str, settings: Any, complain: Complain) -> Iterator[tuple[str, list[Any]]]:
    given = settings.get(KEY) if isinstance(settings, dict) else None
    if given is None:
        return
    if not isinstance(given, dict) or not given:
        complain(("stages", name, KEY), "expected settings with lists of values, such as {lora.rank: [2, 8]}")
        return
    for setting, listed in given.items():
        if isinstance(listed, list) and listed:
            yield str(setting), listed
        else:
            complain(("stages", name, KEY, setting), f"expected a list of values, got {json.dumps(listed)}")


def _axes(stages: Mapping[str, Any], values: Mapping[Axis, list[Any]]) -> dict[str, list[Axis]]:
    """The axes of every stage: its own and those of the stages whose outputs it uses, in the order of the recipe."""
    own: dict[str, set[Axis]] = {name: {axis for axis in values if axis[0] == name} for name in stages}
    changed = True
    while changed:
        changed = False
        for name, settings in stages.items():
            wider = own[name].union(*(own[used] for used in _uses(settings, stages)))
            changed |= wider != own[name]
            own[name] = wider
    order = list(values)
    return {name: sorted(found, key=order.index) for name, found in own.items()}


def _uses(settings: Any, stages: Mapping[str, Any]) -> Iterator[str]:
    """The stages that `$names` anywhere in the settings refer to."""
    if isinstance(settings, str) and settings.startswith("$") and settings[1:] in stages:
        yield settings[1:]
    elif isinstance(settings, dict):
        for key, value in settings.items():
            if key != "after":
                yield from _uses(value, stages)
    elif isinstance(settings, list):
        for value in settings:
            yield from _uses(value, stages)


def _points(axes: list[Axis], values: Mapping[Axis, list[Any]]) -> Iterator[Point]:
    for chosen in itertools.product(*(range(len(values[axis])) for axis in axes)):
        yield dict(zip(axes, chosen, strict=True))


def _suffix(axes: list[Axis], point: Point, values: Mapping[Axis, list[Any]]) -> str:
    """What is added to a stage's name: -rank8-lr0_0005."""
    return "".join(
        f"-{axis[1].rpartition('.')[2]}{_label(values[axis][point[axis]], point[axis])}" for axis in axes
    )


def _label(value: Any, index: int) -> str:
    if isinstance(value, bool | str | int):
        text = str(value).lower() if isinstance(value, bool) else str(value)
    else:
        text = f"{value:g}" if isinstance(value, float) else str(index + 1)
    return re.sub(r"[^A-Za-z0-9-]", "_", text)


def _variant(
    name: str,
    settings: Any,
    point: Point,
    stages: Mapping[str, Any],
    axes: Mapping[str, list[Axis]],
    values: Mapping[Axis, list[Any]],
    complain: Complain,
) -> Any:
    """The settings of one stage at one point."""
    if not isinstance(settings, dict):
        return settings

    def names(used: str) -> list[str]:
        """The variants of another stage that agree with this point."""
        agreeing = (
            other
            for other in _points(axes[used], values)
            if all(point.get(axis, chosen) == chosen for axis, chosen in other.items())
        )
        return [used + _suffix(axes[used], other, values) for other in agreeing]

    def renamed(value: Any) -> Any:
        if isinstance(value, str) and value.startswith("$") and value[1:] in stages:
            return "$" + names(value[1:])[0]
        if isinstance(value, dict):
            return {key: renamed(inner) for key, inner in value.items()}
        return [renamed(inner) for inner in value] if isinstance(value, list) else value

    result = {key: renamed(value) for key, value in settings.items() if key not in (KEY, "after")}
    if "after" in settings:
        result["after"] = _after(settings["after"], stages, names)
    for axis, chosen in point.items():
        if axis[0] == name:
            try:
                text = json.dumps(values[axis][chosen])
                result = configs.set_dotted(result, f"{axis[1]}={text}")
            except ConfigError as error:
                complain(("stages", name, KEY, axis[1]), str(error))
    return result


def _after(given: Any, stages: Mapping[str, Any], names: Callable[[str], list[str]]) -> Any:
    """Only an order: a stage waits for all variants of another that agree with it."""
    listed = given if isinstance(given, list) else [given]
    found: list[Any] = []
    for one in listed:
        known = isinstance(one, str) and one.removeprefix("$") in stages
        found += names(one.removeprefix("$")) if known else [one]
    return found if isinstance(given, list) or len(found) != 1 else found[0]
