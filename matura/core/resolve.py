"""From the references in a recipe to what they name: artifacts of the workspace, pulled models, raw data."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matura.core import config as configs
from matura.core.artifact import Artifact
from matura.core.errors import ArtifactError, ConfigError, FormatError, MaturaError
from matura.core.files import canonical_hash, read_json, write_json
from matura.core.raw import RawInput, raw_input
from matura.core.recipe import Recipe, Step
from matura.core.workspace import Workspace

Resolved = Artifact | RawInput
Pull = Callable[[str, Workspace], Artifact]
SETTLED_SECONDS = 2.0  # a file younger than this may change again within one tick of the file system's clock
MAX_CACHE_BYTES = 256 << 20


def outside(recipe: Recipe, workspace: Workspace, pull: Pull) -> dict[tuple[str, str], Resolved]:
    """Everything a recipe takes from outside, by (stage, setting): found, hashed, or pulled.

    This comes before the first stage, so that a wrong path in the last one does not cost hours. What is on
    this machine is looked at first; all that is wrong with it is raised at once.
    """
    found: dict[tuple[str, str], Resolved] = {}
    absent: list[tuple[Step, str, str]] = []
    problems: list[MaturaError] = []
    for step in recipe.steps:
        for setting, text in step.outside.items():
            try:
                value = _raw(step, setting, workspace, keep=True) if is_raw(step, setting) else None
                found[step.name, setting] = value or present(step, setting, workspace)
            except ArtifactError as error:
                if _can_be_pulled(step, setting):
                    absent.append((step, setting, text))
                else:
                    problems.append(_placed(step, setting, error))
            except MaturaError as error:
                problems.append(_placed(step, setting, error))
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise ConfigError(configs.listing(recipe.name, [str(problem) for problem in problems]))
    pulled: dict[str, Artifact] = {}
    for step, setting, text in absent:
        if text not in pulled:
            pulled[text] = pull(text, workspace)
        found[step.name, setting] = _right_kind(step, setting, pulled[text])
    return found


def known(step: Step, setting: str, workspace: Workspace) -> Resolved | None:
    """Like `outside` for one setting, but nothing is fetched or written: None for what is not here."""
    if is_raw(step, setting):
        fetched = hasattr(step.module, "raw_input") and not os.path.exists(step.outside[setting])
        return None if fetched else _raw(step, setting, workspace, keep=False)
    try:
        return present(step, setting, workspace)
    except ArtifactError as error:
        if _can_be_pulled(step, setting):
            return None
        raise _placed(step, setting, error) from None


def is_raw(step: Step, setting: str) -> bool:
    """Whether a setting takes a path to raw data."""
    return "raw" in _kinds(step, setting)


def present(step: Step, setting: str, workspace: Workspace) -> Artifact:
    """The artifact of this workspace that a setting names, of a kind that fits."""
    return _right_kind(step, setting, workspace.find(step.outside[setting]))


def remembered_raw_input(path: Path, workspace: Workspace, keep: bool = True) -> RawInput:
    """`raw_input`, without hashing again what has had the same names, sizes and times since it was hashed.

    `keep` False looks the answer up but stores none.
    """
    began = time.time()
    listing, newest = _listing(path)
    cache = workspace.root / "cache" / f"raw-{canonical_hash(listing)}.json"
    if newest < began - SETTLED_SECONDS:
        try:
            value = read_json(cache, limit=MAX_CACHE_BYTES, what="remembered hashes")
            return RawInput(Path(value["path"]), value["id"], value["files"])
        except (OSError, FormatError, KeyError):
            pass
    made = raw_input(path)
    if keep and newest < began - SETTLED_SECONDS and _listing(path)[0] == listing:
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_json(cache, {"path": str(made.path), "id": made.id, "files": made.files})
    return made


def _raw(step: Step, setting: str, workspace: Workspace, keep: bool) -> RawInput:
    """Raw data as the stage reads its setting: by its own `raw_input(config, setting)`, else as a path."""
    own = getattr(step.module, "raw_input", None)
    value: Any = own(step.config, setting) if own else Path(step.outside[setting])
    return value if isinstance(value, RawInput) else remembered_raw_input(Path(value), workspace, keep)


def _listing(path: Path) -> tuple[list[Any], float]:
    """What a change of the files would change: real path and, for each file, name, size and times."""
    place = path.expanduser().resolve()
    rows: list[Any] = [str(place)]
    newest = 0.0
    seen: set[str] = set()
    walk = os.walk(place, followlinks=True) if place.is_dir() else [(str(place.parent), [], [place.name])]
    for directory, folders, names in walk:
        real = os.path.realpath(directory)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
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
    return configs.input_kinds(step.module.Config)[setting]


def _can_be_pulled(step: Step, setting: str) -> bool:
    """Whether what is not in the workspace may be a model from elsewhere: hf:..., pypi:... or an alias."""
    text = step.outside[setting]
    return "model" in _kinds(step, setting) and (":" in text or "/" not in text) and not os.path.exists(text)


def _right_kind(step: Step, setting: str, found: Artifact) -> Artifact:
    kinds = _kinds(step, setting)
    if found.kind not in kinds:
        raise ConfigError(
            f"{step.name}.{setting}: expected a {' or '.join(kinds)}, "
            f"but {step.outside[setting]} is a {found.kind} ({found.path})"
        )
    return found


def _placed(step: Step, setting: str, error: MaturaError) -> MaturaError:
    """The same error with the setting in front, unless it says so already."""
    place = f"{step.name}.{setting}"
    return error if str(error).startswith(place) else type(error)(f"{place}: {error}")
