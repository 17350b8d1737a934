import os
from pathlib import Path

import pytest

from matura.core.errors import ArtifactError
from matura.core.raw import raw_input


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.md").write_text("two")
    (folder / "sub" / "a.md").write_text("one")
    return folder


def test_a_folder_is_listed_in_order_and_its_id_does_not_depend_on_where_it_is(notes: Path) -> None:
    raw = raw_input(notes)
    assert list(raw.files) == ["b.md", "sub/a.md"]
    assert raw.bytes == 6
    assert raw.kind == "raw"
    assert raw.file("sub/a.md").read_text() == "one"
    moved = notes.rename(notes.with_name("moved"))
    assert raw_input(moved).id == raw.id


def test_the_id_changes_with_a_content_and_with_a_name(notes: Path) -> None:
    first = raw_input(notes).id
    (notes / "b.md").write_text("TWO")
    second = raw_input(notes).id
    (notes / "b.md").rename(notes / "c.md")
    assert len({first, second, raw_input(notes).id}) == 3


def test_hidden_files_broken_links_and_pipes_do_not_count(notes: Path) -> None:
    before = raw_input(notes).id
    (notes / ".git").mkdir()
    (notes / ".git" / "config").write_text("x")
    (notes / ".DS_Store").write_text("x")
    (notes / "broken").symlink_to(notes / "nowhere")
    os.mkfifo(notes / "pipe")
    assert raw_input(notes).id == before


def test_links_are_followed_and_loops_end(notes: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "c.md").write_text("three")
    (notes / "other").symlink_to(other)
    (notes / "sub" / "up").symlink_to(notes)
    assert list(raw_input(notes).files) == ["b.md", "other/c.md", "sub/a.md"]


def test_a_single_file(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(notes))
    raw = raw_input("~/b.md")
    assert list(raw.files) == ["b.md"]
    assert raw.file("b.md") == notes / "b.md"


def test_a_missing_path_names_the_nearest(notes: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no file or folder .*nots; did you mean .*notes\?"):
        raw_input(notes.with_name("nots"))
    with pytest.raises(ArtifactError, match=r"only as far as .*notes\."):
        raw_input(notes / "x" / "y" / "z")


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds no files"):
        raw_input(tmp_path)


def test_an_unreadable_file_is_an_error(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("matura.core.raw.hash_file", refuse)
    with pytest.raises(ArtifactError, match=r"Cannot read .*b\.md: Permission denied"):
        raw_input(notes)
