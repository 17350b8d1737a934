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
from matura.train.precision import FP32, Precision
from matura.train.ranks import ALONE, Ranks


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
    """One update over all ranks: its number (from 1), mean loss per unit, gradient norm before clipping, rate, units
    and tokens; and how many updates float16 had to leave out so far (the norm of such a step is not finite)."""

    step: int
    loss: float
    grad_norm: float
    lr: float
    weight: float
    tokens: int
    skipped: int = 0


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
    ranks: Ranks = ALONE,
    precision: Precision = FP32,
    allows: Callable[[float, float], bool] | None = None,
) -> Iterator[Step]:
    """Update `model` until `steps`, or until `batches` runs dry; the caller logs, evaluates and saves in between.

    Gradients are divided by the weight of the whole step, so 1 x 8 rows, 8 x 1 rows and 2 ranks x 4 rows give the
    same update whatever their padding or masks. `schedule(step)` is the learning rate (groups scale it by
    `lr_scale`); gradients are clipped to the norm `clip`. Batches are pulled when their step begins; every rank has
    its own, and all ranks stop when one runs dry. A step whose batches hold nothing to train on is passed over.
    `allows(loss, norm)` may leave an update out (see `spikes.py`); without it, Diverged is raised, on all ranks,
    before an update that is no number touches the weights.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    model.train()
    optimizer.zero_grad(set_to_none=True)  # of an update that was given up, where training goes back
    for step in range(start, steps):
        micro = list(islice(batches, accumulate))
        ready, weight, tokens = ranks.sum(
            len(micro) == accumulate,
            sum(batch.weight for batch in micro),
            sum(batch.tokens for batch in micro),
        )
        if ready < ranks.data:
            return
        lr = schedule(step)
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        loss = norm = 0.0
        if weight:
            (total,) = ranks.sum(_backward(model, micro, objective, weight, ranks, precision))
            loss = total / weight
            precision.unscale(parameters)
            norm = ranks.clip(parameters, clip)
            finite = math.isfinite(norm)
            if not finite and precision.survives(finite):
                precision.accepts(finite)
            elif allows(loss, norm) if allows else _finite(step, loss, norm, lr):
                precision.accepts(finite)
                optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield Step(step + 1, loss, norm, lr, weight, int(tokens), precision.skipped)


def _finite(step: int, loss: float, norm: float, lr: float) -> bool:
    if math.isfinite(loss) and math.isfinite(norm):
        return True
    raise Diverged(
        f"step {step + 1}: loss {loss} and gradient norm {norm} are not finite, so this update was not made. Start "
        f"again with a lower learning rate (it was {lr:g} here)."
    )


def _backward(
    model: nn.Module,
    micro: list[Any],
    objective: Objective,
    weight: float,
    ranks: Ranks,
    precision: Precision,
) -> float:
    """Gradients of the mean loss over the whole step, times the precision's scale; returns this rank's summed loss.

    Ranks average their gradients, so each one's loss is multiplied by their number first.
    """
    unit = weight / (ranks.data * precision.scale)
    total = torch.zeros(())
    for i, batch in enumerate(micro, 1):
        with precision.autocast():
            loss = ranks.forward(model, objective, batch, last=i == len(micro))
        (loss / unit).backward()
        total = total + loss.detach().float()
    return total.item()
