import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from matura.core import wheels
from matura.core.errors import FormatError, MaturaError


def make_wheel(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    files = {"demo/docs/a.md": "A", "demo/docs/deep/b.md": "B", "demo/code.py": "print()"}
    return make_wheel(tmp_path / "demo-1.0-py3-none-any.whl", files)


class TestExtract:
    def test_takes_one_folder_without_its_prefix(self, wheel: Path, tmp_path: Path) -> None:
        written = wheels.extract(wheel, tmp_path / "out", inside="demo/docs")
        assert [p.relative_to(tmp_path / "out").as_posix() for p in written] == ["a.md", "deep/b.md"]
        assert (tmp_path / "out" / "deep" / "b.md").read_text() == "B"

    def test_takes_one_file(self, wheel: Path, tmp_path: Path) -> None:
        assert wheels.extract(wheel, tmp_path / "out", inside="demo/code.py") == [
            tmp_path / "out" / "code.py"
        ]

    def test_keep_chooses_and_replaces_what_was_there(self, wheel: Path, tmp_path: Path) -> None:
        wheels.extract(wheel, tmp_path / "out")
        written = wheels.extract(wheel, tmp_path / "out", keep=lambda name: name.endswith(".py"))
        assert [p.name for p in written] == ["code.py"]
        assert not (tmp_path / "out" / "demo" / "docs").exists()

    def test_nothing_found_names_what_is_there(self, wheel: Path, tmp_path: Path) -> None:
        with pytest.raises(MaturaError, match="nothing under 'demo/doc' that matches; at its top are: demo"):
            wheels.extract(wheel, tmp_path / "out", inside="demo/doc")

    @pytest.mark.parametrize(
        "name", ["../evil.md", "/evil.md", "a/../../evil.md", "C:/evil.md", "a\\..\\evil.md"]
    )
    def test_names_that_lead_out_are_refused(self, tmp_path: Path, name: str) -> None:
        bad = make_wheel(tmp_path / "bad-1-py3-none-any.whl", {"fine.md": "x", name: "evil"})
        with pytest.raises(FormatError, match="leads out"):
            wheels.extract(bad, tmp_path / "deep" / "out")
        assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [bad.name]

    def test_links_are_refused(self, tmp_path: Path) -> None:
        bad = tmp_path / "bad-1-py3-none-any.whl"
        with zipfile.ZipFile(bad, "w") as archive:
            link = zipfile.ZipInfo("link.md")
            link.external_attr = 0o120777 << 16
            archive.writestr(link, "/etc/passwd")
        with pytest.raises(FormatError, match="a link"):
            wheels.extract(bad, tmp_path / "out")

    def test_limits_are_checked_before_writing(self, wheel: Path, tmp_path: Path) -> None:
        with pytest.raises(FormatError, match="3 files"):
            wheels.extract(wheel, tmp_path / "out", max_files=2)
        with pytest.raises(FormatError, match="unpacks to 9 bytes"):
            wheels.extract(wheel, tmp_path / "out", max_bytes=8)
        assert not (tmp_path / "out").exists()

    def test_a_broken_archive_is_one_message(self, wheel: Path, tmp_path: Path) -> None:
        wheel.write_bytes(wheel.read_bytes()[:60])
        with pytest.raises(FormatError, match="not a sound wheel"):
            wheels.extract(wheel, tmp_path / "out")

    def test_a_missing_wheel_is_one_message(self, tmp_path: Path) -> None:
        with pytest.raises(MaturaError, match="no wheel at"):
            wheels.extract(tmp_path / "none.whl", tmp_path / "out")


class TestDownload:
    def test_a_wheel_that_is_there_is_used_without_pip(
        self, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("pip was started"))
        assert wheels.download("Demo", "1.0", tmp_path) == wheel

    def test_the_checksum_is_checked_on_what_is_there(self, wheel: Path, tmp_path: Path) -> None:
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        assert wheels.download("demo", "1.0", tmp_path, sha256=digest) == wheel
        with pytest.raises(MaturaError, match="not the file that was pinned"):
            wheels.download("demo", "1.0", tmp_path, sha256="0" * 64)

    def test_pip_gets_one_requirement_and_the_file_moves_in(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[list[str]] = []

        def fake_pip(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
            seen.append(command)
            make_wheel(
                Path(command[command.index("--dest") + 1]) / "new_one-2.0-py3-none-any.whl", {"a.md": "A"}
            )
            return subprocess.CompletedProcess(command, 0, "", "")

        monkeypatch.setattr(subprocess, "run", fake_pip)
        assert (
            wheels.download("new.one", "2.0", tmp_path / "d")
            == tmp_path / "d" / "new_one-2.0-py3-none-any.whl"
        )
        assert seen[0][:4] == [sys.executable, "-m", "pip", "download"]
        assert seen[0][-1] == "new.one==2.0"
        assert [p.name for p in (tmp_path / "d").iterdir()] == ["new_one-2.0-py3-none-any.whl"]

    def test_pips_reason_reaches_the_person(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fake_pip(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
            return subprocess.CompletedProcess(
                command, 1, "", "noise\nERROR: No matching distribution found\n"
            )

        monkeypatch.setattr(subprocess, "run", fake_pip)
        with pytest.raises(MaturaError, match="wheel demo==9: ERROR: No matching distribution"):
            wheels.download("demo", "9", tmp_path)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("name", "version"), [("-r", "1"), ("a b", "1"), ("demo", "--pre"), ("http://x", "1")]
    )
    def test_nothing_but_names_reaches_pip(self, tmp_path: Path, name: str, version: str) -> None:
        with pytest.raises(MaturaError, match="is not a"):
            wheels.download(name, version, tmp_path)


def test_a_wheel_that_a_setting_names_is_found_and_other_text_is_a_path(tmp_path, monkeypatch):
    asked = []

    def download(name, version, folder, *, sha256=None):
        asked.append((name, version, folder, sha256))
        return tmp_path / "found.whl"

    monkeypatch.setattr(wheels, "download", download)
    digest = "ab" * 32
    assert wheels.located(f"wheel:some-package==1.2#sha256={digest}", tmp_path) == tmp_path / "found.whl"
    assert wheels.located("wheel:other==3", tmp_path) == tmp_path / "found.whl"
    assert asked == [("some-package", "1.2", tmp_path, digest), ("other", "3", tmp_path, None)]
    assert wheels.located("exams.whl", tmp_path) == Path("exams.whl")
    assert wheels.REFERENCE.fullmatch(wheels.EXAMS)
