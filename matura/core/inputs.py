"""Inputs: the settings that name artifacts or raw data, wherever they stand in a config.

An input in a group is written with dots, as on the command line: `sources.wiki.path`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matura.core import wheels
from matura.core.config import Config, Input, Place, group_in, input_kinds

if TYPE_CHECKING:
    from matura.core.workspace import Workspace

Kinds = tuple[str, ...]
GENERAL_TEXT = ("forgetting.text", "front.text")
"""Inputs of which a wheel can be given."""


def one_of(kind: str) -> str:
    """A kind of input in a sentence: "a model", "an export", "tokens"."""
    return kind if kind.endswith("s") and kind != "corpus" else f"a{'n' * (kind[:1] in 'aeiou')} {kind}"


def walk(config: Config, prefix: str = "") -> Iterator[tuple[str, Kinds, Any]]:
    """(dotted name, kinds, value) of every input setting of a config and of the groups in it."""
    kinds = input_kinds(type(config))
    for name in type(config).model_fields:
        value = getattr(config, name)
        if name in kinds:
            yield prefix + name, kinds[name], value
            continue
        for key, inner in _groups(value):
            yield from walk(inner, f"{prefix}{name}.{key}." if key else f"{prefix}{name}.")


def _groups(value: Any) -> Iterator[tuple[str, Config]]:
    """Groups of settings that a value is or holds, each with its key in it."""
    if isinstance(value, Config):
        yield "", value
    elif isinstance(value, dict):
        yield from ((str(key), one) for key, one in value.items() if isinstance(one, Config))


def kinds_of(config: Config) -> dict[str, Kinds]:
    """The input settings of a config and the kinds each accepts."""
    return {name: kinds for name, kinds, _ in walk(config)}


def inputs_of(config: Config) -> dict[str, str]:
    """The references a config names, by setting; those left at None are skipped."""
    return {name: str(value) for name, _, value in walk(config) if value is not None}


def located(config: Config, setting: str, workspace: Workspace | None = None) -> Path:
    """Where an input is on this machine: a path, or for general text a wheel, which is fetched when it is not there."""
    text = inputs_of(config)[setting]
    if setting not in GENERAL_TEXT:
        return Path(text).expanduser()
    from matura.core.workspace import Workspace

    return wheels.located(text, (workspace or Workspace()).downloads)


def settings_of(config: Config) -> dict[str, Any]:
    """The resolved settings without the input references, as plain JSON values: what a result depends on."""
    settings = config.model_dump(mode="json")
    for name in kinds_of(config):
        *groups, last = name.split(".")
        place = settings
        for group in groups:
            place = place[group]
        del place[last]
    return settings


def with_inputs(config: Config, references: Mapping[str, str]) -> Config:
    """The config with other references for the named inputs."""
    changes: dict[str, Any] = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if name in references:
            changes[name] = references[name]
        elif isinstance(value, Config):
            changes[name] = with_inputs(value, _below(references, name))
        elif isinstance(value, dict):
            changes[name] = {
                key: with_inputs(one, _below(references, f"{name}.{key}")) if isinstance(one, Config) else one
                for key, one in value.items()
            }
    return config.model_copy(update=changes)


def _below(references: Mapping[str, str], group: str) -> dict[str, str]:
    start = f"{group}."
    return {name.removeprefix(start): text for name, text in references.items() if name.startswith(start)}


def uses(cls: type[Config], values: Any, place: Place = ()) -> Iterator[tuple[Place, str, Kinds | None]]:
    """(place, name, kinds) of every `$name` in settings that are not checked yet; kinds is None where the setting is
    no input. Settings the class does not know are passed over."""
    if not isinstance(values, dict):
        return
    kinds = input_kinds(cls)
    for key, value in values.items():
        if key not in cls.model_fields:
            continue
        if isinstance(value, str) and value.startswith("$"):
            yield (*place, key), value[1:], kinds.get(key)
        group, keyed = group_in(cls.model_fields[key].annotation)
        if group is not None and isinstance(value, dict):
            for name, inner in value.items() if keyed else [(None, value)]:
                yield from uses(group, inner, (*place, key) if name is None else (*place, key, name))


__all__ = ["Input", "inputs_of", "kinds_of", "settings_of", "uses", "walk", "with_inputs"]
