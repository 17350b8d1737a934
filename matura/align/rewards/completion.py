"""What a reward is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from matura.core.preferences import Ranking


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer to a prompt: `text` without the stop token, how it ended, and its `tokens`, the stop token among
    them. What is known of the right answer is in `prompt.facts`."""

    prompt: Ranking
    text: str
    end: Literal["stop", "length"]
    tokens: int


Reward = Callable[[Sequence[Completion]], Sequence[float | None]]
"""A number for every completion, more is better; None where it cannot judge."""
