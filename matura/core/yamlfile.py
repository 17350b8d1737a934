"""Reading YAML that a person wrote: bounded before it is parsed, plain data only, values with lines.

The scalars follow YAML 1.2 (the core schema): `no`, `on` and `2024-01-01` are text, `1e-3` is a number.
PyYAML alone follows 1.1, where they are a boolean, a boolean, a date and text. `<<: *anchor` brings in the keys of
another mapping, as most readers of YAML understand it; keys beside it go before.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from matura.core.errors import ConfigError

MAX_BYTES = 1 << 20
MAX_NODES = 10_000  # counted with every alias written out, so nested aliases cannot explode
MAX_DEPTH = 32
MERGE = "<<"

_COMMENT = re.compile(r"(^|\s)#")

Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """The values of a YAML text, the line each one starts on, and the keys that were written twice."""

    values: Any
    lines: dict[Place, int]
    problems: tuple[tuple[int, str], ...] = ()  # (line, message)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own shape)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", [*"~nN", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9_]*)|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9][0-9_]*\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+",
        list("-+0123456789."),
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)

_PLAIN = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "map", "seq")}


def read(path: Path) -> Document:
    """Read a YAML file of at most `MAX_BYTES`; raises ConfigError naming file and line."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: this is a folder, expected a YAML file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path}: is larger than {MAX_BYTES:,} bytes; that is no hand-written YAML")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: is not UTF-8 text") from None
    return parse(text, str(path))


def parse(text: str, where: str) -> Document:
    """Parse YAML text; `where` (a file name) opens every message."""
    try:
        _check_size(text, where)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return Document(None, {})
            lines: dict[Place, int] = {}
            problems: list[tuple[int, str]] = []
            values = _value(loader, node, (), lines, problems)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"{where}:{mark.line + 1}" if mark else where
        why = " ".join(part for part in (error.context, error.problem) if part)
        if "'\\t'" in why:
            why = "a line is indented by a tab; YAML is indented by spaces"
        raise ConfigError(f"{at}: is not valid YAML: {why}") from None
    except yaml.YAMLError as error:  # a character YAML does not allow
        raise ConfigError(f"{where}: is not valid YAML: {' '.join(str(error).split())}") from None
    return Document(values, lines, tuple(problems))


def parse_value(text: str) -> Any:
    """The value of one setting written on a command line: `3`, `1e-3`, `true`, `[a, b]`, `~`, or text."""
    if text.startswith("~") and text != "~":
        return text  # a home folder
    if _COMMENT.search(text) and text[0] not in "\"'[{":
        return text  # nobody comments on a command line: it belongs to the text
    document = parse(text, repr(text))
    if document.problems:
        raise ConfigError(f"{text!r}: {document.problems[0][1]}")
    return document.values


def _events(text: str) -> Iterator[yaml.Event]:
    return yaml.parse(text, Loader=_Loader)


def _check_size(text: str, where: str) -> None:
    """Count the nodes with every alias written out, and the depth, before anything is built."""
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []  # (anchor, total when it was opened)
    total = 0
    for event in _events(text):
        at = f"{where}:{event.start_mark.line + 1}" if event.start_mark else where
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_nodes):
                raise ConfigError(f"{at}: *{event.anchor} stands inside itself")
            total += sizes.get(event.anchor or "", 1)
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, total))
            total += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = total - before
        if total > MAX_NODES:
            raise ConfigError(f"{at}: more than {MAX_NODES:,} values (aliases written out); refused")
        if len(open_nodes) > MAX_DEPTH:
            raise ConfigError(f"{at}: more than {MAX_DEPTH} levels deep; refused")


def _value(
    loader: _Loader, node: yaml.Node, place: Place, lines: dict[Place, int], problems: list[tuple[int, str]]
) -> Any:
    lines.setdefault(place, node.start_mark.line + 1)  # of a mapping's value, the key's line is already noted
    if node.tag not in _PLAIN:
        problems.append((node.start_mark.line + 1, f"the tag {node.tag!r} is not allowed, only plain data"))
        return None
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, (*place, i), lines, problems) for i, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        try:
            return loader.construct_object(node)
        except ValueError:  # a tag that does not fit its text, or a number of thousands of digits
            problems.append((node.start_mark.line + 1, f"{node.value[:40]!r} is not a valid value"))
            return None
    return _mapping(loader, node, place, lines, problems)


def _mapping(
    loader: _Loader,
    node: yaml.MappingNode,
    place: Place,
    lines: dict[Place, int],
    problems: list[tuple[int, str]],
) -> dict[str, Any]:
    """The keys written here, over those of a mapping that `<<: *anchor` brings in."""
    written: dict[str, Any] = {}
    brought: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            problems.append((line, "a key must be plain text"))
            continue
        key = str(key_node.value)
        if (*place, key) in lines:
            problems.append((line, f"'{key}' is written twice (first on line {lines[(*place, key)]})"))
            continue
        lines[(*place, key)] = line
        value = _value(loader, value_node, (*place, key), lines, problems)
        if key != MERGE:
            written[key] = value
        elif isinstance(value, dict):
            brought = value
        else:
            problems.append((line, f"'{MERGE}' takes one mapping, such as *anchor"))
    for key in brought.keys() - written.keys():
        lines[(*place, key)] = lines[(*place, MERGE)]
    return brought | written
