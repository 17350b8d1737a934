"""Where an artifact comes from: a tree from it to the raw files, and a page about a single one."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matura.core.artifact import Artifact, load
from matura.core.errors import ArtifactError
from matura.core.files import size_text

MAX_DEPTH = 200
_SHOWN_FILES = 12
_FETCHED = re.compile(r"[a-z][a-z0-9+]+:")

Node = dict[str, Any]


def tree(artifact: Artifact) -> Node:
    """The lineage of an artifact as nested dicts, for reports.

    Each node has kind, name, path, id, line (one line about it), state and inputs (name -> node). `state`
    is "here", "missing", "changed" (another artifact has taken its place) or "above" (told elsewhere in the
    tree already).
    """
    return _artifact_node(artifact, told=set(), depth=0)


def _artifact_node(artifact: Artifact, told: set[str], depth: int) -> Node:
    node = _node(artifact.kind, artifact.path, artifact.id, str(artifact.summary.get("line", "")), "here")
    if artifact.id in told or depth >= MAX_DEPTH:
        return {**node, "state": "above"}
    told.add(artifact.id)
    for name in sorted(artifact.inputs):
        node["inputs"][name] = _input_node(artifact, name, told, depth)
    return node


def _input_node(artifact: Artifact, name: str, told: set[str], depth: int) -> Node:
    entry = artifact.inputs[name]
    if entry["kind"] == "raw":
        path = Path(entry["path"])
        node = _node("raw", path, entry["id"], _raw_line(entry), "here" if path.exists() else "missing")
        return {**node, "name": fetched(artifact, name) or node["name"]}
    try:
        return _artifact_node(artifact.input(name), told, depth + 1)
    except ArtifactError:
        place = Path(entry["path"])
        taken = any(_is_artifact(place) for place in artifact.input_places(name))
        return _node(entry["kind"], place, entry["id"], "", "changed" if taken else "missing")


def fetched(artifact: Artifact, name: str) -> str:
    """How the settings name a raw input that was fetched, such as `wheel:...#sha256=...`; "" for a path."""
    value: Any = artifact.config
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) and _FETCHED.match(value) else ""


def _is_artifact(place: Path) -> bool:
    try:
        load(place)
    except ArtifactError:
        return False
    return True


def _node(kind: str, path: Path, identity: str, line: str, state: str) -> Node:
    return {
        "kind": kind,
        "name": str(path) if kind == "raw" else name_of(path),
        "path": str(path),
        "id": identity,
        "line": line,
        "state": state,
        "inputs": {},
    }


def name_of(path: Path) -> str:
    """A short name for an artifact's directory: "adapt/tuned-0123456789ab" in a run, else its own name."""
    return f"{path.parent.name}/{path.name}" if path.parent.parent.name == "runs" else path.name


def _raw_line(entry: dict[str, Any]) -> str:
    if not isinstance(entry.get("count"), int) or not isinstance(entry.get("bytes"), int):
        return ""
    return f"{entry['count']} file{'s' if entry['count'] != 1 else ''}, {size_text(entry['bytes'])}"


def draw(node: Node) -> str:
    """A tree from :func:`tree` as text, an artifact per line and its inputs below it."""
    return "\n".join(_lines(node, label="", first="", rest=""))


def _lines(node: Node, label: str, first: str, rest: str) -> Iterator[str]:
    notes = {
        "missing": "MISSING: it is no longer there",
        "changed": "CHANGED: something else has taken its place",
        "above": "(see above)",
    }
    head = f"{label}{node['kind']} {node['name']} [{node['id'][:6]}]"
    about = "  ".join(part for part in (node["line"], notes.get(node["state"], "")) if part)
    yield f"{first}{head}  {about}".rstrip()
    inputs = list(node["inputs"].items())
    for index, (name, child) in enumerate(inputs):
        last = index == len(inputs) - 1
        yield from _lines(
            child, f"{name}: ", rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  ")
        )


def show(artifact: Artifact) -> str:
    """A page about one artifact: what it is, how it was made, from what, where, and its files."""
    record = artifact.record
    lines = [f"{artifact.kind} {name_of(artifact.path)} [{artifact.id[:6]}]"]
    if artifact.summary.get("line"):
        lines.append(str(artifact.summary["line"]))
    about = {
        "path": artifact.path,
        "id": artifact.id,
        "stage": f"{record['stage']} (version {record['stage_version']})",
        "created": record.get("created", ""),
        "took": f"{record.get('seconds', 0)} s",
        "code": _code_text(record.get("code") or {}),
    }
    lines += _section("", about)
    inputs = {name: _input_text(entry) for name, entry in artifact.inputs.items()}
    lines += _section("inputs", inputs)
    lines += _section("config", _flat(artifact.config))
    lines += _section("summary", _flat({k: v for k, v in artifact.summary.items() if k != "line"}))
    lines += _section("files", _files(record["files"]))
    lines += _section("environment", _flat(record.get("environment") or {}))
    return "\n".join(lines)


def _section(title: str, values: dict[str, Any]) -> list[str]:
    if not values:
        return []
    width = max(len(name) for name in values)
    indent = "  " if title else ""
    rows = [f"{indent}{name:<{width}}  {_value_text(value)}".rstrip() for name, value in values.items()]
    return ["", *([title] if title else []), *rows]


def _value_text(value: Any) -> str:
    text = "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 160 else text[:157] + "..."


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _files(files: dict[str, dict[str, Any]]) -> dict[str, str]:
    rows = {
        name: f"{size_text(entry['bytes']):>8}  {entry['sha256'][:12]}{'  log' if entry.get('log') else ''}"
        for name, entry in list(files.items())[:_SHOWN_FILES]
    }
    if len(files) > _SHOWN_FILES:
        rows["..."] = f"and {len(files) - _SHOWN_FILES} more"
    return rows


def _input_text(entry: dict[str, Any]) -> str:
    details = _raw_line(entry) if entry["kind"] == "raw" else ""
    place = entry["path"] if entry["kind"] == "raw" else name_of(Path(entry["path"]))
    gone = "" if os.path.exists(entry["path"]) else "(not at this place any more)"
    return "  ".join(part for part in (f"{entry['kind']} {place} [{entry['id'][:6]}]", details, gone) if part)


def _code_text(code: dict[str, Any]) -> str:
    text = str(code.get("version", "unknown"))
    if code.get("commit"):
        text += f", commit {str(code['commit'])[:12]}" + (" with local changes" if code.get("dirty") else "")
    return text
