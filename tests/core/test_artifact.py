import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from matura.core import artifact
from matura.core.artifact import Artifact, Draft, begin, check_files, key, load, raw_input, verify
from matura.core.errors import ArtifactError
from matura.core.files import atomic_write


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "a.md").write_text("one")
    return folder


def start(place: Path, notes: Path, **changes: Any) -> Draft:
    request: dict[str, Any] = {
        "kind": "corpus",
        "stage": "curate",
        "version": 1,
        "config": {"path": str(notes), "minimum": 3},
        "inputs": {"path": raw_input(notes)},
    }
    return begin(place, **(request | changes))


def make(place: Path, notes: Path, content: str = "data", **changes: Any) -> Artifact:
    draft = start(place, notes, **changes)
    (draft.path / "sub").mkdir(exist_ok=True)
    (draft.path / "sub" / "train.txt").write_text(content)
    (draft.path / "report.json").write_text(str(place))
    draft.metrics.log(1, seconds=id(draft))
    return draft.commit({"line": "1 document", "score": float("nan")}, logs=["report.json"])


def test_a_committed_artifact_loads_and_says_what_made_it(tmp_path: Path, notes: Path) -> None:
    made = make(tmp_path / "out", notes)
    found = load(str(tmp_path / "out"))
    assert found == made
    assert found.kind == "corpus"
    assert found.summary == {"line": "1 document", "score": None}
    assert found.config == {"path": str(notes), "minimum": 3}
    assert found.inputs["path"]["files"]["a.md"]["bytes"] == 3
    assert found.record["files"].keys() == {"metrics.jsonl", "report.json", "sub/train.txt"}
    assert found.file("sub/train.txt").read_text() == "data"
    assert {entry.name for entry in found.path.iterdir()} == {
        "artifact.json",
        "metrics.jsonl",
        "report.json",
        "sub",
    }
    assert {"code", "environment", "created", "seconds"} <= found.record.keys()
    verify(found)


def test_equal_results_have_equal_ids_wherever_and_whenever_they_are_made(
    tmp_path: Path, notes: Path
) -> None:
    first = make(tmp_path / "one", notes)
    moved = notes.rename(tmp_path / "moved")
    assert make(tmp_path / "two", moved).id == first.id
    others = [
        make(tmp_path / "three", moved, content="other"),
        make(tmp_path / "four", moved, config={"path": "x", "minimum": 4}),
        make(tmp_path / "five", moved, version=2),
        make(tmp_path / "six", moved, kind="conversations"),
    ]
    assert len({first.id, *(other.id for other in others)}) == 5


def test_the_key_ignores_where_an_input_is_and_nothing_else() -> None:
    base = key(
        "curate", 1, {"path": "a", "n": 1, "group": {"path": "b", "n": 2}}, {"path": "1", "group.path": "2"}
    )
    moved = {"path": "x", "n": 1, "group": {"path": "y", "n": 2}}
    assert key("curate", 1, moved, {"path": "1", "group.path": "2"}) == base
    assert key("curate", 1, moved, {"path": "1", "group.path": "3"}) != base
    assert key("curate", 2, moved, {"path": "1", "group.path": "2"}) != base
    moved["group"]["n"] = 3  # type: ignore[index]
    assert key("curate", 1, moved, {"path": "1", "group.path": "2"}) != base


def test_an_interrupted_draft_is_taken_up_again(tmp_path: Path, notes: Path) -> None:
    place = tmp_path / "out"
    draft = start(place, notes)
    (draft.resume / "step-3").write_text("weights")
    draft.metrics.log(3, loss=1)
    (place / ".matura-1-x.tmp").write_text("half")
    with pytest.raises(ArtifactError, match="was interrupted before it was finished"):
        load(place)
    again = start(place, notes)
    assert (again.resume / "step-3").read_text() == "weights"
    assert again.metrics.rows() == [{"step": 3, "loss": 1}]
    assert not (place / ".matura-1-x.tmp").exists()
    made = again.commit({})
    assert made.record["resumed"] == 1
    assert {entry.name for entry in place.iterdir()} == {"artifact.json", "metrics.jsonl"}


