import errno
import io
import math
import re
from pathlib import Path

import pytest

from matura.core import metrics
from matura.core.errors import ArtifactError, FormatError
from matura.core.metrics import MetricsLog, progress


def test_rows_come_back_as_logged(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    assert log.rows() == []
    assert not log.path.exists()
    log.log(1, loss=2.5, tokens=7)
    log.log(2, loss=float("nan"))
    rows = log.rows()
    assert rows[0] == {"step": 1, "loss": 2.5, "tokens": 7}
    assert math.isnan(rows[1]["loss"])
    with pytest.raises(TypeError, match="not a number"):
        log.log(3, phase="warm-up")


def test_rewind_forgets_later_steps_and_a_torn_line(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.rewind(3)
    for step in range(1, 6):
        log.log(step, loss=step / 2)
    with open(log.path, "a") as file:
        file.write('{"step": 6, "lo')
    assert [row["step"] for row in log.rows()] == [1, 2, 3, 4, 5]
    log.rewind(3)
    log.log(4, loss=9)
    assert [row["step"] for row in MetricsLog(log.path).rows()] == [1, 2, 3, 4]
    assert log.path.read_bytes().count(b"\n") == 4


def test_logging_after_a_kill_drops_the_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    log = MetricsLog(path)
    log.log(2, loss=1)
    assert log.rows() == [{"step": 1}, {"step": 2, "loss": 1}]


def test_logging_goes_on_after_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.log(1)

    def torn(row: object, allow_nan: bool) -> str:
        with open(log.path, "a") as file:
            file.write('{"st')
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("matura.core.metrics.json.dumps", torn)
        with pytest.raises(ArtifactError, match=r"disk is full: .* while writing metrics\.jsonl"):
            log.log(2)
    log.log(2)
    assert log.rows() == [{"step": 1}, {"step": 2}]


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nnonsense\n{"step": 3}\n')
    with pytest.raises(FormatError, match=r"metrics\.jsonl:2 "):
        MetricsLog(path).rows()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(metrics, "time", clock)
    return clock


def test_without_a_terminal_progress_is_a_line_every_ten_seconds(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress("tuning", total=1000, start=500) as bar:
        for _ in range(30):
            clock.now += 1
            bar.advance(10, loss=2.34567)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert lines[0] == "tuning: 60%  10 tok/s  0:40 left  loss 2.346"
    assert lines[-1].startswith("tuning: 80%")


def test_short_work_without_a_terminal_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("quick", total=None, unit="doc") as bar:
        bar.advance(1)
    assert capsys.readouterr().err == ""


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    with progress("tuning", total=100) as bar:
        bar.advance(100, loss=1.25)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    assert "tuning" in shown
    assert "100%" in shown
    assert "tok/s" in shown
    assert "loss 1.25" in shown
