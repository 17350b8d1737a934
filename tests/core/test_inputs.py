"""Inputs that stand in groups of settings: found, checked, resolved and recorded under their dotted name."""

from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from pydantic import Field

from matura.core import config, inputs, planning, recipe, run
from matura.core.artifact import Draft
from matura.core.config import Config, Input
from matura.core.errors import ConfigError
from matura.core.workspace import Workspace


def test_kinds_in_a_sentence() -> None:
    kinds = ("model", "corpus", "export", "evaluation", "tokens", "files")
    assert [inputs.one_of(kind) for kind in kinds] == [
        "a model", "a corpus", "an export", "an evaluation", "tokens", "files",
    ]  # fmt: skip


class Source(Config):
    path: Annotated[str | None, Input("raw")] = Field(None, description="Folder.")
    made: Annotated[str | None, Input("corpus")] = Field(None, description="Or an artifact.")
    weight: float = 1.0


class Filter(Config):
    examples: Annotated[str | None, Input("raw")] = None


class Gather(Config):
    sources: dict[str, Source] = Field({}, description="Where from.")
    quality: Filter = Filter()


def gather(config: Gather, found: dict[str, Any], draft: Draft) -> Any:
    (draft.path / "inputs.txt").write_text("\n".join(f"{name} {found[name].id}" for name in sorted(found)))
    return draft.commit({"line": "gathered"})


MODULES = {"gather": SimpleNamespace(KIND="corpus", VERSION=1, Config=Gather, run=gather, __doc__="Gather.")}


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def checked(folder: Path, text: str) -> recipe.Recipe:
    return recipe.load(written(folder, text), MODULES)


RECIPE = """
stages:
  first: {stage: gather, sources: {a: {path: notes}}}
  second:
    stage: gather
    sources: {b: {path: notes}, c: {made: $first, weight: 2}}
    quality: {examples: notes}
"""


def test_they_are_found_where_they_stand() -> None:
    one = Gather(sources={"a": Source(path="~/x"), "b": Source(made="$first")}, quality=Filter(examples="y"))
    assert inputs.inputs_of(one) == {
        "sources.a.path": "~/x",
        "sources.b.made": "$first",
        "quality.examples": "y",
    }
    assert inputs.kinds_of(one)["sources.b.made"] == ("corpus",)
    assert inputs.settings_of(one) == {
        "sources": {"a": {"weight": 1.0}, "b": {"weight": 1.0}},
        "quality": {},
    }
    moved = inputs.with_inputs(one, {"sources.a.path": "/x", "quality.examples": "/y"})
    assert inputs.inputs_of(moved) == {
        "sources.a.path": "/x",
        "sources.b.made": "$first",
        "quality.examples": "/y",
    }
    assert inputs.settings_of(moved) == inputs.settings_of(one)


def test_a_recipe_runs_and_reuses_by_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("text")
    place = Workspace(tmp_path / "w")
    parsed = checked(tmp_path, RECIPE)
    assert [step.name for step in parsed.steps] == ["first", "second"]
    assert parsed.steps[1].uses == {"sources.c.made": "first"}

    def again() -> list[str]:
        events: list[run.Event] = []
        run.run(checked(tmp_path, RECIPE), place, _no_pull, show=events.append)
        return [event.status for event in events if event.made]

    assert again() == ["made", "made"]
    names = place.find("recipe/second").inputs
    assert set(names) == {"sources.b.path", "sources.c.made", "quality.examples"}
    assert again() == ["reused", "reused"]
    (tmp_path / "notes" / "b.txt").write_text("more")
    rows = planning.plan(checked(tmp_path, RECIPE), place)
    assert "input sources.a.path changed" in rows[0].why


def _no_pull(reference: str, workspace: Workspace) -> Any:
    raise AssertionError(reference)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{a: {made: $frist}}", r"sources\.a\.made: there is no stage 'frist'"),
        ("{a: {weight: $first}}", r"sources\.a\.weight: is not an input"),
        ("{a: {pth: x}}", r"sources\.a\.pth: unknown setting"),
    ],
)
def test_what_is_wrong_in_them_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked(
            tmp_path,
            f"stages:\n  first: {{stage: gather}}\n  second: {{stage: gather, sources: {text}}}\n",
        )


def test_help_names_them() -> None:
    text = "\n".join(config.describe(Gather))
    assert "sources.NAME.path  (path" in text
    assert "quality.examples  (path" in text


class General(Config):
    text: Annotated[str | None, Input("raw")] = None


class Tune(Config):
    notes: Annotated[str, Input("raw")] = "~/notes"
    forgetting: General = General()


def test_general_text_may_be_a_wheel_and_other_inputs_are_paths(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.downloads.mkdir()
    (wheel := workspace.downloads / "exams-1.0-py3-none-any.whl").write_bytes(b"")
    assert inputs.located(Tune(), "notes") == Path.home() / "notes"
    tune = Tune(notes="wheel:exams==1.0", forgetting=General(text="wheel:exams==1.0"))
    assert inputs.located(tune, "forgetting.text", workspace) == wheel
    assert inputs.located(tune, "notes", workspace) == Path("wheel:exams==1.0")
    plain = Tune(forgetting=General(text="~/texts"))
    assert inputs.located(plain, "forgetting.text", workspace) == Path.home() / "texts"
