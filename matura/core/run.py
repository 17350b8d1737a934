"""Running a recipe: what is finished is reused, what changed runs with all that depends on it, what was
interrupted goes on.
"""

import contextlib
import datetime
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matura.core import artifact, planning, resolve
from matura.core.artifact import Artifact
from matura.core.course import Course, known, reasons_of, verdict
from matura.core.errors import ArtifactError, GateFailed
from matura.core.files import write_json
from matura.core.manifest import RECORD
from matura.core.recipe import Recipe, Step
from matura.core.resolve import Pull, Resolved
from matura.core.workspace import EARLIER, RUN, Workspace

DISK_MARGIN = 1.2  # an estimate is no measurement
STOPPED = ("interrupted", "failed")
"""Of a stage: the run does not go on after it."""


@dataclass(frozen=True)
class Event:
    """Something to tell while a recipe runs.

    `status` is running, resuming or damaged: more follows; or made, reused or "gate failed": the stage is
    finished, `made` and `seconds` are set; or "rounds end": this stage's gate was the last word of its rounds.
    """

    stage: str
    status: str
    detail: str = ""
    made: Artifact | None = None
    seconds: float = 0.0


Show = Callable[[Event], None]


def run(
    recipe: Recipe,
    workspace: Workspace,
    pull: Pull,
    *,
    show: Show = lambda event: None,
    wait: bool = False,
    keep_others: bool = False,
) -> dict[str, Artifact]:
    """Run a checked recipe and return what each stage made, in running order; of rounds that ended early only the
    good ones.

    `pull(reference, workspace)` fetches a model that the workspace lacks, while the workspace is locked. With
    `wait`, a lock held by another process is waited for; else it is an error. With `keep_others`, `run.json`
    keeps the stages that this recipe does not name.

    After every stage `run.json` says where its output is. Raises GateFailed when a stage's own verdict is no and no
    rounds wait for it, and whatever a stage raises; what was finished stays, what was interrupted goes on next time.
    """
    with workspace.lock(wait):
        outside = resolve.bring(recipe, workspace, pull)
        journal = _Journal(workspace, recipe, keep_others)
        course = Course(recipe.rounds)
        for step in recipe.steps:
            if course.left_out(step.name):
                journal.pass_over(step)
                continue
            given = course.inputs(step, {setting: outside[step.name, setting] for setting in step.outside})
            made = _stage(recipe, step, known(given), workspace, journal, show)
            if verdict(made) is False and not course.decides(step.name):
                journal.end("gate failed")
                raise GateFailed(_gate_message(step, made))
            if ended := course.finished(step.name, made):
                show(Event(step.name, "rounds end", ended))
        journal.end("finished")
        return course.standing()


def _stage(
    recipe: Recipe,
    step: Step,
    inputs: dict[str, Resolved],
    workspace: Workspace,
    journal: "_Journal",
    show: Show,
) -> Artifact:
    """Reuse a stage's output or make it, and tell."""
    began = time.monotonic()
    ids = {setting: value.id for setting, value in inputs.items()}
    place = planning.directory(workspace, recipe, step, ids)
    made, damage = _finished(place, step, show)
    status = "reused" if made else "made"
    if made is None:
        made = _make(step, inputs, place, workspace, journal, show, damage)
    seconds = time.monotonic() - began
    if verdict(made) is False:
        status = "gate failed"
    journal.note(step, place, status, seconds, made.id)
    show(Event(step.name, status, str(made.summary.get("line", "")), made, seconds))
    return made


def _finished(place: Path, step: Step, show: Show) -> tuple[Artifact | None, str]:
    """The output of an earlier run if it is whole, else how it was damaged; then it is moved aside."""
    if not (place / RECORD).exists():
        return None, ""
    try:
        made = artifact.load(place)
        artifact.check_files(made)
    except ArtifactError as error:
        aside = place.with_name(f"{place.name}.damaged-{datetime.datetime.now():%Y%m%d-%H%M%S-%f}")
        place.rename(aside)
        damage = planning.what_is_wrong(error)
        show(Event(step.name, "damaged", f"{damage}; moved to {aside}"))
        return None, f"its output was damaged: {damage}"
    return made, ""


