"""A setting that takes an artifact or files: which of the two a person means."""

from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from pydantic import Field

from matura.core import artifact, planning, recipe, resolve
from matura.core.artifact import Artifact
from matura.core.config import Config, Input
from matura.core.errors import ConfigError, MaturaError
from matura.core.raw import RawInput
from matura.core.workspace import Workspace
from tests.core.fake_stages import make_model


class Learn(Config):
    rows: Annotated[str | None, Input("conversations", "raw")] = Field(None, description="What to learn.")


def fetch(config: Learn, setting: str, workspace: Workspace | None = None) -> Path:
    assert config.rows is not None
    return workspace.root / "fetched" if workspace and config.rows.startswith("hf:") else Path(config.rows)


MODULES = {"learn": SimpleNamespace(KIND="conversations", VERSION=1, Config=Learn, raw_input=fetch)}


def found(place: Workspace, reference: str, *, look_only: bool = False) -> Any:
    one = recipe.single("learn", [f"rows={reference}"], MODULES)
    return resolve.outside(one, place, look_only=look_only)["learn", "rows"]


def made(folder: Path, kind: str = "conversations") -> Artifact:
    draft = artifact.begin(folder, kind=kind, stage="synthesize", version=1, config={}, inputs={})
    (draft.path / "train.jsonl").write_text("")
    return draft.commit({})


def test_a_path_is_an_artifact_if_it_holds_one_else_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = Workspace(tmp_path / "ws")
    own = tmp_path / "mine.jsonl"
    own.write_text("{}")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.jsonl").write_text("{}")
    talks = made(tmp_path / "talks")
    assert found(place, str(talks.path)) == talks
    for reference in (str(own), "mine.jsonl", "folder"):
        assert isinstance(found(place, reference), RawInput)
    (place.root / "fetched").mkdir(parents=True)
    (place.root / "fetched" / "data.parquet").write_text("x")
    assert set(found(place, "hf:some/dataset").files) == {"data.parquet"}
    assert found(place, "hf:some/dataset", look_only=True) is None  # a plan fetches nothing
    one = recipe.single("learn", ["rows=hf:some/dataset"], MODULES)
    assert planning.plan(one, place)[0].why == "never run; hf:some/dataset is fetched first"


def test_what_is_neither_says_what_it_looks_like(tmp_path: Path) -> None:
    place = Workspace(tmp_path / "ws")
    make_model(place, "base")
    (tmp_path / "mine.jsonl").write_text("{}")
    for look_only in (False, True):  # a plan says so too: nothing would fetch it
        with pytest.raises(MaturaError, match="There is no file or folder"):
            found(place, str(tmp_path / "mine.json"), look_only=look_only)
    with pytest.raises(MaturaError, match="There is no artifact 'tlaks'"):
        found(place, "tlaks")
    with pytest.raises(ConfigError, match="expected conversations or files, but base is a model"):
        found(place, "base")
