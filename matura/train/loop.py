"""The training loop: a generator that yields one Step per optimizer update."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from matura.core.errors import MaturaError


class Batch(Protocol):
    """What an objective eats. `weight` is the number of units (trained tokens, pairs, ...) its loss sums over."""

    @property
    def weight(self) -> float: ...

    @property
    def tokens(self) -> int: ...


Objective = Callable[[Any, Any], Tensor]
"""(model, batch) -> loss summed over `batch.weight` units."""


@dataclass(frozen=True)
class Step:
    """One update: its number (from 1), mean loss per unit, gradient norm before clipping, rate, units and tokens."""

    step: int
    loss: float
    grad_norm: float
    lr: float
    weight: float
    tokens: int


class Diverged(MaturaError):  # noqa: N818 (named for what happened, as the errors of core are)
    """The loss or the gradient is no longer a number."""


def train(
    model: nn.Module,
    batches: Iterator[Any],
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    schedule: Callable[[int], float],
    *,
    steps: int,
    accumulate: int = 1,
    clip: float = 1.0,
    start: int = 0,
) -> Iterator[Step]:
    """Update `model` until `steps`, or until `batches` runs dry; the caller logs, evaluates and saves in between.

    Gradients are divided by the weight of the whole step, so 1 x 8 rows and 8 x 1 rows give the same update whatever
    their padding or masks. `schedule(step)` is the learning rate (groups scale it by `lr_scale`); gradients are
    clipped to the norm `clip`. Batches are pulled when their step begins. A step whose batches hold nothing to train
    on is passed over. Raises Diverged before a bad update touches the weights.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    model.train()
    for step in range(start, steps):
        micro = list(islice(batches, accumulate))
        if len(micro) < accumulate:
            return
        weight = float(sum(batch.weight for batch in micro))
        lr = schedule(step)
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        total = torch.zeros(())
        if weight:
            for batch in micro:
                loss = objective(model, batch)
                (loss / weight).backward()
                total += loss.detach().float().cpu()
        loss_value = total.item() / weight if weight else 0.0
        norm = torch.nn.utils.clip_grad_norm_(parameters, clip).item()
        if not (math.isfinite(loss_value) and math.isfinite(norm)):
            raise Diverged(
                f"step {step + 1}: loss {loss_value} and gradient norm {norm} are not finite, so this update was "
                f"not made. Start again with a lower learning rate (it was {lr:g} here)."
            )
        if weight:
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield Step(step + 1, loss_value, norm, lr, weight, sum(batch.tokens for batch in micro))
