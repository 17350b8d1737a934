"""The weight of the KL penalty over time.

A controller's state is JSON and belongs into the checkpoint: a run that was killed goes on with the same weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

LARGEST_ERROR = 0.2


class Controller(Protocol):
    """Gives the coefficient of the penalty, and hears of what it led to."""

    @property
    def coefficient(self) -> float:
        """Reward (or loss) per nat."""

    def update(self, kl: float, episodes: int) -> None:
        """Answers were written at `kl` nats each from the reference, `episodes` of them."""

    def state(self) -> dict[str, Any]:
        """As JSON values."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to what `state` gave."""


@dataclass
class Fixed:
    """Always the same."""

    coefficient: float

    def update(self, kl: float, episodes: int) -> None:
        """Nothing follows."""

    def state(self) -> dict[str, Any]:
        """Its coefficient, which is a setting."""
        return {"coefficient": self.coefficient}

    def restore(self, state: Mapping[str, Any]) -> None:
        """It is what it was."""
        self.coefficient = state["coefficient"]


@dataclass
class Adaptive:
    """Proportional control towards `target` nats an answer (arXiv:1909.08593, section 2.2):

        e = clip(kl / target - 1, -0.2, 0.2)        coefficient <- coefficient (1 + e episodes / horizon)

    `horizon` is the number of answers over which an error is corrected by its own size. One update halves or doubles
    the coefficient at most, however many answers it hears of.
    """

    coefficient: float
    target: float
    horizon: int

    def update(self, kl: float, episodes: int) -> None:
        """Raise the coefficient above the target, lower it below. A `kl` that is no number changes nothing."""
        if kl != kl:
            return
        error = min(max(kl / self.target - 1, -LARGEST_ERROR), LARGEST_ERROR)
        self.coefficient *= min(max(1 + error * episodes / self.horizon, 0.5), 2.0)

    def state(self) -> dict[str, Any]:
        """The coefficient; target and horizon are settings."""
        return {"coefficient": self.coefficient}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to what `state` gave."""
        self.coefficient = state["coefficient"]
