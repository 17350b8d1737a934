"""What a run would do with each stage and why, found out without running, pulling or writing anything."""

import json
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matura.core import artifact, resolve
from matura.core.course import Course, known, verdict, with_rounds
from matura.core.errors import ArtifactError, ConfigError, FormatError
from matura.core.files import read_json
from matura.core.inputs import kinds_of, settings_of
from matura.core.manifest import DRAFT, MAX_RECORD_BYTES, RECORD
from matura.core.metrics import MetricsLog
from matura.core.plan import Estimate, Planned
from matura.core.raw import RawInput
from matura.core.recipe import Recipe, Step
from matura.core.resolve import Resolved
from matura.core.workspace import Workspace

TOLD = ("model", "samples", "preferences", "tokenizer", "tokens")
"""Kinds of artifacts whose size, or vocabulary, is told to the stages that wait for them."""


@dataclass(frozen=True)
class Made:
    """How a stage's output was asked for, read from a finished or an interrupted directory."""

    stage: str
    version: int
    config: dict[str, Any]
    inputs: dict[str, dict[str, Any]]


def plan(recipe: Recipe, workspace: Workspace) -> list[Planned]:
    """One row for each stage, in running order. Raises what would stop the run before its first stage."""
    previous = workspace.read_run(recipe.name)
    outside = resolve.outside(recipe, workspace, look_only=True)
    course = Course(recipe.rounds)
    rows: list[Planned] = []
    coming: dict[str, Estimate] = {}
    for step in recipe.steps:
        if ended := course.left_out(step.name):
            rows.append(Planned(step.name, "skip", ended))
            continue
        latest = previous.get(step.name)
        before = made_in(latest) if latest else None
        given = {
            setting: outside[step.name, setting] or _as_before(setting, text, before)
            for setting, text in step.outside.items()
        }
        inputs = course.inputs(step, given)
        row = _row(step, inputs, workspace, recipe, before, coming)
        if step.module.KIND in TOLD:
            coming[step.name] = row.estimate
        if row.action == "reuse":
            made = artifact.load(directory(workspace, recipe, step, _ids(inputs)))
            stops = verdict(made) is False and not course.decides(step.name)
            why = "; its gate failed, the recipe stops here" if stops else ""
            why = f"; {ended}" if (ended := course.finished(step.name, made)) else why
            row = replace(row, why=f"{row.why}{why}")
        elif gates := course.waits_for(step.name):
            row = replace(row, why=f"{row.why}; if {' and '.join(gates)} {course.wanted(step.name)}")
        rows.append(row)
    return rows


def ready_inputs(recipe: Recipe, step: Step, workspace: Workspace, pull: resolve.Pull) -> dict[str, Resolved]:
    """The inputs of one stage, without running any other: models are pulled, what other stages made must be there.

    Raises ConfigError naming the stage that must run first.
    """
    needed = _needed(recipe, step)
    outside = resolve.bring(replace(recipe, steps=tuple(needed)), workspace, pull)
    course = Course(recipe.rounds)
    for one in needed:
        if course.left_out(one.name):
            continue
        given = course.inputs(one, {setting: outside[one.name, setting] for setting in one.outside})
        inputs = known(given)
        if one is step:
            return inputs
        try:
            course.finished(one.name, artifact.load(directory(workspace, recipe, one, _ids(inputs))))
        except ArtifactError as error:
            raise ConfigError(
                f"{step.name} needs what {one.name} makes, which is not there with these settings: run the recipe "
                f"up to it first"
            ) from error
    raise ConfigError(f"{step.name} is not part of the run: {course.left_out(step.name)}")


def _needed(recipe: Recipe, step: Step) -> list[Step]:
    """A stage and those whose outputs it is made from, in running order."""
    names = {step.name}
    for one in reversed(recipe.steps):
        if one.name in names:
            names = with_rounds(recipe.steps, recipe.rounds, names | set(one.uses.values()))
    return [one for one in recipe.steps if one.name in names]


def directory(workspace: Workspace, recipe: Recipe, step: Step, ids: Mapping[str, str]) -> Path:
    """Where a stage's output belongs: its name and the hash of all that decides its result."""
    key = artifact.key(step.kind, step.module.VERSION, step.config, ids)
    return workspace.stage(recipe.name, step.name, key)