def test_what_a_kill_left_of_a_library_is_no_part_of_the_artifact(tmp_path: Path, notes: Path) -> None:
    """A library may write to a temporary file of its own; killed then, it leaves it beside what it was given."""
    with atomic_write(tmp_path / "probe") as temporary:
        temporary.write_text("x")
        place = temporary.parent.name
    assert temporary.parent.parent == tmp_path
    draft = start(tmp_path / "out", notes)
    for folder in (draft.path, draft.path / "parts"):
        (folder / place).mkdir(parents=True)
        (folder / place / ".tmpA1b2C3").write_text("half")
    (draft.path / "whole").write_text("all")
    made = draft.commit({})
    assert set(made.record["files"]) == {"whole"}
    assert not list(made.path.rglob(".tmp*"))


def test_time_is_that_of_all_sessions_and_no_part_of_the_id(tmp_path: Path, notes: Path) -> None:
    whole = start(tmp_path / "whole", notes)
    (whole.path / "train.txt").write_text("data")
    place = tmp_path / "killed"
    draft = start(place, notes)
    (draft.path / "train.txt").write_text("data")
    for later in (100, 130):  # two sessions whose last sign of life came so much later
        begun = json.loads((place / "draft.json").read_text())["began"]
        os.utime(place / "train.txt", (begun + later, begun + later))
        draft = start(place, notes)
        os.utime(place / "train.txt", (begun, begun))
    made, other = draft.commit({}), whole.commit({})
    assert 225 < made.record["seconds"] < 240
    assert other.record["seconds"] < 10
    assert {"cpu_seconds", "peak_memory"} <= made.record.keys()
    assert made.id == other.id


@pytest.mark.parametrize(
    "change", [{"version": 2}, {"config": {"path": "x", "minimum": 5}}, {"stage": "gather"}, {"inputs": {}}]
)
def test_a_draft_of_something_else_is_cleared(tmp_path: Path, notes: Path, change: dict[str, Any]) -> None:
    place = tmp_path / "out"
    draft = start(place, notes)
    (draft.resume / "step-3").write_text("weights")
    (place / "train.txt").write_text("half")
    other = start(place, notes, **change)
    assert sorted(entry.name for entry in place.iterdir()) == ["draft.json", "resume"]
    assert list(other.resume.iterdir()) == []
    assert other.commit({}).record["resumed"] == 0


def test_nothing_finished_or_foreign_is_written_over(tmp_path: Path, notes: Path) -> None:
    make(tmp_path / "out", notes)
    with pytest.raises(ArtifactError, match="already holds a finished artifact"):
        start(tmp_path / "out", notes)
    with pytest.raises(ArtifactError, match="files that matura did not make"):
        start(notes, notes)
    (notes / "draft.json").write_text('{"mine": true}')
    with pytest.raises(ArtifactError, match="files that matura did not make"):
        start(notes, notes)
    assert (notes / "a.md").read_text() == "one"
    with pytest.raises(ArtifactError, match="is a file"):
        start(notes / "a.md", notes)


