"""Typed, frozen settings: parsed with every error at once, overridden with `a.b=3`, shown by `--help`.

A stage declares its settings as a subclass of `Config`. A setting that names an input of the stage carries an
`Input` marker: `corpus: Annotated[str, Input("corpus")]`.
"""

import difflib
import json
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, TypeVar, Union, get_args, get_origin

import pydantic

from matura.core import credentials, yamlfile
from matura.core.errors import ConfigError

Place = tuple[str | int, ...]


class Config(pydantic.BaseModel):
    """Base of every stage's settings and of the groups inside them: frozen, and unknown keys are errors."""

    model_config = pydantic.ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        coerce_numbers_to_str=True,
        protected_namespaces=(),
        validate_default=True,
    )

    def changed(self, *names: str) -> list[str]:
        """Those of the named settings that are not what they are by default."""
        fields = type(self).model_fields
        return [
            name
            for name in names
            if getattr(self, name) != fields[name].get_default(call_default_factory=True)
        ]

    def changed_besides(self, *names: str) -> list[str]:
        """Those of all other settings that are not what they are by default."""
        return self.changed(*(name for name in type(self).model_fields if name not in names))


class Input:
    """Marks a setting as an input: a reference to an artifact of one of `kinds`, or for "raw" a path."""

    def __init__(self, *kinds: str) -> None:
        if not kinds:
            raise TypeError('Input needs at least one kind, for example Input("corpus")')
        self.kinds = kinds

    def __repr__(self) -> str:
        return f"Input({', '.join(map(repr, self.kinds))})"


@dataclass(frozen=True)
class Problem:
    """One thing wrong with given values: where (keys and indices from the top) and what, in words."""

    place: Place
    message: str

    def __str__(self) -> str:
        return f"{dotted(self.place)}: {self.message}" if self.place else self.message


C = TypeVar("C", bound=Config)


def parse(cls: type[C], values: dict[str, Any], where: str) -> C:
    """`values` as a `cls`; raises one ConfigError that lists all that is wrong, field by field."""
    config, problems = check(cls, values)
    if config is None:
        raise ConfigError(listing(where, [str(problem) for problem in problems]))
    return config


def check(cls: type[C], values: dict[str, Any]) -> tuple[C | None, list[Problem]]:
    """Like `parse`, but hands the problems back, so that a recipe can add its own and name the lines."""
    problems = list(_left_off(cls, values, ()))
    values = with_group_defaults(cls, values)
    problems += _booleans_for_numbers(cls, values, ())
    config = None
    try:
        config = cls.model_validate(values)
    except pydantic.ValidationError as error:
        problems += _problems_of(cls, error, {p.place for p in problems})
    return (None if problems else config), problems


def with_group_defaults(cls: type[Config], values: dict[str, Any]) -> dict[str, Any]:
    """`values` in which a group given in part keeps the rest of the group's own default, at every depth.

    A stage may give a group other defaults than its class has; `answer.temperature=0.5` must change only that.
    """
    result = dict(values)
    for name, info in cls.model_fields.items():
        given, default = result.get(name), info.get_default(call_default_factory=True)
        if not isinstance(given, dict) or not isinstance(default, Config):
            continue
        if _same_kind(info.annotation, default, given):
            result[name] = with_group_defaults(type(default), {**dict(default), **given})
    return result


def _same_kind(annotation: Any, default: Config, given: dict[str, Any]) -> bool:
    """Whether a group that may be of several kinds (a discriminated union) is of its default's kind. Where there is one
    kind of group, a setting called `kind` is a setting like others."""
    kind = getattr(default, "kind", None)
    one = len(_models(_members(annotation))) == 1
    return one or kind is None or given.get("kind", kind) == kind


def listing(where: str, messages: list[str]) -> str:
    """One message for a list of problems: a single line when there is one, else a heading and a line each."""
    if len(messages) == 1:
        return f"{where}: {messages[0]}" if where else messages[0]
    head = f"{where}: {len(messages)} problems" if where else f"{len(messages)} problems"
    return "\n  ".join([head, *messages])


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """'; did you mean X?' for the nearest known name, else the known names: the end of a message."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known: {', '.join(names)}" if names else ""


def dotted(place: Place) -> str:
    """('optim', 'betas', 0) -> 'optim.betas[0]'."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def set_dotted(values: dict[str, Any], assignment: str) -> dict[str, Any]:
    """A copy of `values` with one `a.b=value` set; the value is read as YAML, missing groups are created."""
    name, equals, text = assignment.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"'{assignment}': expected key=value, for example steps=100 or optim.lr=1e-3")
    result = dict(values)
    group = result
    for i, key in enumerate(keys[:-1]):
        inner = group.get(key)
        if inner is not None and not isinstance(inner, dict):
            path = ".".join(keys[: i + 1])
            raise ConfigError(f"'{assignment}': {path} is a value, not a group of settings")
        group[key] = dict(inner or {})
        group = group[key]
    group[keys[-1]] = yamlfile.parse_value(text.strip())
    return result


