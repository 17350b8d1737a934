"""What in a workspace nothing needs any more, and removing it (`matura gc`).

Kept is whatever the latest run of any recipe used, with all that it was made from; drafts that such a run may
still resume; and, unless they are asked for, all models, with all that they were made from.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matura.core.artifact import load
from matura.core.errors import ArtifactError
from matura.core.files import is_temporary, last_change, remove, tree_bytes
from matura.core.manifest import DRAFT, RECORD, RESUME, read_draft
from matura.core.workspace import Workspace

STALE_SECONDS = 24 * 3600  # how long a draft outside the latest runs must have been left alone
_CONDEMNED = ".removing-"
_PARTIAL = ".partial-"


@dataclass(frozen=True)
class Unused:
    """Something that can go: a file or directory, its size in bytes, and why nothing needs it."""

    path: Path
    bytes: int
    why: str


def find_unused(
    workspace: Workspace, *, models: bool = False, stale_seconds: float = STALE_SECONDS
) -> list[Unused]:
    """List what can go, sorted by path; nothing is removed (this is the dry run).

    `models` also lists models that no run uses. Hold the workspace lock. Raises ArtifactError when the record
    of a run or an artifact cannot be read: what it needs is then unknown, so nothing may go.
    """
    drafts = {path.resolve(): path for path in workspace.drafts()}
    artifacts = {path.resolve(): path for path in workspace.artifacts()}
    needed = _needed(workspace, artifacts, drafts, models, stale_seconds)
    found: dict[Path, str] = {}
    for place, path in artifacts.items():
        if place in needed:
            found |= {left: "left over from a finished stage" for left in _leftovers(path)}
        elif path.parent == workspace.models:
            found[path] = "a model that no run uses"
        else:
            found[path] = "not part of the latest run of any recipe"
    for place, path in drafts.items():
        if place not in needed:
            found[path] = "interrupted, and not part of the latest run of any recipe"
    for path in _debris(workspace):
        found[path] = "left behind by an interrupted write or removal"
    return [Unused(path, tree_bytes(path), why) for path, why in sorted(found.items())]


def remove_unused(workspace: Workspace, unused: list[Unused]) -> int:
    """Remove what :func:`find_unused` listed; returns the bytes freed. Hold the workspace lock.

    A directory is renamed before it is emptied: killed in between, no half of it can pass for an artifact.
    """
    root = workspace.root.resolve()
    freed = 0
    for item in unused:
        if root not in item.path.parent.resolve().parents and item.path.parent.resolve() != root:
            raise ArtifactError(f"{item.path} is outside the workspace {root}; it is not removed.")
        target = item.path
        if target.is_dir() and not target.is_symlink() and not target.name.startswith(_CONDEMNED):
            target = target.with_name(f"{_CONDEMNED}{os.getpid()}-{target.name}")
            os.rename(item.path, target)
        remove(target)
        freed += item.bytes
    return freed


def _needed(
    workspace: Workspace,
    artifacts: dict[Path, Path],
    drafts: dict[Path, Path],
    models: bool,
    stale_seconds: float,
) -> set[Path]:
    """Resolved directories that must stay: the roots, and through their inputs all they were made from."""
    pending: list[Path] = []
    for recipe in workspace.recipes():
        pending += [path.resolve() for path in workspace.read_run(recipe).values()]
    pending += [place for place, path in drafts.items() if _idle_seconds(path) < stale_seconds]
    if not models:
        kept = workspace.models.resolve()
        pending += [place for place in (*artifacts, *drafts) if place.parent == kept]
    needed: set[Path] = set()
    while pending:
        place = pending.pop()
        if place in needed or (place not in artifacts and place not in drafts):
            continue
        needed.add(place)
        if place in artifacts:
            made = load(place)
            for name in made.inputs:
                pending += [found.resolve() for found in made.input_places(name)]
        else:
            pending += _draft_inputs(place)
    return needed


def _draft_inputs(place: Path) -> list[Path]:
    request: dict[str, Any] = read_draft(place) or {}
    places = []
    for entry in request.get("inputs", {}).values():
        places.append(Path(entry["path"]).resolve())
        if entry.get("relative"):
            places.append((place / entry["relative"]).resolve())
    return places


def _idle_seconds(directory: Path) -> float:
    return time.time() - last_change(directory)


def _leftovers(artifact: Path) -> list[Path]:
    """What a kill between writing artifact.json and cleaning up leaves in a finished artifact."""
    assert (artifact / RECORD).is_file()
    return [path for path in (artifact / DRAFT, artifact / RESUME) if path.exists()]


def _debris(workspace: Workspace) -> list[Path]:
    roots = (workspace.root, workspace.models, workspace.runs, workspace.downloads)
    return [
        path
        for folder in (*roots, *workspace.runs.glob("*"))
        if folder.is_dir() and not folder.is_symlink()
        for path in folder.iterdir()
        if is_temporary(path.name) or path.name.startswith((_CONDEMNED, _PARTIAL))
    ]
