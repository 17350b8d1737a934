import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from matura.core import artifact
from matura.core.artifact import Artifact
from matura.core.config import parse
from matura.core.errors import ConfigError, MaturaError
from matura.core.raw import raw_input
from matura.core.records import Document, read_documents
from matura.core.workspace import Workspace
from matura.stages import curate

PROSE = "Chapter {0} tells how part {0} of the machine is built, used and taken care of. " * 5


def make_folder(root: Path, count: int = 9) -> Path:
    for i in range(count):
        path = root / ("deep" if i % 2 else "") / f"chapter{i}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# Chapter {i}\n\n" + PROSE.format(i))
    return root


def make_corpus(out: Path, folder: Path, **settings: Any) -> Artifact:
    config = parse(curate.Config, {"path": str(folder), "heldout": 3, **settings}, "test")
    inputs = {"path": raw_input(curate.raw_input(config, "path"))}
    draft = artifact.begin(
        out, kind=curate.KIND, stage="curate", version=curate.VERSION, config=config, inputs=inputs
    )
    return curate.run(config, inputs, draft)


def documents(corpus: Artifact, *sides: str) -> list[Document]:
    return [
        d for side in sides or ("train", "heldout") for d in read_documents(corpus.file(f"{side}.parquet"))
    ]


def report(corpus: Artifact) -> dict[str, Any]:
    return json.loads(corpus.file("report.json").read_text())  # type: ignore[no-any-return]


def test_a_folder_becomes_a_corpus(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "out", make_folder(tmp_path / "in"))
    train, heldout = documents(corpus, "train"), documents(corpus, "heldout")
    assert (len(train), len(heldout)) == (6, 3)
    assert {d.source for d in train + heldout} == {
        f"{'deep/' if i % 2 else ''}chapter{i}.md" for i in range(9)
    }
    assert len({d.id for d in train + heldout}) == 9
    assert report(corpus)["heldout_files"] == [d.source for d in heldout]
    assert report(corpus)["train"]["characters"] == sum(len(d.text) for d in train)
    assert corpus.summary["line"].startswith("6 documents to learn from (")


def test_equal_documents_give_equal_artifacts_wherever_they_are(tmp_path: Path) -> None:
    first = make_corpus(tmp_path / "one", make_folder(tmp_path / "in"))
    second = make_corpus(tmp_path / "two", make_folder(tmp_path / "elsewhere" / "in"))
    assert first.id == second.id
    other = make_corpus(tmp_path / "three", tmp_path / "in", seed=1)
    assert other.id != first.id


def test_files_of_no_use_are_left_out_and_reported(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "in")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    (folder / "empty.md").touch()
    (folder / "stub.md").write_text("short")
    (folder / "binary.txt").write_bytes(b"abc\x00" * 100)
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 and nothing else")
    (folder / "copy.md").write_text((folder / "chapter0.md").read_text().upper())
    corpus = make_corpus(tmp_path / "out", folder, max_file_bytes=2000)
    assert corpus.summary["files"] == {
        "seen": 15,
        "kept": 9,
        "dropped": {"binary": 1, "broken": 1, "duplicate": 1, "empty": 1, "too short": 1, "unknown type": 1},
    }
    examples = report(corpus)["dropped_examples"]
    assert examples["duplicate"] == [{"file": "copy.md", "detail": "of chapter0.md"}]
    assert examples["too short"] == [{"file": "stub.md", "detail": "5 characters of text"}]


SECRETS = {"EMAIL": "jane@example.com", "PHONE": "+44 20 7946 0958", "CARD": "4111 1111 1111 1111"}


def folder_with_secrets(root: Path) -> Path:
    folder = make_folder(root)
    (folder / "contact.md").write_text(PROSE.format("x") + "\nAsk " + ", ".join(SECRETS.values()) + " today.")
    return folder


def test_personal_data_is_masked_and_never_shown(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "out", folder_with_secrets(tmp_path / "in"))
    (contact,) = [d for d in documents(corpus) if d.source == "contact.md"]
    assert contact.text.endswith("Ask <EMAIL>, <PHONE>, <CARD> today.")
    assert corpus.summary["pii"] == {
        "policy": "mask",
        "documents": 1,
        "counts": {"CARD": 1, "EMAIL": 1, "PHONE": 1},
    }
    assert "Ask <EMAIL>, <PHONE>, <CARD> today." in report(corpus)["pii_examples"]["CARD"][0]["text"]


@pytest.mark.parametrize(("policy", "kept"), [("mask", 10), ("report", 10), ("drop", 9)])
def test_no_policy_writes_a_secret_into_the_report(tmp_path: Path, policy: str, kept: int) -> None:
    corpus = make_corpus(tmp_path / "out", folder_with_secrets(tmp_path / "in"), pii=policy)
    assert len(documents(corpus)) == kept
    written = corpus.file("report.json").read_text() + (corpus.path / "artifact.json").read_text()
    assert not any(secret in written for secret in SECRETS.values())
    leaked = any(SECRETS["EMAIL"] in d.text for d in documents(corpus))
    assert leaked == (policy == "report")


