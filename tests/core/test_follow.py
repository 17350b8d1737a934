"""The processes that follow the first: they wait for what it makes, and add nothing of their own."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from matura.core import artifact, follow
from matura.core.artifact import Artifact, Draft


def begun(place: Path) -> Draft:
    return artifact.begin(place, kind="model", stage="finetune", version=1, config={}, inputs={})


def made(place: Path) -> Artifact:
    draft = begun(place)
    (draft.path / "weights").write_text("whole")
    return draft.commit({})


def following(place: Path, monkeypatch: pytest.MonkeyPatch, first: Any, **module: Any) -> Artifact:
    """What a follower takes for the stage's output, while the first process does `first` whenever it waits."""
    # Of this module alone: threads that other tests left behind sleep too.
    monkeypatch.setattr(follow, "time", SimpleNamespace(sleep=lambda seconds: first()))
    step: Any = SimpleNamespace(module=SimpleNamespace(**module), config=None)
    return follow._stage(step, {}, place)


def test_it_waits_for_what_the_first_process_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "model"
    assert following(place, monkeypatch, lambda: made(place)).path == place


def test_what_was_damaged_is_waited_for_until_it_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "model"
    made(place)
    (place / "weights").write_text("cut")

    def first() -> None:
        place.rename(tmp_path / "aside")
        made(place)

    artifact.verify(following(place, monkeypatch, first))


def test_it_takes_part_in_what_is_made_together_and_writes_no_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "model"
    draft = begun(place)
    draft.metrics.log(1, loss=2.0)

    def run(config: Any, inputs: Any, own: Draft) -> Artifact:
        own.metrics.log(1, loss=3.0)
        own.metrics.rewind(0)
        assert (own.path, own.resume) == (draft.path, draft.resume)
        return own.commit({"line": "mine"})

    def first() -> None:
        draft.commit({"line": "the first one's"})

    found = following(place, monkeypatch, first, TOGETHER=True, run=run)
    assert found.summary["line"] == "the first one's"
    assert [row["loss"] for row in draft.metrics.rows()] == [2.0]