def input_kinds(cls: type[Config]) -> dict[str, tuple[str, ...]]:
    """The input settings of a Config class itself (not of its groups) and the kinds each accepts."""
    return {
        name: marker.kinds
        for name, info in cls.model_fields.items()
        for marker in (*info.metadata, *_markers(info.annotation))
        if isinstance(marker, Input)
    }


def describe(cls: type[Config], prefix: str = "", defaults: Config | None = None) -> list[str]:
    """Lines for `--help`: each setting with its type, default and description; groups are written a.b.

    `defaults` stands for the defaults of the class: what a stage gives a group of its own.
    """
    lines: list[str] = []
    kinds = input_kinds(cls)
    for name, info in cls.model_fields.items():
        inner, keyed = group_in(info.annotation)
        if inner is not None:
            own = getattr(defaults, name) if defaults else info.get_default(call_default_factory=True)
            below = f"{prefix}{name}.NAME." if keyed else f"{prefix}{name}."
            lines += describe(inner, below, own if isinstance(own, Config) else None)
            continue
        if name in kinds:
            what = " or ".join("path" if kind == "raw" else kind for kind in kinds[name])
        else:
            what = type_text(info.annotation)
        if defaults is not None:
            default = f"default {_default_text(getattr(defaults, name))}"
        elif info.is_required():
            default = "required"
        else:
            default = f"default {_default_text(info.get_default(call_default_factory=True))}"
        lines.append(f"  {prefix + name}  ({what}; {default})")
        if info.description:
            lines.append(f"      {' '.join(info.description.split())}")
    return lines


def schema(cls: type[Config]) -> dict[str, Any]:
    """The JSON Schema of a Config class, for editors; unknown keys are not allowed in it."""
    result = cls.model_json_schema()
    for name, kinds in input_kinds(cls).items():
        result["properties"][name]["x-input"] = list(kinds)
    return result


def type_text(annotation: Any) -> str:
    """A type in words for people: 'whole number', "'lora' | 'full'", 'list of text'."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_text(args[0])
    if origin is Literal:
        return " | ".join(json.dumps(value).replace('"', "'") for value in args)
    if origin in (Union, types.UnionType):
        return " | ".join(type_text(a) for a in args if a is not type(None))
    if origin in (list, tuple, set, frozenset):
        return f"list of {type_text(args[0])}" if args else "list"
    if origin is dict:
        return f"mapping to {type_text(args[1])}"
    words = {int: "whole number", float: "number", bool: "true | false", str: "text"}
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)).lower())


def _default_text(value: Any) -> str:
    if value is None:
        return "none"
    return "empty" if value in ("", (), [], {}) else json.dumps(value, default=str)


def _markers(annotation: Any) -> tuple[Any, ...]:
    """Markers inside `Annotated[...] | None`, which pydantic leaves on the member of the union."""
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(m for a in get_args(annotation) if get_origin(a) is Annotated for m in get_args(a)[1:])
    return ()


def _members(annotation: Any) -> list[Any]:
    """The types an annotation allows, with Annotated and unions taken apart."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _members(args[0])
    if origin in (Union, types.UnionType):
        return [member for arg in args for member in _members(arg)]
    return [annotation]


def _models(members: Iterable[Any]) -> list[type[pydantic.BaseModel]]:
    return [m for m in members if isinstance(m, type) and issubclass(m, pydantic.BaseModel)]


def group_in(annotation: Any) -> tuple[type[Config] | None, bool]:
    """The one group of settings an annotation stands for, if it is one; and whether it is a mapping to such groups."""
    for member in _members(annotation):
        if get_origin(member) is dict:
            inner, _ = group_in(get_args(member)[1])
            return inner, inner is not None
    models = [m for m in _models(_members(annotation)) if issubclass(m, Config)]
    return (models[0] if len(models) == 1 else None), False


def _booleans_for_numbers(cls: type[pydantic.BaseModel], values: Any, place: Place) -> Iterable[Problem]:
    """`true` where a number is wanted: pydantic would read it as 1, a person never means that."""
    if not isinstance(values, dict):
        return
    for name, info in cls.model_fields.items():
        value, members = values.get(name), _members(info.annotation)
        if isinstance(value, bool) and bool not in members and (int in members or float in members):
            yield Problem((*place, name), f"expected a number, got {json.dumps(value)}")
        for inner in _models(members):
            yield from _booleans_for_numbers(inner, value, (*place, name))


