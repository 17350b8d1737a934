"""What people get wrong, through the command line: one clear message, exit 1, and nothing made before is lost."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from matura import cli
from matura.core import artifact
from matura.core.workspace import Workspace
from tests.gguf_files import gguf_bytes
from tests.test_cli import Shell
from tests.tiny_models import gguf_parts, network, write_gguf_model

RECIPE = """\
stages:
  documents: {stage: curate, path: notes, heldout: 2}
  tuned: {stage: finetune, model: ./tiny.gguf, corpus: $documents, tokens: 512, tokens_per_step: 64,
          sequence: 32, save_every: 2, meter_every: 0}
"""


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """A folder with notes, a model, a recipe, and a workspace where documents are made already."""
    place = tmp_path_factory.mktemp("ready")
    (place / "notes").mkdir()
    for n in range(8):
        sentences = (
            f"Note {n} says hello in line {line}, and {n * line * 37} is a number." for line in range(9)
        )
        (place / "notes" / f"{n}.txt").write_text("\n".join(sentences))
    write_gguf_model(place / "tiny.gguf", network())
    (place / "adapt.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("MATURA_WORKSPACE", str(place / "workspace"))
        patch.setattr("sys.argv", ["matura", "curate", "path=notes", "heldout=2", "--name", "good"])
        try:
            cli.main()
        except SystemExit as left:
            assert not left.code  # noqa: PT017 (it may return as well)
    return place


@pytest.fixture
def matura_(capsys, monkeypatch, tmp_path, ready):
    """`matura` in a folder of its own that is ready."""
    shutil.copytree(ready, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("MATURA_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.delenv("MATURA_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)
    return Shell(capsys, monkeypatch)


def refused(matura_, *words: str) -> str:
    """The one message that `matura words` ends with; what was made before must be whole."""
    code, _, err = matura_(*words)
    assert code == 1
    progress, mark, message = err.partition("matura: ")
    assert mark
    assert "matura: " not in message
    assert "error" not in progress.lower()
    assert "Traceback" not in err
    place = Workspace()
    for path in place.artifacts():
        artifact.verify(artifact.load(path))
    assert place.find("good/curate").kind == "corpus"
    return message


def test_a_missing_folder(matura_):
    message = refused(matura_, "curate", "path=note")
    assert "note" in message
    assert "curate.path" in message


def test_an_empty_folder(matura_):
    Path("empty").mkdir()
    assert "empty" in refused(matura_, "curate", "path=empty")


def test_a_binary_file(matura_):
    Path("picture.txt").write_bytes(bytes(range(256)) * 40)
    assert "picture.txt" in refused(matura_, "curate", "path=picture.txt")


def test_a_folder_of_binary_files(matura_):
    Path("pictures").mkdir()
    for n in range(5):
        Path("pictures", f"{n}.txt").write_bytes(b"\x00\xff\xfe" * (n + 1) * 500)
    assert "pictures" in refused(matura_, "curate", "path=pictures")


def test_binary_files_among_good_ones_are_passed_over(matura_):
    Path("notes", "picture.txt").write_bytes(bytes(range(256)) * 40)
    code, out, _ = matura_("curate", "path=notes", "heldout=2")
    assert code == 0
    assert "8 documents" in out or "6 documents" in out


def test_a_gguf_file_of_no_bytes(matura_):
    Path("broken.gguf").touch()
    assert "broken.gguf" in refused(matura_, "pull", "./broken.gguf")


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_gguf_file(matura_, share):
    whole = Path("tiny.gguf").read_bytes()
    Path("broken.gguf").write_bytes(whole[: int(len(whole) * share)])
    assert "broken.gguf" in refused(matura_, "pull", "./broken.gguf")
    assert "broken" in refused(matura_, "generate", "./broken.gguf", "hello")


@pytest.mark.parametrize("offset", [1, 1 << 20, 1 << 40, (1 << 64) - 32])
def test_a_gguf_file_whose_offsets_lie(matura_, offset):
    metadata, tensors = gguf_parts(network())
    tensors[3] = type(tensors[3])(**{**vars(tensors[3]), "offset": offset})
    Path("broken.gguf").write_bytes(gguf_bytes(metadata, tensors))
    assert tensors[3].name in refused(matura_, "pull", "./broken.gguf")


def test_a_broken_gguf_file_is_told_before_a_recipe_works(matura_):
    Path("tiny.gguf").write_bytes(Path("tiny.gguf").read_bytes()[:4000])
    assert "tiny.gguf" in refused(matura_, "run", "adapt.yaml")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("heldout: 2", "heldut: 2", ["documents.heldut", "did you mean 'heldout'?"]),
        ("corpus: $documents", "corpus: $document", ["document", "did you mean"]),
        ("stage: finetune", "stage: finetun", ["finetun", "did you mean 'finetune'?"]),
        ("tokens: 512", "tokens: many", ["tuned.tokens"]),
        ("path: notes", "path: $tuned", ["documents"]),
        ("model: ./tiny.gguf", "model: $tuned", ["tuned"]),
        ("stages:", "stages", ["adapt.yaml"]),
        ("{stage: curate", "{stage: [curate", ["adapt.yaml"]),
    ],
)
def test_a_wrong_recipe(matura_, old, new, words):
    Path("adapt.yaml").write_text(RECIPE.replace(old, new))
    message = refused(matura_, "run", "adapt.yaml")
    assert all(word in message for word in words)


def test_a_cycle(matura_):
    Path("circle.yaml").write_text(
        "stages:\n  a: {stage: merge, model: $b}\n  b: {stage: merge, model: $c}\n"
        "  c: {stage: merge, model: $a}\n"
    )
    message = refused(matura_, "run", "circle.yaml")
    assert all(name in message for name in "abc")


@pytest.mark.parametrize("file", ["checkpoint.safetensors", "adapter.safetensors", "artifact.json"])
def test_a_full_disk_while_saving(matura_, monkeypatch, file):
    """The disk fills up while the third checkpoint, the result or its record is written."""
    from matura.core import files

    real, calls = files.sync, []

    def full(path):
        if files.is_temporary(Path(path).parent.name) and Path(path).name == file and "tuned-" in str(path):
            calls.append(path)
            if len(calls) == (3 if file.startswith("checkpoint") else 1):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return real(path)

    monkeypatch.setattr(files, "sync", full)
    message = refused(matura_, "run", "adapt.yaml")
    assert "The disk is full" in message
    assert "run the same command again" in message
    (draft,) = Workspace().drafts()
    assert not [path for path in draft.rglob("*") if files.is_temporary(path.name)]
    assert (draft / "resume" / "checkpoint.safetensors").is_file()
    monkeypatch.setattr(files, "sync", real)
    code, out, _ = matura_("run", "adapt.yaml")
    assert code == 0
    assert "documents  reused" in out
    assert "tuned      resuming  interrupted at step" in out
    artifact.verify(Workspace().find("adapt/tuned"))