def _make(
    step: Step,
    inputs: dict[str, Resolved],
    place: Path,
    workspace: Workspace,
    journal: "_Journal",
    show: Show,
    damage: str,
) -> Artifact:
    began = time.monotonic()
    before = journal.made(step)
    ids = {setting: value.id for setting, value in inputs.items()}
    how_far = planning.interrupted(place)
    estimate = planning.estimate(step, inputs)
    workspace.check_disk(int(estimate.disk_bytes * DISK_MARGIN), f"The stage {step.name}")
    draft = artifact.begin(
        place,
        kind=step.module.KIND,
        stage=step.kind,
        version=step.module.VERSION,
        config=step.config,
        inputs=inputs,
    )
    resumed = draft.request["resumed"] > 0
    why = how_far if resumed else damage or planning.reason(step, ids, before)
    journal.note(step, place, "running", 0.0)
    show(Event(step.name, "resuming" if resumed else "running", why))
    try:
        made = step.module.run(step.config, inputs, draft)
    except BaseException as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        with contextlib.suppress(ArtifactError, OSError):  # a full disk must not hide what went wrong
            journal.note(step, place, status, time.monotonic() - began)
        raise
    assert isinstance(made, Artifact)
    return made


def _gate_message(step: Step, made: Artifact) -> str:
    reasons = reasons_of(made) or ["it gave no reason"]
    lines = [f"{step.name}: the gate did not pass, the recipe stops here.", *(f"  {r}" for r in reasons)]
    report = next((name for name in ("report.html", "report.json") if (made.path / name).is_file()), None)
    lines.append(f"Report: {made.path / report}" if report else f"Details: {made.path / RECORD}")
    lines.append("Everything made so far is kept.")
    return "\n".join(lines)


class _Journal:
    """`runs/<recipe>/run.json`: where the latest output of each stage is, rewritten whenever that changes.

    Workspace.read_run reads it. The directories are relative, so that a workspace can be moved.
    """

    def __init__(self, workspace: Workspace, recipe: Recipe, keep_others: bool) -> None:
        self.folder = workspace.runs / recipe.name
        self.name = recipe.name
        self.latest = workspace.read_run(recipe.name)
        self.order = [step.name for step in recipe.steps]
        self.to_come = list(self.order)
        self.state = "running"
        named = set(self.order)
        self.stages: dict[str, dict[str, Any]] = {
            stage: {
                "dir": Path(os.path.relpath(place, self.folder)).as_posix(),
                "status": EARLIER if stage in named else "kept",
            }
            for stage, place in self.latest.items()
            if keep_others or stage in named
        }

    def made(self, step: Step) -> planning.Made | None:
        """How the stage's latest output was asked for."""
        latest = self.latest.get(step.name)
        return planning.made_in(latest) if latest else None

    def note(self, step: Step, place: Path, status: str, seconds: float, id: str = "") -> None:
        """Write down what became of a stage."""
        self.stages[step.name] = {
            "dir": Path(os.path.relpath(place, self.folder)).as_posix(),
            "status": status,
            "reused": status == "reused",
            "seconds": round(seconds, 3),
            "id": id,
        }
        self.state = status if status in STOPPED else "running"
        self.pass_over(step)

    def pass_over(self, step: Step) -> None:
        """Write down that a stage does not come any more."""
        self.to_come = [name for name in self.to_come if name != step.name]
        self._write()

    def end(self, state: str) -> None:
        """Write down how the run ended."""
        self.state = state
        self._write()

    def _write(self) -> None:
        places = {name: place for place, name in enumerate(self.order)}
        ordered = sorted(self.stages.items(), key=lambda one: places.get(one[0], -1))
        record = {
            "schema": 1,
            "recipe": self.name,
            "updated": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "state": self.state,
            "to_come": self.to_come,
            "stages": dict(ordered),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / RUN, record)
