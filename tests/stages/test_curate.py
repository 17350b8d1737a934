import contextlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
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
from matura.data.parts import PartFiles
from matura.stages import curate
from tests.stages.pictures import MARK
from tests.tiny_models import make

PROSE = "Chapter {0} tells how part {0} of the machine is built, used and taken care of. " * 5


def make_folder(root: Path, count: int = 9) -> Path:
    for i in range(count):
        path = root / ("deep" if i % 2 else "") / f"chapter{i}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# Chapter {i}\n\n" + PROSE.format(i))
    return root


def place_of(config: curate.Config, workspace: Workspace | None = None) -> Path:
    place = curate.raw_input(config, "path", workspace)
    assert isinstance(place, Path)
    return place


def make_corpus(out: Path, folder: Path, **settings: Any) -> Artifact:
    config = parse(curate.Config, {"path": str(folder), "heldout": 3, **settings}, "test")
    inputs = {"path": raw_input(place_of(config))}
    return make(curate, out, config, inputs)


def documents(corpus: Artifact, *sides: str) -> list[Document]:
    return [
        d for side in sides or ("train", "heldout") for d in read_documents(corpus.file(f"{side}.parquet"))
    ]


def report(corpus: Artifact) -> dict[str, Any]:
    return json.loads(corpus.file("report.json").read_text())


def test_a_folder_becomes_a_corpus(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "out", make_folder(tmp_path / "in"))
    train, heldout = documents(corpus, "train"), documents(corpus, "heldout")
    assert (len(train), len(heldout)) == (6, 3)
    assert {d.source for d in train + heldout} == {
        f"{'deep/' if i % 2 else ''}chapter{i}.md" for i in range(9)
    }
    assert len({d.id for d in train + heldout}) == 9
    assert report(corpus)["heldout"]["files"] == [d.source for d in heldout]
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
    corpus = make_corpus(tmp_path / "out", folder, limits={"file_bytes": 2000})
    assert corpus.summary["files"] == {
        "seen": 15,
        "kept": 9,
        "dropped": {"binary": 1, "broken": 1, "duplicate": 1, "empty": 1, "too short": 1, "unknown type": 1},
    }
    examples = report(corpus)["samples"]
    (copy,) = examples["duplicates"]["duplicate"]
    assert (copy["source"], copy["detail"]) == ("copy.md", "of chapter0.md")
    (stub,) = examples["length"]["too short"]
    assert (stub["source"], stub["detail"]) == ("stub.md", "5 characters of text")


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


def bytes_of(corpus: Artifact) -> dict[str, bytes]:
    """The files that may not differ between equal runs."""
    names = [name for name, entry in corpus.record["files"].items() if not entry["log"]]
    return {name: corpus.file(name).read_bytes() for name in names}


def folder_of_all_sorts(root: Path) -> Path:
    folder = folder_with_secrets(make_folder(root, 40))
    (folder / "copy.md").write_text((folder / "chapter0.md").read_text().upper())
    (folder / "stub.md").write_text("short")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 and nothing else")
    (folder / "long.txt").write_text(PROSE.format("long") * 400)
    return folder


SMALL_PARTS = {"engine": {"workers": 1, "part_bytes": 1 << 16}}


def test_smaller_parts_give_the_same_bytes(tmp_path: Path) -> None:
    folder = folder_of_all_sorts(tmp_path / "in")
    whole = make_corpus(tmp_path / "one", folder)
    cut = make_corpus(tmp_path / "two", folder, **SMALL_PARTS)
    assert bytes_of(cut) == bytes_of(whole)
    assert {"train.parquet", "heldout.parquet", "dropped.parquet"} <= bytes_of(whole).keys()


@contextlib.contextmanager
def killed_at(phase: str) -> Iterator[None]:
    """The process dies when the first part of this phase is finished, or the artifact is about to be."""
    real = PartFiles.finish

    def dies(part: PartFiles, marker: dict[str, Any]) -> dict[str, Any]:
        if part.folder.name == phase:
            raise KeyboardInterrupt
        return real(part, marker)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PartFiles, "finish", dies)
        if phase == "commit":
            patch.setattr(artifact.Draft, "commit", lambda *a, **k: dies(PartFiles(Path("commit"), 0), {}))
        yield


@pytest.mark.parametrize("killed", ["read", "duplicates", "clean", "train", "heldout", "commit"])
def test_a_kill_in_any_phase_changes_no_byte(tmp_path: Path, killed: str) -> None:
    folder = folder_of_all_sorts(tmp_path / "in")
    whole = make_corpus(tmp_path / "one", folder, **SMALL_PARTS)
    with killed_at(killed), pytest.raises(KeyboardInterrupt):
        make_corpus(tmp_path / "two", folder, **SMALL_PARTS)
    assert not (tmp_path / "two" / "artifact.json").exists()
    again = make_corpus(tmp_path / "two", folder, **SMALL_PARTS)
    assert again.record["resumed"] == 1
    assert bytes_of(again) == bytes_of(whole)
    assert again.id == whole.id