def reason(step: Step, ids: Mapping[str, str], before: Made | None) -> str:
    """Why a stage runs: what differs from how it was asked for before. `ids` lacks inputs not made yet."""
    if before is None:
        return "never run"
    if before.stage != step.kind:
        return f"was {before.stage}, is now {step.kind}"
    reasons = []
    if before.version != step.module.VERSION:
        reasons.append(f"stage version {before.version} -> {step.module.VERSION}")
    names = {*before.inputs, *kinds_of(step.config)}
    changes = _changes(_flat(before.config, names), _flat(settings_of(step.config)))
    if changes:
        more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
        reasons.append(f"config changed: {', '.join(changes[:3])}{more}")
    wanted = {**step.outside, **step.uses}
    for setting, text in wanted.items():
        name = step.uses.get(setting, setting)
        if setting not in before.inputs:
            reasons.append(f"input {name} added")
        elif setting in ids and before.inputs[setting]["id"] != ids[setting]:
            was = _flat(before.config).get(setting)
            moved = was != text and setting in step.outside
            reasons.append(f"input {name} changed" + (f": {was} -> {text}" if moved else ""))
    reasons += [f"input {setting} removed" for setting in before.inputs if setting not in wanted]
    return "; ".join(reasons)


def made_in(place: Path) -> Made | None:
    """How the output in a directory was asked for; None when there is none."""
    for name, version in ((RECORD, "stage_version"), (DRAFT, "version")):
        try:
            record = read_json(place / name, limit=MAX_RECORD_BYTES, what="a record")
            inputs = {key: dict(entry) for key, entry in record["inputs"].items() if "id" in entry}
            return Made(str(record["stage"]), int(record[version]), dict(record["config"]), inputs)
        except (OSError, FormatError, KeyError, TypeError, ValueError, AttributeError):
            continue
    return None


def _row(
    step: Step,
    inputs: dict[str, Resolved | None],
    workspace: Workspace,
    recipe: Recipe,
    before: Made | None,
    coming: Mapping[str, Estimate],
) -> Planned:
    ids = _ids(inputs)
    waiting = [_awaited(step, setting) for setting, value in inputs.items() if value is None]
    told = {setting: coming.get(step.uses.get(setting, "")) for setting in inputs}
    cost = estimate(step, {setting: value or told[setting] for setting, value in inputs.items()})
    if waiting:
        known = reason(step, ids, before) if before else "never run"
        return Planned(step.name, "run", "; ".join([part for part in (known, *waiting) if part]), cost)
    place = directory(workspace, recipe, step, ids)
    try:
        done = artifact.load(place)
        artifact.check_files(done)
    except ArtifactError as error:
        if (place / RECORD).exists():
            return Planned(step.name, "run", f"its output is damaged: {what_is_wrong(error)}", cost)
        if (place / DRAFT).exists():
            return Planned(step.name, "resume", interrupted(place), cost)
        return Planned(step.name, "run", reason(step, ids, before) or "its output is gone", cost)
    return Planned(step.name, "reuse", "unchanged")


def interrupted(place: Path) -> str:
    """How far an interrupted draft came, as its metrics tell."""
    try:
        rows = MetricsLog(place / "metrics.jsonl").rows()
    except (FormatError, OSError):
        rows = []
    return f"interrupted at step {rows[-1]['step']}" if rows else "interrupted"


def estimate(step: Step, inputs: Mapping[str, Resolved | Estimate | None]) -> Estimate:
    """What the stage expects to need; nothing when it does not say. An input that another stage will make is that
    stage's estimate, as far as it is known."""
    make = getattr(step.module, "estimate", None)
    return make(step.config, dict(inputs)) if make else Estimate()


def _as_before(setting: str, text: str, before: Made | None) -> RawInput | None:
    """Raw data that a stage fetches by itself, taken to be what the same words named in the latest run."""
    entry = before.inputs.get(setting) if before else None
    if (
        before is None
        or entry is None
        or entry.get("kind") != "raw"
        or _flat(before.config).get(setting) != text
    ):
        return None
    return RawInput(Path(entry["path"]), entry["id"], entry.get("files", {}))


def _awaited(step: Step, setting: str) -> str:
    if setting in step.uses:
        return f"{step.uses[setting]} runs first"
    verb = "fetched" if "raw" in kinds_of(step.config)[setting] else "pulled"
    return f"{step.outside[setting]} is {verb} first"


def _ids(inputs: Mapping[str, Resolved | None]) -> dict[str, str]:
    return {setting: value.id for setting, value in inputs.items() if value is not None}


def _flat(settings: Mapping[str, Any], leave_out: Container[str] = ()) -> dict[str, Any]:
    """Settings with groups written a.b, without the names to leave out."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            flat |= {f"{name}.{inner}": deep for inner, deep in _flat(value).items()}
        else:
            flat[name] = value
    return {name: value for name, value in flat.items() if name not in leave_out}


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    missing = object()
    return [
        f"{name} {_shown(before, name)} -> {_shown(now, name)}"
        for name in dict.fromkeys((*now, *before))
        if before.get(name, missing) != now.get(name, missing)
    ]


def _shown(settings: Mapping[str, Any], name: str) -> str:
    if name not in settings:
        return "unset"
    text = json.dumps(settings[name], ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."


def what_is_wrong(error: ArtifactError) -> str:
    """The first file that is wrong, out of the message about a damaged artifact."""
    lines = [line.strip() for line in str(error).splitlines()]
    return lines[1] if len(lines) > 1 else lines[0]
