"""From the references in a recipe to what they name: artifacts of the workspace, pulled models, raw data."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matura.core import config as configs
from matura.core import promptfile, references
from matura.core.artifact import Artifact
from matura.core.errors import ConfigError, FormatError, MaturaError, ModelNotFound
from matura.core.files import canonical_hash, read_json, walk, write_json
from matura.core.inputs import kinds_of, one_of
from matura.core.raw import RawInput, raw_input
from matura.core.recipe import Recipe, Step
from matura.core.workspace import Workspace

Resolved = Artifact | RawInput
Pull = Callable[[str, Workspace], Artifact]
SETTLED_SECONDS = 2.0  # a file younger than this may change again within one tick of the file system's clock
MAX_CACHE_BYTES = 256 << 20


def outside(
    recipe: Recipe, workspace: Workspace, *, look_only: bool
) -> dict[tuple[str, str], Resolved | None]:
    """Everything a recipe takes from outside, by (stage, setting): found or hashed; None is a model to pull.

    All that is wrong is raised at once, before the first stage: a wrong path in the last one must not cost
    hours. With `look_only` nothing is written, and raw data that a stage would have to fetch is None too.
    """
    found: dict[tuple[str, str], Resolved | None] = {}
    problems: list[MaturaError] = []
    for step in recipe.steps:
        for setting in step.outside:
            try:
                found[step.name, setting] = _found(step, setting, workspace, look_only)
            except MaturaError as error:
                problems.append(_placed(step, setting, error))
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise ConfigError(configs.listing(recipe.name, [str(problem) for problem in problems]))
    return found


def bring(recipe: Recipe, workspace: Workspace, pull: Pull) -> dict[tuple[str, str], Resolved]:
    """Like `outside`, and pull the models that are missing, each once."""
    found: dict[tuple[str, str], Resolved] = {}
    pulled: dict[str, Artifact] = {}
    steps = {step.name: step for step in recipe.steps}
    for (name, setting), value in outside(recipe, workspace, look_only=False).items():
        text = steps[name].outside[setting]
        if value is None and text not in pulled:
            pulled[text] = pull(text, workspace)
        found[name, setting] = value or _right_kind(steps[name], setting, pulled[text])
    return found


def remembered_raw_input(
    path: Path, workspace: Workspace, keep: bool = True, make: Callable[[Path], RawInput] | None = None
) -> RawInput:
    """`raw_input`, without hashing again what has had the same names, sizes and times since it was hashed.

    `keep` False looks the answer up but stores none. `make` is what hashes instead, such as `raw.readable_input`.
    """
    began = time.time()
    listing, newest = _listing(path)
    named = canonical_hash(listing if make is None else [*listing, make.__name__])
    cache = workspace.root / "cache" / f"raw-{named}.json"
    if newest < began - SETTLED_SECONDS:
        try:
            value = read_json(cache, limit=MAX_CACHE_BYTES, what="remembered hashes")
            return RawInput(Path(value["path"]), value["id"], value["files"])
        except (OSError, FormatError, KeyError):
            pass
    made = (make or raw_input)(path)
    if keep and newest < began - SETTLED_SECONDS and _listing(path)[0] == listing:
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_json(cache, {"path": str(made.path), "id": made.id, "files": made.files})
    return made


def _found(step: Step, setting: str, workspace: Workspace, look_only: bool) -> Resolved | None:
    kinds = _kinds(step, setting)
    if "raw" not in kinds:
        return _artifact(step, setting, workspace)
    if kinds == ("raw",) or not _is_artifact(step.outside[setting], workspace):
        return _raw(step, setting, workspace, look_only)
    return _right_kind(step, setting, workspace.find(step.outside[setting]))


def _is_artifact(text: str, workspace: Workspace) -> bool:
    """Whether what may be an artifact or files is an artifact, or is not there and looks like a stage of a run."""
    try:
        workspace.find(text)
    except ModelNotFound:
        if os.path.exists(text) or ":" in text or text.startswith(("/", ".", "~")) or Path(text).suffix:
            return False
        raise
    return True


def _raw(step: Step, setting: str, workspace: Workspace, look_only: bool) -> RawInput | None:
    """Raw data as the stage reads its setting, by default as a path. A prompt's files are always found in one way.

    A stage module may have its own `raw_input(config, setting, workspace)`: it fetches what it must and
    returns a path, or a RawInput. Its `hash_raw` may stand for `raw.raw_input`.
    """
    if "prompt" in _kinds(step, setting):
        return promptfile.raw_input(step.outside[setting])
    own, text = getattr(step.module, "raw_input", None), step.outside[setting]
    if own and look_only and ":" in text and not os.path.exists(text):  # what is fetched has a scheme
        return None
    place: Any = own(step.config, setting, workspace) if own else text
    if isinstance(place, RawInput):
        return place
    make = getattr(step.module, "hash_raw", None)
    return remembered_raw_input(Path(place), workspace, keep=not look_only, make=make)


def _artifact(step: Step, setting: str, workspace: Workspace) -> Artifact | None:
    """The artifact of the workspace that a setting names; None for a model that can be pulled."""
    try:
        return _right_kind(step, setting, workspace.find(step.outside[setting]))
    except ModelNotFound:
        if "model" not in _kinds(step, setting):
            raise
        reference = references.parse(step.outside[setting])
        match reference:
            case references.NameReference(name=name) if "/" not in name:
                references.fetch(reference, workspace)  # fetches nothing: its error knows the nearest alias
                raise
            case references.NameReference():
                raise
            case references.PathReference(path=path) if not path.exists():
                raise
        return None


def _listing(path: Path) -> tuple[list[Any], float]:
    """What a change of the files would change: real path and, for each file, name, size and times."""
    place = path.expanduser().resolve()
    rows: list[Any] = [str(place)]
    newest = 0.0
    found = walk(place) if place.is_dir() else [(str(place.parent), [], [place.name])]
    for directory, folders, names in found:
        folders.sort()
        for name in sorted(names):
            try:
                status = os.stat(os.path.join(directory, name))
            except OSError:
                continue
            rows.append([directory, name, status.st_size, status.st_mtime_ns, status.st_ctime_ns])
            newest = max(newest, status.st_mtime, status.st_ctime)
    return json.loads(json.dumps(rows)), newest


def _kinds(step: Step, setting: str) -> tuple[str, ...]:
    return kinds_of(step.config)[setting]


def _right_kind(step: Step, setting: str, found: Artifact) -> Artifact:
    kinds = _kinds(step, setting)
    if found.kind not in kinds:
        wanted = " or ".join(one_of("files" if kind == "raw" else kind) for kind in kinds)
        raise ConfigError(
            f"{step.name}.{setting}: expected {wanted}, "
            f"but {step.outside[setting]} is {one_of(found.kind)} ({found.path})"
        )
    return found


def _placed(step: Step, setting: str, error: MaturaError) -> MaturaError:
    """The same error with the setting in front, unless it says so already."""
    place = f"{step.name}.{setting}"
    return error if str(error).startswith(place) else type(error)(f"{place}: {error}")
