import json
import os
from pathlib import Path
from typing import Any

import pytest

from matura.core.artifact import Artifact, Draft, begin
from matura.core.errors import ArtifactError
from matura.core.reclaim import Unused, find_unused, remove_unused
from matura.core.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "work")


def draft(place: Path, **inputs: Artifact) -> Draft:
    started = begin(place, kind="model", stage="tune", version=1, config={"name": place.name}, inputs=inputs)
    (place / "weights.bin").write_bytes(b"x" * 1000)
    return started


def make(place: Path, **inputs: Artifact) -> Artifact:
    return draft(place, **inputs).commit({})


def record_run(workspace: Workspace, recipe: str, *stages: str) -> None:
    content = {"schema": 1, "stages": {name: {"dir": name} for name in stages}}
    (workspace.runs / recipe / "run.json").write_text(json.dumps(content))


def age(place: Path) -> None:
    for folder, _, names in os.walk(place):
        for path in (folder, *(os.path.join(folder, name) for name in names)):
            os.utime(path, (1, 1))


def names(unused: list[Unused]) -> list[str]:
    return [item.path.name for item in unused]


def test_only_what_the_latest_runs_need_stays(workspace: Workspace) -> None:
    run = workspace.runs / "adapt"
    base = make(workspace.models / "base")
    corpus = make(run / "corpus-1")
    make(run / "tuned-2", model=base, corpus=corpus)
    make(run / "tuned-old", model=base, corpus=corpus)
    make(workspace.models / "other")
    record_run(workspace, "adapt", "tuned-2")
    unused = find_unused(workspace)
    assert names(unused) == ["tuned-old"]
    assert 1000 < unused[0].bytes < 10_000
    assert "latest run" in unused[0].why
    assert (run / "tuned-old").exists()
    assert remove_unused(workspace, unused) == unused[0].bytes
    assert sorted(path.name for path in run.iterdir()) == ["corpus-1", "run.json", "tuned-2"]
    assert find_unused(workspace) == []


def test_models_go_only_when_asked_and_only_unused_ones(workspace: Workspace) -> None:
    run = workspace.runs / "adapt"
    base = make(workspace.models / "base")
    tuned = make(run / "tuned-1", model=base)
    make(workspace.models / "named", model=make(run / "merged-1", model=tuned))
    record_run(workspace, "adapt", "tuned-1")
    assert find_unused(workspace) == []
    assert names(find_unused(workspace, models=True)) == ["named", "merged-1"]


def test_drafts_stay_while_somebody_may_resume_them(workspace: Workspace) -> None:
    run = workspace.runs / "adapt"
    needed_by_draft = make(run / "corpus-1")
    draft(run / "tuned-2", corpus=needed_by_draft)
    draft(run / "tuned-stale")
    draft(run / "tuned-fresh")
    record_run(workspace, "adapt", "tuned-2")
    for place in ("tuned-2", "tuned-stale"):
        age(run / place)
    assert names(find_unused(workspace)) == ["tuned-stale"]
    assert names(find_unused(workspace, stale_seconds=0)) == ["tuned-fresh", "tuned-stale"]


def test_leftovers_of_kills_are_found(workspace: Workspace) -> None:
    run = workspace.runs / "adapt"
    made = make(run / "tuned-1")
    (made.path / "resume").mkdir()
    (run / ".removing-7-tuned-0").mkdir()
    (run / ".matura-7-run.json.tmp").write_text("x")
    workspace.downloads.mkdir()
    (workspace.downloads / ".partial-abc").mkdir()
    (run / "my notes").mkdir()
    record_run(workspace, "adapt", "tuned-1")
    unused = find_unused(workspace)
    assert sorted(names(unused)) == [
        ".matura-7-run.json.tmp",
        ".partial-abc",
        ".removing-7-tuned-0",
        "resume",
    ]
    remove_unused(workspace, unused)
    assert sorted(path.name for path in run.iterdir()) == ["my notes", "run.json", "tuned-1"]
    assert not (made.path / "resume").exists()


def test_nothing_goes_when_what_a_run_needs_is_unknown(workspace: Workspace) -> None:
    run = workspace.runs / "adapt"
    made = make(run / "tuned-1")
    make(run / "tuned-0")
    record_run(workspace, "adapt", "tuned-1")
    (made.path / "artifact.json").write_text("{")
    with pytest.raises(ArtifactError, match="not valid JSON"):
        find_unused(workspace)
    (run / "run.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"run\.json"):
        find_unused(workspace)


def test_a_damaged_artifact_that_nothing_needs_goes(workspace: Workspace) -> None:
    run = workspace.runs / "adapt"
    make(run / "tuned-1")
    (make(run / "tuned-0").path / "artifact.json").write_text("{")
    record_run(workspace, "adapt", "tuned-1")
    assert names(find_unused(workspace)) == ["tuned-0"]


def test_a_removal_that_is_killed_leaves_no_half_artifact(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = workspace.runs / "adapt"
    make(run / "tuned-0")
    record_run(workspace, "adapt")
    unused = find_unused(workspace)

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("matura.core.reclaim.remove", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_unused(workspace, unused)
    assert workspace.artifacts() == []
    remove_unused(workspace, find_unused(workspace))
    assert [path.name for path in run.iterdir()] == ["run.json"]


def test_nothing_outside_the_workspace_is_removed(workspace: Workspace, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    workspace.runs.mkdir(parents=True)
    (workspace.runs / "link").symlink_to(tmp_path)
    for path in (outside, workspace.runs / "link" / "outside", workspace.root):
        with pytest.raises(ArtifactError, match="outside the workspace"):
            remove_unused(workspace, [Unused(path, 0, "")])
    assert outside.exists()


def test_an_empty_workspace_has_nothing_to_remove(workspace: Workspace) -> None:
    found: list[Any] = find_unused(workspace)
    assert found == []
