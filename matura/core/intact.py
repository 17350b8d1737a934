"""Whether an artifact and all that it was made from are still what they were: every file is hashed again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matura.core.artifact import Artifact, verify
from matura.core.errors import ArtifactError
from matura.core.files import hash_file
from matura.core.lineage import name_of
from matura.core.raw import raw_input


@dataclass(frozen=True)
class Finding:
    """One artifact or raw input: its kind and name, and what is wrong with it ("" if nothing is)."""

    kind: str
    name: str
    wrong: str


def check(artifact: Artifact) -> Iterator[Finding]:
    """A finding for the artifact and for each thing on the way to the raw files, each once, the oldest first."""
    yield from _check(artifact, set())


def _check(artifact: Artifact, seen: set[str]) -> Iterator[Finding]:
    seen.add(artifact.id)
    for name, entry in artifact.inputs.items():
        if entry["id"] in seen:
            continue
        if entry["kind"] == "raw":
            seen.add(entry["id"])
            yield Finding("raw", entry["path"], _raw_damage(entry))
            continue
        try:
            made_from = artifact.input(name)
        except ArtifactError as error:
            seen.add(entry["id"])
            yield Finding(entry["kind"], name_of(Path(entry["path"])), str(error))
        else:
            yield from _check(made_from, seen)
    yield Finding(artifact.kind, name_of(artifact.path), _damage(artifact))


def _damage(artifact: Artifact) -> str:
    try:
        verify(artifact)
    except ArtifactError as error:
        return str(error)
    return ""


def _raw_damage(entry: Mapping[str, Any]) -> str:
    place = Path(entry["path"])
    if not place.exists():
        return "It is no longer there."
    try:
        if listed := entry.get("files"):
            root = place if place.is_dir() else place.parent
            changed = [name for name, one in listed.items() if hash_file(root / name) != one["sha256"]]
            return f"Changed since: {', '.join(changed)}." if changed else ""
        return "" if raw_input(place).id == entry["id"] else "Its files are not those of then."
    except (ArtifactError, OSError) as error:
        return str(error)
