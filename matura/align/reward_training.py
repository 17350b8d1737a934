"""How a reward model learns: its objective, and what is looked at meanwhile.

Shape suffixes: N answers, P pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from matura.align.ranked import Ranked, RankedBatch, pack_ranked, rewards
from matura.align.reward_losses import bradley_terry, centring, choices, plackett_luce
from matura.align.reward_model import Judge
from matura.model.transformer import Transformer
from matura.tokenizer.conversation import Format

Loss = Literal["bradley-terry", "plackett-luce"]


@dataclass(frozen=True)
class Rule:
    """Which loss, with what: `margin` times each pair's own margin (Bradley-Terry), `centring` times (r + r')^2."""

    loss: Loss = "bradley-terry"
    margin: float = 0.0
    centring: float = 0.0

    def __call__(self, rewards_N: Tensor, batch: RankedBatch) -> Tensor:
        """The loss summed over rankings, each of which weighs 1 however many answers it has."""
        chosen_P, rejected_P = rewards_N[batch.chosen_P], rewards_N[batch.rejected_P]
        weights_P = batch.weights_P.to(rewards_N.dtype)
        total = (weights_P * self.centring * centring(chosen_P, rejected_P)).sum()
        if self.loss == "plackett-luce":
            return total + _in_order(rewards_N, batch.places)
        margins_P = self.margin * batch.margins_P.to(rewards_N.dtype)
        return total + (weights_P * bradley_terry(chosen_P, rejected_P, margins_P)).sum()


def _in_order(rewards_N: Tensor, places: Sequence[Sequence[int]]) -> Tensor:
    """The mean loss of a ranking's choices, summed over rankings."""
    total, start = rewards_N.sum() * 0.0, 0
    for its in places:
        if count := choices(its):
            total = total + plackett_luce(rewards_N[start : start + len(its)], its) / count
        start += len(its)
    return total


def figures(rewards_N: Tensor, batch: RankedBatch) -> dict[str, float]:
    """`accuracy` and `margin` over pairs, weighted so that a prompt counts once; `reward_min`, `_mean`, `_max`."""
    difference_P = rewards_N[batch.chosen_P] - rewards_N[batch.rejected_P]
    weights_P = batch.weights_P.to(rewards_N.dtype)
    total = weights_P.sum()
    right_P = (difference_P.sign() + 1) / 2
    return {
        "accuracy": float((right_P * weights_P).sum() / total),
        "margin": float((difference_P * weights_P).sum() / total),
        "reward_min": float(rewards_N.min()),
        "reward_mean": float(rewards_N.mean()),
        "reward_max": float(rewards_N.max()),
    }


@dataclass
class Objective:
    """(model, batch) -> summed loss. `seen` has the figures of the latest batch, for the log.

    Dropout is off: with it, a pair's difference would be half noise (and a model's own settings may have some).
    """

    rule: Rule
    seen: dict[str, float] = field(default_factory=dict)

    def __call__(self, model: Transformer, batch: RankedBatch) -> Tensor:
        model.eval()
        rewards_N = rewards(model, batch.ids_1T, batch.mask, batch.spans_N)
        self.seen = figures(rewards_N.detach(), batch)
        return self.rule(rewards_N, batch)

    def notes(self) -> dict[str, float]:
        """What the batch of the latest update looked like."""
        return self.seen


def look(format: Format, examples: Sequence[Ranked], rule: Rule) -> Callable[[Transformer], dict[str, float]]:
    """A function that reads held-out examples with a model: `heldout_loss` a ranking, and `figures` likewise."""
    batch = pack_ranked(examples)

    def read_all(model: Transformer) -> dict[str, float]:
        found = Judge(model, format).rewards([one.text for one in examples])
        rewards_N = torch.tensor([reward for row in found for reward in row])
        told = {"loss": float(rule(rewards_N, batch)) / batch.weight, **figures(rewards_N, batch)}
        return {f"heldout_{name}": value for name, value in told.items()}

    return read_all
