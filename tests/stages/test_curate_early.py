"""Wrong settings are told before anything is read; a kill while spans are cut changes no byte."""

from pathlib import Path
from typing import Any

import pytest

from matura.core import artifact
from matura.core.config import parse
from matura.core.errors import ConfigError, MaturaError
from matura.core.raw import raw_input
from matura.data import reading
from matura.stages import curate
from tests.stages import planted
from tests.stages.test_curate import bytes_of, killed_at, make_corpus, make_folder, report
from tests.tiny_models import make

ON = {"use": "on"}


def made(out: Path, **settings: Any) -> artifact.Artifact:
    """A corpus from settings whose other inputs are given as what they are."""
    given = {name: value for name, value in settings.items() if isinstance(value, artifact.Artifact)}
    values = {**settings, **{name: str(value.path) for name, value in given.items()}}
    config = parse(curate.Config, {"heldout": 1, "engine": {"workers": 1}, **values}, "test")
    inputs: dict[str, Any] = {"path": raw_input(Path(values["path"])), **given}
    if problems := values.get("decontaminate", {}).get("problems"):
        inputs["decontaminate.problems"] = raw_input(Path(problems))
    return make(curate, out, config, inputs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pii": {"names": "nowhere:find"}}, "leads to no function"),
        ({"pii": {"national_ids": ["XX"]}}, "'XX' is not known"),
        ({"language": {**ON, "keep": ["xx"]}}, "no language that can be told"),
        ({"language": {**ON, "filters": {"xx": {}}}}, "no language that can be told"),
        ({"quality": ON}, "`examples` is missing"),
        ({"toxicity": {**ON, "score": "nowhere:score"}}, "leads to no function"),
        ({"decontaminate": {"problems": "empty.jsonl"}}, "decontaminate"),
    ],
)
def test_wrong_settings_are_told_before_anything_is_read(
    tmp_path: Path, settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: Any) -> Any:
        raise AssertionError("read")

    monkeypatch.setattr(reading, "read", read)
    monkeypatch.chdir(tmp_path)
    Path("empty.jsonl").touch()
    with pytest.raises(ConfigError, match=message):
        made(tmp_path / "out", path=str(make_folder(tmp_path / "in")), **settings)


def test_an_index_of_other_settings_is_told_before_anything_is_read(tmp_path: Path) -> None:
    folder = str(make_folder(tmp_path / "in"))
    first = made(tmp_path / "one", path=folder, fuzzy=ON)
    for fuzzy, message in (
        ({}, "fuzzy={use: on, words: 5, bands: 20, rows: 6}"),
        (ON | {"bands": 5}, "same"),
    ):
        with pytest.raises(MaturaError, match=message):
            made(tmp_path / f"two{message}", path=folder, fuzzy=fuzzy, index=first)
    plain = made(tmp_path / "three", path=folder)
    with pytest.raises(MaturaError, match="holds no index"):
        made(tmp_path / "four", path=folder, index=plain)
    with pytest.raises(ConfigError, match="drop copies"):
        made(tmp_path / "five", path=folder, against=first, exact_duplicates="keep")


@pytest.mark.parametrize("killed", ["duplicates", "unique", "repeated"])
def test_a_kill_while_copies_are_cut_changes_no_byte(tmp_path: Path, killed: str) -> None:
    planted.web(tmp_path / "in")
    settings: dict[str, Any] = {
        "fuzzy": ON,
        "substring": ON,
        "engine": {"workers": 1, "part_bytes": 1 << 16},
    }
    whole = make_corpus(tmp_path / "one", tmp_path / "in", **settings)
    with killed_at(killed), pytest.raises(KeyboardInterrupt):
        make_corpus(tmp_path / "two", tmp_path / "in", **settings)
    again = make_corpus(tmp_path / "two", tmp_path / "in", **settings)
    assert again.record["resumed"] == 1
    assert bytes_of(again) == bytes_of(whole)
    steps = {step["name"]: step for step in report(whole)["steps"]}
    assert steps["substring"]["counts"]["cut"] >= 1
