import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from matura.core import lineage
from matura.core.artifact import Artifact, begin
from matura.core.errors import ArtifactError, MaturaError, ModelNotFound
from matura.core.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "work")


def make(place: Path) -> Artifact:
    return begin(place, kind="model", stage="tune", version=1, config={}, inputs={}).commit({})


def record_run(workspace: Workspace, recipe: str, **stages: str) -> None:
    path = workspace.runs / recipe / "run.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"schema": 1, "stages": {name: {"dir": place} for name, place in stages.items()}})
    )


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MATURA_WORKSPACE", raising=False)
    assert Workspace().root == tmp_path / "workspace"
    monkeypatch.setenv("MATURA_WORKSPACE", "~/elsewhere")
    assert Workspace().root == tmp_path / "home" / "elsewhere"
    assert Workspace("here").root == tmp_path / "here"
    assert list(tmp_path.iterdir()) == []


def test_names_cannot_lead_out(workspace: Workspace) -> None:
    assert workspace.model("smollm2") == workspace.models / "smollm2"
    assert workspace.stage("adapt", "tuned", "0123456789abcdef").name == "tuned-0123456789ab"
    for name in ("../x", "", ".hidden", "a/b", "x" * 200):
        with pytest.raises(MaturaError, match="cannot be the name"):
            workspace.model(name)


def test_find_by_path_stage_and_name(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = make(workspace.stage("adapt", "tuned", "0" * 64))
    base = make(workspace.model("smollm2"))
    record_run(workspace, "adapt", tuned=tuned.path.name, later="later-000000000000")
    assert workspace.find(str(tuned.path)) == tuned
    assert workspace.find(str(tuned.path / "artifact.json")) == tuned
    assert workspace.find("adapt/tuned") == tuned
    assert workspace.find("smollm2") == base
    monkeypatch.chdir(workspace.models)
    assert workspace.find("./smollm2") == base
    with pytest.raises(ArtifactError, match="adapt/later was planned but has not run yet"):
        workspace.find("adapt/later")
    assert workspace.artifacts() == [base.path, tuned.path]


def test_a_pulled_model_is_found_by_its_reference(workspace: Workspace) -> None:
    pulled = make(workspace.models / "org--name--main")
    assert workspace.find("hf:org/name@main") == pulled
    with pytest.raises(ModelNotFound):
        workspace.find("hf:org/name")


def test_what_is_not_found_names_the_nearest(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="has: nothing yet"):
        workspace.find("smollm2")
    make(workspace.model("smollm2"))
    record_run(workspace, "adapt", tuned="tuned-0")
    with pytest.raises(ModelNotFound, match="did you mean smollm2"):
        workspace.find("smolm2")
    with pytest.raises(ModelNotFound, match="did you mean adapt/tuned"):
        workspace.find("adapt/tunned")
    with pytest.raises(ModelNotFound, match="has: smollm2, adapt/tuned"):
        workspace.find("zzz")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ModelNotFound, match=r"is not an artifact: it has no artifact\.json"):
        workspace.find(str(tmp_path / "folder"))


def test_a_run_is_told_from_its_stages_and_from_what_does_not_exist(workspace: Workspace) -> None:
    made = make(workspace.stage("adapt", "tuned", "0" * 64))
    record_run(workspace, "adapt", tuned=made.path.name)
    with pytest.raises(
        ModelNotFound, match=r"'adapt' is a whole run; name one of its stages, such as adapt/tuned"
    ):
        workspace.find("adapt")
    with pytest.raises(ModelNotFound, match="There is no artifact 'adap'"):
        workspace.find("adap")


def test_what_a_lineage_names_is_found(workspace: Workspace) -> None:
    made = make(workspace.stage("adapt", "tuned", "0" * 64))
    record_run(workspace, "adapt", tuned="tuned-111111111111")
    assert workspace.find(lineage.name_of(made.path)) == made
    with pytest.raises(ModelNotFound, match="did you mean adapt/tuned"):
        workspace.find("adapt/tuned-0123456789ab")


def test_names_of_one_kind(workspace: Workspace) -> None:
    made = make(workspace.stage("adapt", "tuned", "0" * 64))
    record_run(workspace, "adapt", tuned=made.path.name, later="later-000000000000")
    assert workspace.names() == ["adapt/tuned", "adapt/later"]
    assert workspace.names(made.kind) == ["adapt/tuned"]
    assert workspace.names("another") == []


def test_a_workspace_that_is_no_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with (
            pytest.raises(MaturaError, match=r"cannot be used.*choose another with --workspace"),
            Workspace(place).lock(),
        ):
            pass


def test_an_interrupted_pull_counts_as_not_pulled_but_its_path_says_so(workspace: Workspace) -> None:
    begin(workspace.model("half"), kind="model", stage="pull", version=1, config={}, inputs={})
    with pytest.raises(ModelNotFound):
        workspace.find("half")
    with pytest.raises(ArtifactError, match="interrupted"):
        workspace.find(str(workspace.model("half")))
    assert workspace.drafts() == [workspace.model("half")]


@pytest.mark.parametrize("content", ["{", "{}", '{"stages": {"a": "dir"}}', '{"stages": {"a": {"dir": 3}}}'])
def test_a_broken_run_record_is_named(workspace: Workspace, content: str) -> None:
    record_run(workspace, "adapt")
    assert workspace.recipes() == ["adapt"]
    assert workspace.read_run("adapt") == {}
    assert workspace.read_run("never") == {}
    (workspace.runs / "adapt" / "run.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"run\.json.*Delete it and run the recipe again"):
        workspace.read_run("adapt")


def test_the_disk_is_checked_before_work_starts(workspace: Workspace) -> None:
    workspace.check_disk(1, "the stage tuned")
    with pytest.raises(
        ArtifactError, match=r"the stage tuned needs about 1000000\.0 TB of disk, but only .* is free"
    ):
        workspace.check_disk(10**18, "the stage tuned")


HOLD = """
import sys
from matura.core.workspace import Workspace
with Workspace(sys.argv[1]).lock():
    print("held", flush=True)
    sys.stdin.readline()
"""


def hold(workspace: Workspace) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workspace.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_and_told_who_holds_it(workspace: Workspace) -> None:
    with hold(workspace) as process:
        with (
            pytest.raises(MaturaError, match=rf"in use by process {process.pid} \(.*\) since 20"),
            workspace.lock(),
        ):
            pass
        process.communicate("\n")
    with workspace.lock():
        assert json.loads((workspace.root / "lock").read_text())["pid"] == os.getpid()
    assert (workspace.root / "lock").read_text() == ""


def test_a_dead_holder_holds_nothing(workspace: Workspace) -> None:
    with hold(workspace) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (workspace.root / "lock").read_text() != ""
    with workspace.lock():
        pass


def test_waiting_gets_the_lock_when_it_is_free(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    with hold(workspace) as process:
        release = threading.Timer(0.5, lambda: process.communicate("\n"))
        release.start()
        with workspace.lock(wait=True):
            release.join()
    assert capsys.readouterr().err.count("Waiting for the workspace") == 1


def test_the_lock_is_free_after_an_error(workspace: Workspace) -> None:
    def fail() -> None:
        with workspace.lock():
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    with workspace.lock():
        pass
