"""What artifacts cost: time, tokens, arithmetic, memory and disk, as their records and settings tell. No torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matura.core import lineage
from matura.core.artifact import Artifact
from matura.core.errors import MaturaError
from matura.core.files import size_text
from matura.core.page import seconds
from matura.model import description, flops

LEARNING = ("pretrain", "finetune", "reward", "dpo", "ppo", "grpo")
"""Stages that train a model."""
NOTE = (
    "Time is that of all sessions of a stage, as far as its files tell; processor time and memory are those of the "
    "session that finished it. Tokens are those that were learned from, written or encoded. FLOP are those of the "
    "updates (6 for each parameter and token, 4 where only an adapter learns, and attention) and of answers that were "
    "sampled (2); what is read beside that is not counted: references, rewards, looks, exams."
)
HEADS = ("stage", "time", "processor", "tokens", "FLOP", "peak memory", "disk")


@dataclass(frozen=True)
class Cost:
    """What one artifact cost; None is not recorded, or does not apply. Memory and disk in bytes."""

    stage: str
    name: str
    seconds: float
    cpu_seconds: float | None = None
    tokens: int | None = None
    flops: float | None = None
    memory: int | None = None
    disk: int | None = None


def of(one: Artifact) -> Cost:
    """What an artifact cost."""
    record = one.record
    tokens = _tokens(one)
    return Cost(
        stage=record["stage"],
        name=lineage.name_of(one.path),
        seconds=_number(record.get("seconds")) or 0.0,
        cpu_seconds=_number(record.get("cpu_seconds")),
        tokens=tokens,
        flops=None if tokens is None else _flops(one, tokens),
        memory=_whole(record.get("peak_memory")),
        disk=sum(file["bytes"] for file in record["files"].values()),
    )


def table(costs: Sequence[Cost], names: Sequence[str] = ()) -> dict[str, Any]:
    """Heads, rows of texts, and how many are not shown (none); the last row is the total. `names` stand in place of
    those of the artifacts."""
    called = names or [one.name for one in costs]
    rows = [_row(f"{name} ({one.stage})", one) for name, one in zip(called, costs, strict=True)]
    known = [one.memory for one in costs if one.memory is not None]
    total = Cost(
        stage="",
        name="",
        seconds=sum(one.seconds for one in costs),
        cpu_seconds=_sum(one.cpu_seconds for one in costs),
        flops=_sum(one.flops for one in costs),
        memory=max(known, default=None),
        disk=_whole(_sum(one.disk for one in costs)),
    )
    return {"heads": HEADS, "rows": [*rows, _row("together", total)], "more": 0}


def _row(name: str, one: Cost) -> tuple[str, ...]:
    return (
        name,
        seconds(one.seconds),
        "–" if one.cpu_seconds is None else seconds(one.cpu_seconds),
        "–" if one.tokens is None else f"{one.tokens:,}",
        f"{one.flops:.3g}" if one.flops else "–",
        "–" if one.memory is None else size_text(one.memory),
        "–" if one.disk is None else size_text(one.disk),
    )


def _tokens(one: Artifact) -> int | None:
    """Tokens that a stage learned from, wrote or encoded."""
    summary = one.summary
    if one.record["stage"] in LEARNING:
        return _whole(summary.get("tokens"))
    if one.kind in ("corpus", "tokens", "samples"):
        return int(_sum(_whole(_group(summary, side).get("tokens")) for side in ("train", "heldout")) or 0)
    return None


def _flops(one: Artifact, tokens: int) -> float | None:
    """What the updates of a training took, or the writing of answers."""
    recorded = _number(one.summary.get("flops"))
    if recorded is not None:
        return recorded
    sequence = _whole(one.config.get("sequence")) or 0  # not known: the products of matrices alone
    with contextlib.suppress(MaturaError):
        if one.record["stage"] in LEARNING:
            config = description.read_config(one.path)
            adapter = description.ADAPTER_CONFIG in one.record["files"]
            each = flops.adapting_flops if adapter else flops.training_flops
            return each(config, sequence) * tokens
        if one.kind == "samples" and "model" in one.inputs:
            return flops.reading_flops(description.read_config(one.input("model").path), sequence) * tokens
    return None


def _group(summary: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = summary.get(name)
    return found if isinstance(found, Mapping) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _sum(values: Iterable[float | None]) -> float | None:
    """The sum of those that are known; None of none."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
