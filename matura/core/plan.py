"""What a stage will cost, and the table that shows it before anything runs."""

from collections.abc import Sequence
from dataclasses import dataclass

from matura.core.files import size_text


@dataclass(frozen=True)
class Estimate:
    """What a stage expects to need on this machine: time, peak memory, new bytes on disk, a remark, and what there is
    to say in lines of their own; and of what it will make, the bytes of a model's weights and how many tokens a
    tokenizer or token shards know (0: not known)."""

    seconds: float = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    note: str = ""
    details: tuple[str, ...] = ()
    model_bytes: int = 0
    vocabulary: int = 0


@dataclass(frozen=True)
class Planned:
    """One line of a plan: what will happen to a stage and why. A reused or skipped stage costs nothing."""

    name: str
    action: str  # reuse | run | resume | skip
    why: str
    estimate: Estimate = Estimate()

    @property
    def works(self) -> bool:
        """Whether the stage is run at all."""
        return self.action in ("run", "resume")


def table(rows: Sequence[Planned]) -> str:
    """The plan as text: a line for each stage, then the totals (of memory: the largest). What is not known yet, such as
    the work on files that are fetched first, is a question mark and no part of the totals."""
    cells = [("stage", "action", "time", "memory", "disk", "why")]
    for row in rows:
        cost = row.estimate
        costs = _costs(cost) if row.works else ("-", "-", "-")
        why = f"{row.why} ({cost.note})" if cost.note and row.works else row.why
        cells.append((row.name, row.action, *costs, why))
    work = [row.estimate for row in rows if row.works]
    cells.append(
        (
            "total",
            f"{len(work)} of {len(rows)}",
            duration(sum(e.seconds for e in work)),
            size_text(max((e.memory_bytes for e in work), default=0)),
            size_text(sum(e.disk_bytes for e in work)),
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
    for row in rows:
        if row.works and row.estimate.details:
            lines += ["", row.name, *(f"  {line}" for line in row.estimate.details)]
    return "\n".join(lines)


def _costs(cost: Estimate) -> tuple[str, str, str]:
    """Time, memory and disk; a stage that says nothing of them does not know."""
    if not (cost.seconds or cost.memory_bytes or cost.disk_bytes):
        return "?", "?", "?"
    return duration(cost.seconds), size_text(cost.memory_bytes), size_text(cost.disk_bytes)


def duration(seconds: float) -> str:
    """Seconds for people: '0 s', '4.2 s', '12 min', '3 h 05 min', '9 days', '4.5 years'."""
    if seconds < 10:
        return f"{seconds:.1f} s" if seconds else "0 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    days = seconds / 86400
    if days >= 730:
        return f"{days / 365.25:.3g} years"
    if days >= 4:
        return f"{days:.0f} days"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
