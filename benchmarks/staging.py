"""Stages run from Python: one without a recipe, with the artifacts that it is given; or those of a recipe as values."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from matura import api, cli
from matura.core import artifact, config, left_out, sizes, yamlfile
from matura.core import recipe as recipes
from matura.core.artifact import Artifact, RawInput
from matura.core.config import parse
from matura.core.files import read_json
from matura.core.preferences import HELDOUT, TRAIN, Ranking, write_rankings
from matura.core.problems import Problems
from matura.core.rounds import merged
from matura.core.run import Event
from matura.core.run import run as run_recipe
from matura.core.workspace import Workspace

MAX_RESULTS = 64 << 20
"""Bytes of what an exam found."""


def run(
    stage: ModuleType, folder: Path, inputs: Mapping[str, Artifact | RawInput], settings: Mapping[str, Any]
) -> Artifact:
    """What a stage makes in `folder`. An input is the setting of its name too, unless it lies deeper (`a.b.file`): then
    `settings` name it. Raises ConfigError when the settings do not fit."""
    places = {name: str(one.path) for name, one in inputs.items() if "." not in name}
    name = stage.__name__.rpartition(".")[2]
    config = parse(stage.Config, {**settings, **places}, name)
    draft = artifact.begin(
        folder, kind=stage.KIND, stage=name, version=stage.VERSION, config=config, inputs=inputs
    )
    made: Artifact = stage.run(config, inputs, draft)
    return made


def preferences(folder: Path, train: Sequence[Ranking], heldout: Sequence[Ranking]) -> Artifact:
    """Rankings as an artifact, as the stage `rank` leaves them."""
    draft = artifact.begin(folder, kind="preferences", stage="rank", version=1, config={}, inputs={})
    write_sides(draft.path, train, heldout)
    return draft.commit({})


def write_sides(folder: Path, train: Sequence[Ranking], heldout: Sequence[Ranking]) -> None:
    """The two files of rankings, in a folder that is there."""
    write_rankings(folder / TRAIN, train)
    write_rankings(folder / HELDOUT, heldout)


def model(folder: Path, network: Any, format: Any, summary: Mapping[str, Any]) -> Artifact:
    """A model that was taught here (`Transformer`) with its conversation format (`Format`), as an artifact."""
    from matura.model import store

    draft = artifact.begin(folder, kind="model", stage="taught", version=1, config={}, inputs={})
    store.save(draft.path, network)
    format.save(draft.path)
    return draft.commit(dict(summary))


def results(exam: Artifact) -> dict[str, Any]:
    """What an exam found."""
    found: dict[str, Any] = read_json(exam.file("results.json"), limit=MAX_RESULTS, what="results of an exam")
    return found


def as_run(file: Path, overrides: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Name and stages of a recipe as it is run: in its size, with what is overridden. What the recipe itself checks
    (see `core/recipe.py`) is checked when it runs."""
    document = yamlfile.read(file)
    values, problems = document.values, Problems(str(file), document.lines)
    found, others = sizes.read(values, values["stages"], overrides, problems)
    problems.stop_if_any()
    written = {"stages": merged(values["stages"], found.changes[found.chosen])}
    for one in others:
        written = config.set_dotted(written, f"stages.{one}")
    stages = left_out.without(written["stages"], values["stages"], problems.add)
    problems.stop_if_any()
    return found.title(values["name"]), stages


def recipe(
    name: str,
    stages: Mapping[str, Any],
    workspace: Workspace,
    show: Callable[[Event], None] = lambda event: None,
) -> dict[str, Artifact]:
    """What the stages of a recipe make, as the run `name`; what is there already is reused, and a
    model that is not there is pulled."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "recipe.yaml")
        file.write_text(json.dumps({"name": name, "stages": stages}), encoding="utf-8")  # JSON is YAML
        loaded = recipes.load(file, cli._Modules())
    return run_recipe(loaded, workspace, api.pull, show=show)
