"""Numbers over time: a JSONL file that survives kills, and a progress bar on the terminal."""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from matura.core.errors import FormatError
from matura.core.files import atomic_write, plain, saving

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

PLAIN_SECONDS = 10.0  # between two lines of progress where there is no terminal


class MetricsLog:
    """One JSON object per line: `step` and the numbers logged with it. The first row makes the file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._mended = False

    def log(self, step: int, **numbers: Any) -> None:
        """Append one row. Values are numbers (or array scalars); NaN and infinities are written as null.

        Raises ArtifactError when the disk is full.
        """
        row = {"step": int(step), **{name: plain(value) for name, value in numbers.items()}}
        for name, value in row.items():
            if value is not None and not isinstance(value, int | float):
                raise TypeError(f"metric {name} is not a number: {value!r}")
        with saving(self.path.name, self.path.parent):
            if not self._mended:
                self._drop_torn_line()
            self._mended = False  # until this line is whole
            with open(self.path, "ab") as file:
                file.write(json.dumps(row, allow_nan=False).encode("ascii") + b"\n")
            self._mended = True

    def rows(self) -> list[dict[str, Any]]:
        """All rows in order; a null comes back as NaN; a last line torn by a kill is left out.

        Raises FormatError, naming the line, when another line is broken.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        rows = []
        # What follows the last newline is empty or torn.
        for number, line in enumerate(content.split(b"\n")[:-1], start=1):
            try:
                row = json.loads(line)
                if not isinstance(row.get("step"), int):
                    raise ValueError("no step")
            except (ValueError, AttributeError, RecursionError) as error:
                raise FormatError(f"{self.path}:{number} is not a row of metrics: {error}") from error
            rows.append({name: math.nan if value is None else value for name, value in row.items()})
        return rows

    def rewind(self, step: int) -> None:
        """Forget the rows after `step`: a run that resumes from its checkpoint of `step` logs them again."""
        if not self.path.exists():
            return
        kept = [row for row in self.rows() if row["step"] <= step]
        with atomic_write(self.path) as temporary:
            lines = (json.dumps(plain(row), allow_nan=False) + "\n" for row in kept)
            temporary.write_text("".join(lines), encoding="ascii")
        self._mended = True

    def _drop_torn_line(self) -> None:
        with contextlib.suppress(FileNotFoundError), open(self.path, "r+b") as file:
            content = file.read()
            if content and not content.endswith(b"\n"):
                file.truncate(content.rfind(b"\n") + 1)


class Progress(Protocol):
    """What :func:`progress` gives."""

    def advance(self, amount: float, **shown: Any) -> None:
        """`amount` more is done; `shown` are values to show beside the bar, such as loss=1.234."""


@contextlib.contextmanager
def progress(
    description: str, total: float | None, unit: str = "tok", start: float = 0
) -> Iterator[Progress]:
    """Show how far a long piece of work is, with its throughput in `unit`/s and the time left, on stderr.

    `total` None means unknown; `start` is what an earlier run had done already (it does not count as
    throughput). Where stderr is not a terminal, one plain line about every 10 seconds, and none for what ends
    before that.
    """
    if not sys.stderr.isatty():
        line = _PlainProgress(description, total, unit, start)
        yield line
        line.close()
        return
    from rich.console import Console
    from rich.progress import Progress as RichProgress

    bars = RichProgress(*_columns(), console=Console(stderr=True))
    with bars:
        task = bars.add_task(description, total=total, start_at=start, unit=unit, shown="")
        bars.update(task, completed=start)
        yield _BarProgress(bars, task)


def _columns() -> list["ProgressColumn | str"]:
    from rich.progress import BarColumn, ProgressColumn, Task, TaskProgressColumn, TextColumn
    from rich.text import Text

    class Throughput(ProgressColumn):
        def render(self, task: Task) -> Text:
            rate, left = _rate_and_left(
                task.completed - task.fields["start_at"], task.completed, task.total, task.elapsed or 0.0
            )
            unit = task.fields["unit"]
            return Text(f"{_rate_text(rate, unit)} {_left_text(left)}", style="progress.remaining")

    return [
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        TaskProgressColumn(show_speed=False),
        Throughput(),
        TextColumn("{task.fields[shown]}"),
    ]


class _BarProgress:
    def __init__(self, bars: Any, task: Any) -> None:
        self._bars, self._task = bars, task

    def advance(self, amount: float, **shown: Any) -> None:
        fields = {"shown": _shown_text(shown)} if shown else {}
        self._bars.update(self._task, advance=amount, **fields)


class _PlainProgress:
    def __init__(self, description: str, total: float | None, unit: str, start: float) -> None:
        self._description, self._total, self._unit = description, total, unit
        self._first, self._done = start, start
        self._began = self._printed = time.monotonic()
        self._shown: dict[str, Any] = {}
        self._lines = 0

    def advance(self, amount: float, **shown: Any) -> None:
        self._done += amount
        self._shown.update(shown)
        now = time.monotonic()
        if now - self._printed >= PLAIN_SECONDS:
            self._print(now)

    def close(self) -> None:
        """Say how it ended, when anything was said before."""
        if self._lines:
            self._print(time.monotonic())

    def _print(self, now: float) -> None:
        self._printed, self._lines = now, self._lines + 1
        elapsed = now - self._began
        rate, left = _rate_and_left(self._done - self._first, self._done, self._total, elapsed)
        share = f" {100 * self._done / self._total:.0f}%" if self._total else f" {self._done:g} {self._unit}"
        rest = "  ".join(
            part
            for part in (_rate_text(rate, self._unit), _left_text(left), _shown_text(self._shown))
            if part
        )
        print(f"{self._description}:{share}  {rest}", file=sys.stderr, flush=True)


def _rate_and_left(
    made: float, done: float, total: float | None, elapsed: float
) -> tuple[float | None, float | None]:
    rate = made / elapsed if made > 0 and elapsed > 0 else None
    left = (total - done) / rate if rate and total is not None else None
    return rate, left


def _rate_text(rate: float | None, unit: str) -> str:
    if rate is None:
        return ""
    return f"{rate:,.0f} {unit}/s" if rate >= 10 else f"{rate:.2g} {unit}/s"


def _left_text(seconds: float | None) -> str:
    if seconds is None or seconds <= 0:
        return ""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    clock = f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
    return f"{clock} left"


def _shown_text(shown: dict[str, Any]) -> str:
    def text(value: Any) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    return "  ".join(f"{name} {text(value)}" for name, value in shown.items())