def test_copies_can_be_kept_but_stay_on_one_side(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "in")
    for i in range(0, 9, 2):
        (folder / f"copy{i}.md").write_text((folder / f"chapter{i}.md").read_text())
    corpus = make_corpus(tmp_path / "out", folder, exact_duplicates="keep", heldout=4)
    train, heldout = ({d.text for d in documents(corpus, side)} for side in ("train", "heldout"))
    assert len(documents(corpus)) == 14
    assert train.isdisjoint(heldout)


def test_include_and_exclude(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "out", make_folder(tmp_path / "in"), exclude=["deep/"], heldout=1)
    assert len(documents(corpus)) == 5


class TestErrors:
    def test_missing_empty_and_useless_folders_are_told_apart(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "useless").mkdir()
        (tmp_path / "useless" / "a.md").write_bytes(b"\x00\x01" * 200)
        messages = []
        for name in ("missing", "empty", "useless"):
            with pytest.raises(MaturaError) as error:
                make_corpus(tmp_path / f"out-{name}", tmp_path / name)
            messages.append(str(error.value))
        assert "no file or folder" in messages[0]
        assert "holds no files" in messages[1]
        assert "none of the 1 files" in messages[2]
        assert "a.md: binary (holds NUL bytes)" in messages[2]

    def test_everything_excluded_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(MaturaError, match="excluded"):
            make_corpus(tmp_path / "out", make_folder(tmp_path / "in"), include=["*.pdf"])

    def test_too_few_documents(self, tmp_path: Path) -> None:
        with pytest.raises(MaturaError, match="at least 3 are needed"):
            make_corpus(tmp_path / "out", make_folder(tmp_path / "in", count=2))

    def test_a_file_that_changes_after_it_was_hashed_stops_the_stage(self, tmp_path: Path) -> None:
        folder = make_folder(tmp_path / "in")
        config = parse(curate.Config, {"path": str(folder)}, "test")
        inputs = {"path": raw_input(folder)}
        (folder / "chapter0.md").write_text("something else " * 50)
        draft = artifact.begin(
            tmp_path / "out",
            kind="corpus",
            stage="curate",
            version=curate.VERSION,
            config=config,
            inputs=inputs,
        )
        with pytest.raises(MaturaError, match=r"chapter0\.md changed while it was read"):
            curate.run(config, inputs, draft)
        assert not (tmp_path / "out" / "artifact.json").exists()

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"path": "wheel:demo/docs"}, "wheel:NAME==VERSION/FOLDER"),
            ({"path": "wheel:demo==1.0"}, "wheel:NAME==VERSION/FOLDER"),
            ({"path": "x", "pii": "hide"}, "mask"),
            ({"path": "x", "heldout": 0}, "heldout"),
            ({"path": "x", "heldouts": 3}, "did you mean 'heldout'"),
        ],
    )
    def test_wrong_settings(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            parse(curate.Config, settings, "test")


class TestWheel:
    def make_wheel(self, workspace: Workspace) -> Path:
        workspace.downloads.mkdir(parents=True)
        wheel = workspace.downloads / "demo_pkg-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for i in range(6):
                archive.writestr(f"demo/docs/part{i}/README.md", PROSE.format(i))
            archive.writestr("demo/docs/code.py", "print()")
            archive.writestr("demo/other.md", "not below docs")
        return wheel

    def test_the_documents_in_a_wheel_are_unpacked(self, tmp_path: Path) -> None:
        workspace = Workspace(tmp_path / "workspace")
        self.make_wheel(workspace)
        config = parse(curate.Config, {"path": "wheel:demo-pkg==1.0/demo/docs"}, "test")
        folder = curate.raw_input(config, "path", workspace)
        assert folder.is_relative_to(workspace.downloads)
        assert list(raw_input(folder).files) == [f"part{i}/README.md" for i in range(6)]
        corpus = make_corpus(tmp_path / "out", folder, heldout=2)
        assert len(documents(corpus)) == 6
        assert curate.raw_input(config, "path", workspace) == folder

    def test_a_pinned_checksum_is_kept(self, tmp_path: Path) -> None:
        workspace = Workspace(tmp_path / "workspace")
        self.make_wheel(workspace)
        config = parse(curate.Config, {"path": f"wheel:demo-pkg==1.0/demo/docs#sha256={'0' * 64}"}, "test")
        with pytest.raises(MaturaError, match="not the file that was pinned"):
            curate.raw_input(config, "path", workspace)

    def test_a_folder_it_lacks_is_an_error(self, tmp_path: Path) -> None:
        workspace = Workspace(tmp_path / "workspace")
        self.make_wheel(workspace)
        config = parse(curate.Config, {"path": "wheel:demo-pkg==1.0/demo/guide"}, "test")
        with pytest.raises(MaturaError, match="nothing under 'demo/guide'"):
            curate.raw_input(config, "path", workspace)


def test_the_estimate_grows_with_the_files(tmp_path: Path) -> None:
    config = parse(curate.Config, {"path": str(tmp_path)}, "test")
    small = curate.estimate(config, {"path": raw_input(make_folder(tmp_path / "a"))})
    large = curate.estimate(config, {"path": raw_input(make_folder(tmp_path / "b", count=90))})
    assert 0 < small.disk_bytes < large.disk_bytes
    assert small.seconds < large.seconds
    assert curate.estimate(config, {"path": None}).note


def test_importing_the_stage_loads_nothing_heavy() -> None:
    heavy = "('torch', 'numpy', 'pyarrow', 'phonenumbers')"
    code = f"import sys, matura.stages.curate; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
