import errno
import json
import os
from pathlib import Path

import pytest

from matura.core import files
from matura.core.errors import ArtifactError, FormatError


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_atomic_write_replaces_the_file_only_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "state.bin"
    target.write_bytes(b"old")
    with files.atomic_write(target) as temporary:
        temporary.write_bytes(b"new")
        assert target.read_bytes() == b"old"
        assert files.is_temporary(temporary.parent.name)
    assert target.read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["state.bin"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_a_failed_atomic_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: BaseException
) -> None:
    target = tmp_path / "state.bin"
    target.write_bytes(b"old")

    def write_half() -> None:
        with files.atomic_write(target) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"state.bin": b"old"}


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_one_message_and_the_old_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    target = tmp_path / "state.bin"
    target.write_bytes(b"old")
    monkeypatch.setattr(os, call, full)
    with (
        pytest.raises(ArtifactError, match=r"disk is full: .* left at .* while writing state.bin.*matura gc"),
        files.atomic_write(target) as temporary,
    ):
        temporary.write_bytes(b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"state.bin": b"old"}


def test_a_full_disk_told_by_native_code_is_recognised(tmp_path: Path) -> None:
    def native() -> None:
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(ArtifactError, match="disk is full"), files.saving("weights", tmp_path):
        native()
    with pytest.raises(RuntimeError, match="other"), files.saving("weights", tmp_path):
        raise RuntimeError("other")


def test_a_read_only_disk_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="read-only"), files.saving("weights", tmp_path):
        raise OSError(errno.EROFS, "Read-only file system")


def test_json_is_the_same_for_the_same_value_and_holds_no_nan(tmp_path: Path) -> None:
    class Scalar:
        def item(self) -> float:
            return 2.5

    value = {
        "path": Path("a/b"),
        "nan": float("nan"),
        "scalar": Scalar(),
        "pair": (1, True),
        "text": "\udcff",
    }
    files.write_json(tmp_path / "a.json", value)
    files.write_json(tmp_path / "b.json", value)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    expected = {"path": "a/b", "nan": None, "scalar": 2.5, "pair": [1, True], "text": "\udcff"}
    assert json.loads((tmp_path / "a.json").read_text()) == expected
    assert files.canonical_hash({"a": 1, "b": 2}) == files.canonical_hash({"b": 2, "a": 1})
    with pytest.raises(TypeError, match="set"):
        files.plain({"a": {1}})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "holds a JSON list"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "JSON"),
        (" " * 200_001, "too large"),
    ],
)
def test_json_from_outside_is_bounded_and_checked(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(FormatError, match=message):
        files.read_json(path, limit=200_000, what="a thing")


def test_sizes_for_people() -> None:
    assert [files.size_text(n) for n in (0, 999, 1000, 98_362_432, 999_700, 5e12)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "98.4 MB",
        "1.0 MB",
        "5.0 TB",
    ]


def test_free_space_is_told_for_a_directory_that_does_not_exist_yet(tmp_path: Path) -> None:
    assert files.free_bytes(tmp_path / "not" / "yet") > 0


def test_remove_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    files.remove(tmp_path / "link")
    files.remove(tmp_path / "never there")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert files.tree_bytes(tmp_path) == 1
