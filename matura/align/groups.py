"""How much better an answer is than the other answers to its prompt: no value model, the group is the baseline."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["std", "mean", "leave_one_out"]
EPS = 1e-4
"""Added to the standard deviation, so that a group that hardly differs is not blown up without end."""


@dataclass(frozen=True)
class Group:
    """The advantages of the answers to one prompt; None for an answer that was not judged, or had nobody to be
    compared with."""

    advantages: tuple[float | None, ...]

    @property
    def judged(self) -> int:
        """Answers with an advantage."""
        return sum(one is not None for one in self.advantages)

    @property
    def is_even(self) -> bool:
        """Whether all that were judged got the same: there is nothing to learn."""
        return not any(self.advantages)


def advantages(rewards: Sequence[float | None], kind: Kind) -> Group:
    """Advantages from the rewards of the answers to one prompt; those that are None are left out of everything.

    - std: (r - mean) / (std + 1e-4), of the sample (GRPO, arXiv:2402.03300, section 4.1.2);
    - mean: r - mean (Dr. GRPO, arXiv:2503.20783, section 3: the deviation favours prompts that are nearly always right
      or wrong);
    - leave_one_out: r - mean of the others (RLOO, arXiv:2402.14740, equation 8: unbiased).

    Equal rewards give zeros. A single judged answer has no one to be compared with: None.
    """
    known = [one for one in rewards if one is not None]
    if len(known) < 2:
        return Group((None,) * len(rewards))
    mean = math.fsum(known) / len(known)
    if max(known) == min(known):
        scale = 0.0
    elif kind == "std":
        scale = 1 / (statistics.stdev(known) + EPS)
    else:
        scale = len(known) / (len(known) - 1) if kind == "leave_one_out" else 1.0
    return Group(tuple(None if one is None else (one - mean) * scale for one in rewards))
