"""A recipe run by several processes that `torchrun` started: rank 0 runs it (`core/run.py`), the others follow.

A follower makes nothing by itself. It waits for what rank 0 makes, and takes part in the stages that are made together
(`TOGETHER = True` in the stage's module), in the directory that rank 0 began.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from matura.core import artifact, planning, resolve
from matura.core.artifact import METRICS, Artifact, Draft
from matura.core.course import Course, known
from matura.core.errors import ArtifactError
from matura.core.manifest import DRAFT, RECORD, RESUME
from matura.core.metrics import MetricsLog
from matura.core.recipe import Recipe, Step
from matura.core.resolve import Resolved
from matura.core.workspace import Workspace

POLL_SECONDS = 0.2


def rank() -> int:
    """The number of this process among those of `torchrun`; 0 without it."""
    return int(os.environ.get("RANK", "0"))


def follow(recipe: Recipe, workspace: Workspace) -> dict[str, Artifact]:
    """What each stage made, once rank 0 has made it. Waits as long as it takes: torchrun ends followers whose rank 0
    failed. Raises what a stage raises that is made together."""
    course = Course(recipe.rounds)
    for step in recipe.steps:
        if course.left_out(step.name):
            continue
        inputs = known(course.inputs(step, _outside(recipe, step, workspace)))
        ids = {setting: value.id for setting, value in inputs.items()}
        made = _stage(step, inputs, planning.directory(workspace, recipe, step, ids))
        course.finished(step.name, made)
    return course.standing()


def _outside(recipe: Recipe, step: Step, workspace: Workspace) -> Mapping[str, Resolved]:
    """What a stage takes from outside the recipe; rank 0 may still be fetching it."""
    while True:
        found = resolve.outside(recipe, workspace, look_only=True)
        mine = {setting: found[step.name, setting] for setting in step.outside}
        ready = {setting: value for setting, value in mine.items() if value is not None}
        if len(ready) == len(mine):
            return ready
        time.sleep(POLL_SECONDS)


def _stage(step: Step, inputs: dict[str, Resolved], place: Path) -> Artifact:
    together = getattr(step.module, "TOGETHER", False)
    while (made := _whole(place)) is None:
        begun = (place / DRAFT).is_file() and (place / RESUME).is_dir() and not (place / RECORD).exists()
        if together and begun:
            made = step.module.run(step.config, inputs, Followed(place))
            assert isinstance(made, Artifact)
            return made
        time.sleep(POLL_SECONDS)
    return made


def _whole(place: Path) -> Artifact | None:
    """The artifact in a directory; None without one, and for a damaged one: rank 0 moves it aside and makes it anew."""
    if not (place / RECORD).is_file():
        return None
    try:
        made = artifact.load(place)
        artifact.check_files(made)
    except ArtifactError:
        return None
    return made


class _Silence(MetricsLog):
    """Rank 0 writes the log."""

    def log(self, step: int, **numbers: Any) -> None:
        pass

    def rewind(self, step: int) -> None:
        pass


class Followed(Draft):
    """The draft that rank 0 began, for one who adds to nothing but the checkpoints of all ranks."""

    def __init__(self, place: Path) -> None:
        super().__init__(place, place / RESUME, _Silence(place / METRICS), {"resumed": 0})

    def commit(self, summary: Mapping[str, Any], logs: Iterable[str] = ()) -> Artifact:
        """What rank 0 commits, once it has."""
        while not (self.path / RECORD).is_file():
            time.sleep(POLL_SECONDS)
        return artifact.load(self.path)
