"""What a stage will cost, and the table that shows it before anything runs."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """What a stage expects to need on this machine: time, peak memory, new bytes on disk, and a remark."""

    seconds: float = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    note: str = ""


@dataclass(frozen=True)
class Planned:
    """One line of a plan: what will happen to a stage and why. A reused stage costs nothing."""

    name: str
    action: str  # reuse | run | resume
    why: str
    estimate: Estimate = Estimate()


def table(rows: Sequence[Planned]) -> str:
    """The plan as text: a line for each stage and the totals (time and disk add up, memory is the largest)."""
    cells = [("stage", "action", "time", "memory", "disk", "why")]
    for row in rows:
        cost = row.estimate
        costs = (
            ("-", "-", "-")
            if row.action == "reuse"
            else (duration(cost.seconds), size(cost.memory_bytes), size(cost.disk_bytes))
        )
        why = f"{row.why} ({cost.note})" if cost.note and row.action != "reuse" else row.why
        cells.append((row.name, row.action, *costs, why))
    work = [row.estimate for row in rows if row.action != "reuse"]
    cells.append(
        (
            "total",
            f"{len(work)} of {len(rows)}",
            duration(sum(e.seconds for e in work)),
            size(max((e.memory_bytes for e in work), default=0)),
            size(sum(e.disk_bytes for e in work)),
            "" if work else "everything is reused",
        )
    )
    widths = [max(len(row[column]) for row in cells) for column in range(5)]
    lines = []
    for row_cells in cells:
        padded = [
            cell.rjust(width) if 2 <= i <= 4 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row_cells, widths, strict=False))
        ]
        lines.append("  ".join([*padded, row_cells[5]]).rstrip())
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Seconds for people: '0 s', '4.2 s', '12 min', '3 h 05 min'."""
    if seconds < 10:
        return f"{seconds:.1f} s" if seconds else "0 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(count: float) -> str:
    """Bytes for people, in powers of 1000: '0', '512 B', '1.3 GB'."""
    if not count:
        return "0"
    unit = "B"
    for bigger in ("kB", "MB", "GB", "TB", "PB"):
        if count < 1000:
            break
        count /= 1000
        unit = bigger
    return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
