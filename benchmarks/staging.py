"""Single stages run from Python, without a recipe, and the artifacts that they are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from matura.core import artifact
from matura.core.artifact import Artifact, RawInput
from matura.core.config import parse
from matura.core.preferences import HELDOUT, TRAIN, Ranking, write_rankings


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
