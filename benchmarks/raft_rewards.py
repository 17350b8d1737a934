"""Rules of annotators for the benchmark of RAFT: which form of a date they like, and one who throws dice."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence

from matura.align.rewards import Completion


def with_dots(iso: str) -> str:
    """2024-03-01 as 01.03.2024."""
    return datetime.date.fromisoformat(iso).strftime("%d.%m.%Y")


def iso(completions: Sequence[Completion]) -> list[float]:
    """Likes the right day as 2024-03-01."""
    return [float(one.text.strip() == one.prompt.facts["gold"]) for one in completions]


def dots(completions: Sequence[Completion]) -> list[float]:
    """Likes the right day as 01.03.2024."""
    return [float(one.text.strip() == with_dots(one.prompt.facts["gold"])) for one in completions]


def either(completions: Sequence[Completion]) -> list[float]:
    """Likes the right day, however it is written."""
    return [max(both) for both in zip(iso(completions), dots(completions), strict=True)]


def dice(completions: Sequence[Completion]) -> list[float]:
    """Likes what the dice say: the control, from which there is nothing to learn."""
    told = [f"{one.prompt.id}\n{i}\n{one.text}" for i, one in enumerate(completions)]
    return [int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 16**8 for text in told]
