import os
from pathlib import Path

import pytest

from matura.core.errors import FormatError, MaturaError
from matura.data.sources import Skipped, SourceFile, decode, matches, nothing_usable, read, walk


def write(root: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def names(root: Path, **options: object) -> list[str]:
    return [item.name for item in walk(root, **options) if isinstance(item, SourceFile)]  # type: ignore[arg-type]


def skipped(root: Path, **options: object) -> dict[str, str]:
    return {i.name: i.reason for i in walk(root, **options) if isinstance(i, Skipped)}  # type: ignore[arg-type]


class TestWalk:
    def test_the_order_is_that_of_whole_names(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            {"b.md": "b", "a/z.md": "z", "a.md": "a", "a/B.txt": "B", "ä.rst": "ä", "a-b/c.html": "c"},
        )
        assert names(tmp_path) == ["a-b/c.html", "a.md", "a/B.txt", "a/z.md", "b.md", "ä.rst"]

    def test_hidden_files_and_folders_are_passed_over_in_silence(self, tmp_path: Path) -> None:
        write(tmp_path, {".git/config.md": "x", ".hidden.md": "x", "a/.b/c.md": "x", "seen.md": "x"})
        assert [item.name for item in walk(tmp_path)] == ["seen.md"]

    def test_the_kind_follows_the_suffix_in_any_case(self, tmp_path: Path) -> None:
        write(tmp_path, {"a.MD": "x", "b.Htm": "x", "c.pdf": "x", "d.text": "x", "e.rst": "x"})
        kinds = [item.kind for item in walk(tmp_path) if isinstance(item, SourceFile)]
        assert kinds == ["md", "html", "pdf", "txt", "rst"]

    def test_what_is_of_no_use_is_told_with_the_reason(self, tmp_path: Path) -> None:
        write(
            tmp_path, {"a.png": "x", "README": "x", "empty.md": "", "big.md": "x" * 101, "fine.md": "x" * 100}
        )
        os.mkfifo(tmp_path / "pipe.md")
        (tmp_path / "dangling.md").symlink_to(tmp_path / "nowhere")
        assert skipped(tmp_path, max_file_bytes=100) == {
            "README": "unknown type",
            "a.png": "unknown type",
            "big.md": "too large",
            "dangling.md": "unreadable",
            "empty.md": "empty",
            "pipe.md": "not a regular file",
        }

    def test_loops_of_links_end(self, tmp_path: Path) -> None:
        write(tmp_path, {"a/one.md": "x"})
        (tmp_path / "a" / "up").symlink_to(tmp_path)
        (tmp_path / "a" / "self").symlink_to(tmp_path / "a")
        assert names(tmp_path) == ["a/one.md"]

    def test_a_linked_folder_is_read(self, tmp_path: Path) -> None:
        write(tmp_path, {"real/one.md": "x", "root/two.md": "y"})
        (tmp_path / "root" / "linked").symlink_to(tmp_path / "real")
        assert names(tmp_path / "root") == ["linked/one.md", "two.md"]

    def test_one_file_is_a_place_too(self, tmp_path: Path) -> None:
        write(tmp_path, {"one.md": "x", "two.md": "y"})
        assert names(tmp_path / "one.md") == ["one.md"]

    def test_a_missing_place_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(MaturaError, match=r"no folder or file at .*nowhere"):
            list(walk(tmp_path / "nowhere"))

    def test_include_and_exclude_choose(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            {"a.md": "x", "b.txt": "x", "drafts/c.md": "x", "docs/drafts/d.md": "x", "docs/e.md": "x"},
        )
        assert names(tmp_path, include=("*.md",)) == ["a.md", "docs/drafts/d.md", "docs/e.md", "drafts/c.md"]
        assert names(tmp_path, exclude=("drafts/",)) == ["a.md", "b.txt", "docs/e.md"]
        assert names(tmp_path, include=("docs/*",)) == ["docs/e.md"]


@pytest.mark.parametrize(
    ("name", "pattern", "expected"),
    [
        ("a/b/c.md", "*.md", True),
        ("a/b/c.md", "a/*.md", False),
        ("a/b/c.md", "a/**/*.md", True),
        ("a/c.md", "a/**/*.md", True),
        ("a/b/c.md", "a/**", True),
        ("a/b/c.md", "b/", True),
        ("ab/c.md", "b/", False),
        ("c.md", "?.md", True),
        ("c+.md", "c+.md", True),
        ("cc.md", "c+.md", False),
        ("c.mdx", "*.md", False),
    ],
)
def test_globs(name: str, pattern: str, expected: bool) -> None:
    assert matches(name, (pattern,)) is expected


def test_reading_stops_at_the_limit_when_a_file_grew(tmp_path: Path) -> None:
    write(tmp_path, {"a.md": "x"})
    (file,) = walk(tmp_path)
    assert isinstance(file, SourceFile)
    assert read(file) == b"x"
    (tmp_path / "a.md").write_bytes(b"y" * 50)
    assert read(file, max_file_bytes=49) == Skipped("a.md", "too large", "over 49 bytes")
    (tmp_path / "a.md").unlink()
    assert isinstance(read(file), Skipped)


GERMAN = "Die Straße führt über die Brücke nach Köln. Größere Häuser stehen südlich davon. "
RUSSIAN = "Это обычный русский текст, который нужно прочитать правильно. "


class TestDecode:
    @pytest.mark.parametrize(
        ("data", "text", "encoding"),
        [
            ("plain é 日本".encode(), "plain é 日本", "utf-8"),
            ("with mark é".encode("utf-8-sig"), "with mark é", "utf-8-sig"),
            ("é 日本".encode("utf-16"), "é 日本", "utf-16"),
            (b"\xfe\xff" + "é 日本".encode("utf-16-be"), "é 日本", "utf-16"),
            ("é 日本".encode("utf-32"), "é 日本", "utf-32"),
            ((GERMAN * 5).encode("latin-1"), GERMAN * 5, "cp1252"),
            ((RUSSIAN * 5).encode("cp1251"), RUSSIAN * 5, "cp1251"),
        ],
    )
    def test_known_encodings(self, data: bytes, text: str, encoding: str) -> None:
        assert decode(data) == (text, encoding)

    def test_a_page_may_declare_its_charset(self) -> None:
        page = '<html><head><meta charset="iso-8859-7"></head><body>Ω</body></html>'.encode("iso-8859-7")
        assert "Ω" in decode(page, html=True)[0]

    @pytest.mark.parametrize(
        "data", [b"abc\x00def", bytes(range(1, 256)) * 20, b"\x89PNG\r\n\x1a\n" + bytes(range(1, 32)) * 9]
    )
    def test_binary_data_is_told_apart(self, data: bytes) -> None:
        with pytest.raises(FormatError, match=r"^(binary|undecodable)"):
            decode(data)

    def test_broken_utf16_is_undecodable(self) -> None:
        with pytest.raises(FormatError, match=r"^undecodable: it is not utf-16"):
            decode(b"\xff\xfea\x00\x00\xd8b\x00")


def test_empty_and_useless_folders_get_different_messages(tmp_path: Path) -> None:
    assert "it is empty" in str(nothing_usable(tmp_path, []))
    useless = str(
        nothing_usable(tmp_path, [Skipped("a.md", "binary", "NUL bytes"), Skipped("b.png", "unknown type")])
    )
    assert "none of the 2 files" in useless
    assert "1 binary, 1 unknown type" in useless
    assert "Documents are read from .md" in useless
    assert "read from" not in str(nothing_usable(tmp_path, [Skipped("a.md", "too short", "3 characters")]))
    assert "a.md: binary (NUL bytes)" in useless