def test_several_sources_with_weights(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_folder(tmp_path / name, 30)
    config = parse(
        curate.Config,
        {
            "sources": {
                name: {"path": str(tmp_path / name), "weight": w} for name, w in (("a", 3), ("b", 1))
            },
            "exact_duplicates": "keep",
            "mixture": {"total": 8000, "unit": "bytes"},
            "heldout": 2,
            "engine": {"workers": 1},
        },
        "test",
    )
    inputs = {f"sources.{name}.path": raw_input(tmp_path / name) for name in ("a", "b")}
    draft = artifact.begin(
        tmp_path / "out", kind="corpus", stage="curate", version=curate.VERSION, config=config, inputs=inputs
    )
    corpus = curate.run(config, inputs, draft)
    sizes = {name: values["bytes"] for name, values in report(corpus)["sources"].items()}
    assert 5500 < sizes["a"] <= 6000
    assert 1500 < sizes["b"] <= 2000
    assert report(corpus)["steps"][-1]["name"] == "mixture"


def test_filters_that_are_on_drop_with_their_reasons(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "in")
    (folder / "few.md").write_text("supercalifragilistic " * 12)
    corpus = make_corpus(tmp_path / "out", folder, gopher={"use": "on", "min_words": 20})
    assert corpus.summary["files"]["dropped"] == {"words": 1}
    (few,) = report(corpus)["samples"]["gopher"]["words"]
    assert few["source"] == "few.md"
    with pytest.raises(
        MaturaError, match=r"(?s)none of the 10 documents .* passed the filters.*gopher: 10 words"
    ):
        make_corpus(tmp_path / "none", folder, gopher={"use": "on", "min_words": 20_000})


def test_canaries_are_planted_in_what_is_trained_on(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "out", make_folder(tmp_path / "in"), canary={"rates": [1, 4], "each": 1})
    planted = json.loads(corpus.file("canaries.json").read_text())
    for row in planted if isinstance(planted, list) else planted["canaries"]:
        found = {d.id for d in documents(corpus, "train") if row["secret"] in d.text}
        assert found == set(row["documents"])
        assert len(found) == row["rate"]
        assert not any(row["secret"] in d.text for d in documents(corpus, "heldout"))
    page = corpus.file("report.html").read_text()
    assert "2 made-up secrets were planted in" in page
    told = [page, *(corpus.file(name).read_text() for name in ("report.json", "funnel.json", "README.md"))]
    for row in planted:
        assert not any(row["secret"] in text for text in told)


def test_strict_makes_a_broken_file_an_error(tmp_path: Path) -> None:
    folder = folder_of_all_sorts(tmp_path / "in")
    with pytest.raises(MaturaError, match=r"broken\.pdf"):
        make_corpus(tmp_path / "out", folder, limits={"strict": True})


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

    def test_a_file_that_changes_after_it_was_hashed_is_left_out_and_named(self, tmp_path: Path) -> None:
        folder = make_folder(tmp_path / "in")
        for strict in (False, True):
            settings = {"path": str(folder), "limits": {"strict": strict}}
            config = parse(curate.Config, settings, "test")
            inputs = {"path": raw_input(folder)}
            (folder / "chapter0.md").write_text(f"something else {strict} " * 50)
            draft = artifact.begin(
                tmp_path / f"out{strict}",
                kind="corpus",
                stage="curate",
                version=curate.VERSION,
                config=config,
                inputs=inputs,
            )
            if strict:
                with pytest.raises(MaturaError, match=r"chapter0\.md.*changed"):
                    curate.run(config, inputs, draft)
                assert not (draft.path / "artifact.json").exists()
                continue
            made = curate.run(config, inputs, draft)
            assert all(one.source != "chapter0.md" for one in documents(made))
            report = json.loads((made.path / "report.json").read_text())
            assert "changed" in json.dumps(report["steps"][0]["dropped"])

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"path": "wheel:demo/docs"}, "wheel:NAME==VERSION/FOLDER"),
            ({"path": "wheel:demo==1.0"}, "wheel:NAME==VERSION/FOLDER"),
            ({"path": "whel:demo==1.0/docs"}, "did you mean wheel:?"),
            ({"path": "ftp:host/docs"}, "expected a path, wheel:..."),
            ({"path": "x", "pii": "hide"}, "mask"),
            ({"path": "x", "engine": "spark"}, "engine.kind: expected 'native' or 'ray'"),
            ({"path": "x", "gopher": {"min_words": 9}}, "gopher: min_words would do nothing"),
            ({}, "`path` .one source. or `sources`"),
            ({"path": "x", "sources": {"a": {"path": "y"}}}, "not both"),
            ({"sources": {"a": {}}}, "a: give either `path` or `made`"),
            ({"sources": {"a b": {"path": "y"}}}, "letters, digits"),
            ({"sources": {"a": {"path": "y"}}, "include": ["*.md"]}, "settings of each source"),
            ({"path": "x", "heldout": 0}, "heldout"),
            ({"path": "x", "heldouts": 3}, "did you mean 'heldout'"),
        ],
    )
    def test_wrong_settings(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            parse(curate.Config, settings, "test")

    def test_a_word_stands_for_a_group(self) -> None:
        config = parse(curate.Config, {"path": "x", "pii": "report", "engine": "ray"}, "test")
        assert (config.pii.action, config.engine.kind, config.engine.workers) == ("report", "ray", 0)


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
        folder = place_of(config, workspace)
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


@pytest.mark.usefixtures("drawn")
def test_mentions_and_false_alarms_are_reported(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "raw")
    (folder / "bad.txt").write_text("casino click a Muslim woman idiot " * 20)
    corpus = make_corpus(tmp_path / "out", folder, balance="on", toxicity={"use": "on"})
    told = report(corpus)
    step = next(one for one in told["steps"] if one["name"] == "toxicity")
    assert step["dropped"] == {"toxicity": 1}
    assert step["mentions"] == {"in.gender.women": 20, "in.religion.muslims": 20}
    assert told["filters"]["toxicity"]["gap"] == {"same": 0.0, "used": 0.0}
    page = corpus.file("report.html").read_text()
    assert MARK in page
    assert "Balance: mentions of groups" in page
    assert "Balance: false alarms of the toxicity filter" in page
