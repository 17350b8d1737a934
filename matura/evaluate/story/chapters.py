"""A run as chapters: its stages in running order, each with what it made, or how far it came."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matura.core import artifact
from matura.core.artifact import METRICS, Artifact
from matura.core.course import reasons_of, verdict
from matura.core.errors import ArtifactError, FormatError, ModelNotFound
from matura.core.files import read_json
from matura.core.manifest import DRAFT, MAX_RECORD_BYTES
from matura.core.metrics import MetricsLog
from matura.core.workspace import EARLIER, Workspace

GATE_FAILED = "gate failed"
DONE = ("reused", "made", "kept", GATE_FAILED)
"""Statuses of stages that made something; "kept" is of an earlier run."""


@dataclass(frozen=True)
class Chapter:
    """A stage of a run: its name, its kind, its directory, its status in run.json, and what it made (None: nothing that
    is whole). `lost` says why a stage that had made something has nothing now."""

    name: str
    stage: str
    path: Path
    status: str
    made: Artifact | None = None
    lost: str = ""

    @property
    def line(self) -> str:
        """One line about what came out."""
        return str(self.made.summary.get("line", "")) if self.made else ""

    @property
    def passed(self) -> bool | None:
        """What its gate said; None: it has none."""
        return verdict(self.made) if self.made else None

    @property
    def reasons(self) -> list[str]:
        """Why its gate did not pass."""
        return reasons_of(self.made) if self.made and self.passed is False else []

    def rows(self) -> list[dict[str, Any]]:
        """The numbers that its training logged, also of one that is not finished."""
        return MetricsLog(self.path / METRICS).rows()

    def read(self, name: str, what: str) -> Mapping[str, Any] | None:
        """A JSON file that it made; None where there is none."""
        if self.made is None or name not in self.made.record["files"]:
            return None
        return read_json(self.made.file(name), limit=256 << 20, what=what)


@dataclass(frozen=True)
class Run:
    """The latest run of a recipe: `state` as in run.json, `to_come` are stages that it did not reach."""

    name: str
    folder: Path
    state: str
    chapters: tuple[Chapter, ...]
    to_come: tuple[str, ...] = field(default=())

    @property
    def artifacts(self) -> list[Artifact]:
        """What the stages made, in running order."""
        return [one.made for one in self.chapters if one.made]

    @property
    def last(self) -> Artifact | None:
        """What the run was for: the last export, or else the last model that writes, or else the last of all."""
        made = self.artifacts
        exports = [one for one in made if one.kind == "export"]
        models = [one for one in made if one.kind == "model" and one.record["stage"] != "reward"]
        return next((group[-1] for group in (exports, models, made) if group), None)


def read(workspace: Workspace, name: str) -> Run:
    """The latest run of that name. Raises ModelNotFound when there was none, ArtifactError when run.json is broken."""
    run, slash, stage = name.rstrip("/").partition("/")
    latest = workspace.latest(run)
    if slash and stage in latest.stages:
        raise ModelNotFound(
            f"{name!r} is one stage of a run; the report is about all of it: `matura report {run}`. About the stage: "
            f"`matura show {name}`."
        )
    if slash or not latest.stages:
        raise ModelNotFound(_not_found(workspace, name))
    chapters = tuple(
        _chapter(stage, place, status)
        for stage, (place, status) in latest.stages.items()
        if status != EARLIER
    )
    old = tuple(stage for stage, (_, status) in latest.stages.items() if status == EARLIER)
    state = latest.state or _state(chapters, old)
    return Run(name, workspace.runs / name, state, chapters, latest.to_come or old)


def _chapter(name: str, place: Path, status: str) -> Chapter:
    if status in DONE:
        try:
            made = artifact.load(place)
        except ArtifactError as error:
            return Chapter(name, "", place, status, lost=str(error))
        return Chapter(name, made.record["stage"], made.path, status, made)
    return Chapter(name, _kind_of_draft(place), place, status)


def _kind_of_draft(place: Path) -> str:
    try:
        return str(read_json(place / DRAFT, limit=MAX_RECORD_BYTES, what="a draft").get("stage", ""))
    except (FormatError, OSError):
        return ""


def _state(chapters: tuple[Chapter, ...], to_come: tuple[str, ...]) -> str:
    """Of a record that was written before it said how the run stood."""
    last = chapters[-1].status if chapters else ""
    if last not in DONE:
        return last
    return GATE_FAILED if last == GATE_FAILED else "" if to_come else "finished"


def _not_found(workspace: Workspace, name: str) -> str:
    known = workspace.recipes()
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"There is no run {name!r}; did you mean {close[0]}?"
    if known:
        return f"There is no run {name!r}. The workspace {workspace.root} has: {', '.join(known)}."
    return (
        f"There is no run {name!r}: the workspace {workspace.root} has none yet. Runs elsewhere are named with "
        "--workspace or MATURA_WORKSPACE."
    )