def _left_off(cls: type[Config], values: Mapping[str, Any], place: Place) -> Iterator[Problem]:
    """Groups that are given settings while their `use`, off by default, is not: they would silently do nothing."""
    for name, info in cls.model_fields.items():
        given, default = values.get(name), info.get_default(call_default_factory=True)
        if not isinstance(given, Mapping) or not isinstance(default, Config):
            continue
        if given and "use" not in given and getattr(default, "use", None) == "off":
            message = f"{', '.join(map(str, given))} would do nothing while `use` is off; give use=on too"
            yield Problem((*place, name), f"{message} (or use=off to leave it off)")
        yield from _left_off(type(default), given, (*place, name))


@dataclass(frozen=True)
class _Step:
    """Where a pydantic error's location leads: our place, and the types allowed there."""

    place: Place
    members: tuple[Any, ...]

    @classmethod
    def walk(cls, top: type[Config], loc: tuple[int | str, ...], unknown_key: bool) -> Self:
        """Follow `loc`; parts that only name a member of a union are no part of what the person wrote."""
        members: list[Any] = [top]
        place: Place = ()
        for i, part in enumerate(loc):
            if unknown_key and i == len(loc) - 1:
                place = (*place, part)
                break
            fields = [m.model_fields[part] for m in _models(members) if part in m.model_fields]
            containers = [m for m in members if get_origin(m) in (list, tuple, set, frozenset, dict)]
            if fields:
                place, members = (*place, part), [x for f in fields for x in _members(f.annotation)]
            elif containers and (isinstance(part, int) or any(get_origin(c) is dict for c in containers)):
                place = (*place, part)
                members = [x for c in containers for a in get_args(c) if a is not ... for x in _members(a)]
        return cls(place, tuple(members))


def _problems_of(cls: type[Config], error: pydantic.ValidationError, seen: set[Place]) -> list[Problem]:
    """Pydantic's errors in our words, one for each place (a union reports each of its members)."""
    found: dict[Place, list[str]] = {}
    items = error.errors(include_url=False)
    inner = {item["loc"][:-1] for item in items}
    for item in items:
        if item["type"] == "too_short" and item["loc"] in inner:
            continue  # only because its wrong items are not counted
        unknown = item["type"] == "extra_forbidden"
        step = _Step.walk(cls, item["loc"], unknown)
        if step.place not in seen:
            message = _message(dict(item), step, unknown)
            if message not in found.setdefault(step.place, []):
                found[step.place].append(message)
    return [Problem(place, _joined(messages)) for place, messages in found.items()]


def _joined(messages: list[str]) -> str:
    """Several complaints of a union's members about one value, said once."""
    given = {m.rpartition(", got ")[2] for m in messages}
    if len(messages) > 1 and len(given) == 1 and all(m.startswith("expected ") for m in messages):
        wanted = " or ".join(m.removeprefix("expected ").rpartition(", got ")[0] for m in messages)
        return f"expected {wanted}, got {given.pop()}"
    return "; ".join(messages)


_PLAIN_WORDS = (("a integer", "a whole number"), ("a string", "text"), ("a boolean", "true or false"))


def _message(item: dict[str, Any], step: _Step, unknown: bool) -> str:
    if unknown:
        known = {name for model in _models(step.members) for name in model.model_fields}
        return f"unknown setting{did_you_mean(str(step.place[-1]), known)}"
    if item["type"] == "missing":
        wanted = " or ".join(dict.fromkeys(type_text(m) for m in step.members if m is not type(None)))
        return f"is required (expected {wanted})"
    given = _shown(item.get("input"))
    if item["type"] in ("value_error", "assertion_error"):
        message = item["msg"].partition(", ")[2]
        told = (
            not step.place
            or f"got {item.get('input')!r}" in message
            or f"got '{item.get('input')}'" in message
        )
        return message if told else f"{message} (got {given})"
    if item["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"expected a group of settings, got {given}"
    wanted = item["msg"].removeprefix("Input should be ").replace("a valid ", "a ")
    for formal, plain in _PLAIN_WORDS:
        wanted = wanted.replace(formal, plain)
    wanted = wanted.partition(", unable to ")[0]
    message = f"expected {wanted[:1].lower()}{wanted[1:]}, got {given}"
    if item["type"] == "literal_error" and isinstance(item.get("input"), str):
        choices = [v for m in step.members if get_origin(m) is Literal for v in get_args(m)]
        near = difflib.get_close_matches(item["input"], [str(c) for c in choices], n=1)
        message += f"; did you mean '{near[0]}'?" if near else ""
    return message


def _shown(value: Any) -> str:
    text = credentials.shown(json.dumps(value, default=str, ensure_ascii=False))
    return text if len(text) <= 60 else f"{text[:57]}..."