def fill_disk(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Let `after` syncs succeed; every later one finds the disk full."""
    real, calls = os.fsync, iter(range(10**6))

    def fsync(descriptor: int) -> None:
        if next(calls) >= after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("after", range(3))
def test_a_full_disk_during_commit_costs_nothing(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    earlier = make(tmp_path / "earlier", notes)
    draft = start(tmp_path / "out", notes)
    (draft.path / "train.txt").write_text("data")
    (draft.resume / "step-3").write_text("weights")
    with monkeypatch.context() as patch:
        fill_disk(patch, after)
        with pytest.raises(
            ArtifactError, match=r"disk is full: .* while writing .*run the same command again"
        ):
            draft.commit({})
    assert not (draft.path / "artifact.json").exists()
    assert not list(draft.path.glob(".matura-*"))
    verify(earlier)
    again = start(tmp_path / "out", notes)
    assert (again.resume / "step-3").read_text() == "weights"
    verify(again.commit({}))


@pytest.mark.parametrize("after", [3, 4])
def test_a_full_disk_after_the_rename_leaves_a_whole_artifact(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    draft = start(tmp_path / "out", notes)
    (draft.path / "train.txt").write_text("data")
    with monkeypatch.context() as patch:
        fill_disk(patch, after)
        with pytest.raises(ArtifactError, match="disk is full"):
            draft.commit({})
    verify(load(tmp_path / "out"))


def test_a_full_disk_at_the_start_is_one_message(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fill_disk(patch, 0)
        with pytest.raises(ArtifactError, match="disk is full"):
            start(tmp_path / "out", notes)
    assert start(tmp_path / "out", notes).commit({}).kind == "corpus"


def test_a_kill_right_after_the_rename_leaves_a_whole_artifact(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = start(tmp_path / "out", notes)
    (draft.path / "train.txt").write_text("data")

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(artifact, "remove", killed)
    with pytest.raises(KeyboardInterrupt):
        draft.commit({})
    verify(load(tmp_path / "out"))


def test_commit_refuses_links_and_unknown_logs(tmp_path: Path, notes: Path) -> None:
    draft = start(tmp_path / "out", notes)
    with pytest.raises(ArtifactError, match=r"named as logs but not written: report\.json"):
        draft.commit({}, logs=["report.json"])
    for target in (notes, notes / "a.md"):
        link = draft.path / "link"
        link.symlink_to(target)
        with pytest.raises(ArtifactError, match="no links"):
            draft.commit({})
        link.unlink()
    draft.commit({})


def test_verify_lists_all_that_was_changed(tmp_path: Path, notes: Path) -> None:
    made = make(tmp_path / "out", notes)
    check_files(made)
    (made.path / "sub" / "train.txt").write_text("DATA")
    check_files(made)
    (made.path / "report.json").unlink()
    with pytest.raises(
        ArtifactError, match=r"(?s)report\.json: is missing.*sub/train\.txt: its content was changed"
    ):
        verify(made)
    with pytest.raises(ArtifactError, match=r"report\.json: is missing"):
        check_files(made)
    with pytest.raises(ArtifactError, match=r"lost its file report\.json"):
        made.file("report.json")
    with pytest.raises(ArtifactError, match=r"no file reprt\.json; did you mean report\.json\?"):
        made.file("reprt.json")


def test_verify_notices_a_changed_record(tmp_path: Path, notes: Path) -> None:
    made = make(tmp_path / "out", notes)
    edit(made, lambda record: record["config"].update(minimum=99))
    with pytest.raises(ArtifactError, match="its id does not follow"):
        verify(load(made.path))


def edit(made: Artifact, change: Any) -> None:
    path = made.path / "artifact.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.pop("kind"), "'kind' is missing"),
        (lambda record: record.update(schema=2), "schema 2, this version of matura reads up to 1: upgrade"),
        (lambda record: record.update(files=[]), "'files' should be dict, not list"),
        (
            lambda record: record["files"].update({"../x": {"bytes": 1, "sha256": ""}}),
            "leads out of the directory",
        ),
        (
            lambda record: record["files"].update({"/x": {"bytes": 1, "sha256": ""}}),
            "leads out of the directory",
        ),
        (lambda record: record["files"].update(x=3), "should have bytes and sha256"),
        (lambda record: record["inputs"].update(x={"id": "1"}), "should have kind, path and id"),
    ],
)
def test_a_record_from_a_stranger_is_checked(tmp_path: Path, notes: Path, change: Any, message: str) -> None:
    made = make(tmp_path / "out", notes)
    edit(made, change)
    with pytest.raises(ArtifactError, match=message):
        load(made.path)


def test_what_is_no_artifact_is_told_apart(tmp_path: Path, notes: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        load(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match="is a file"):
        load(notes / "a.md")
    with pytest.raises(ArtifactError, match=r"has no artifact\.json"):
        load(notes)
    (notes / "artifact.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"not valid JSON.*damaged"):
        load(notes)


def test_an_input_is_found_again_when_everything_moved(tmp_path: Path, notes: Path) -> None:
    corpus = make(tmp_path / "work" / "corpus", notes)
    draft = begin(
        tmp_path / "work" / "model",
        kind="model",
        stage="tune",
        version=1,
        config={},
        inputs={"corpus": corpus},
    )
    draft.commit({})
    (tmp_path / "work").rename(tmp_path / "moved")
    model = load(tmp_path / "moved" / "model")
    assert model.input("corpus").path == tmp_path / "moved" / "corpus"
    with pytest.raises(ArtifactError, match="has no input 'base'"):
        model.input("base")
    edit(model.input("corpus"), lambda record: record.update(id="f" * 64))
    with pytest.raises(ArtifactError, match=r"now holds ffffff"):
        model.input("corpus")
    shutil.rmtree(tmp_path / "moved" / "corpus")
    with pytest.raises(ArtifactError, match="which is gone"):
        model.input("corpus")


def test_a_folder_of_very_many_files_is_recorded_by_hash_and_count(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact, "LISTED_FILES", 0)
    entry = make(tmp_path / "out", notes).inputs["path"]
    assert entry["count"] == 1
    assert "files" not in entry
