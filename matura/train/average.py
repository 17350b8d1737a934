"""A running average of the weights, which is often better than the last ones (Polyak and Juditsky 1992).

It lives in the optimizer's state, so checkpoints carry it like any moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SLOT = "average"


@torch.no_grad()
def update(optimizer: torch.optim.Optimizer, step: int, decay: float) -> None:
    """Take the weights after update `step` (from 1) into the average: decay * average + (1 - decay) * weights.

    Early on the decay is (1 + step) / (10 + step), so that the first weights are soon forgotten.
    """
    kept = min(decay, (1 + step) / (10 + step))
    for parameter in _parameters(optimizer):
        state = optimizer.state[parameter]
        if SLOT in state:
            state[SLOT].lerp_(parameter, 1 - kept)
        elif state:  # never updated: an optimizer would take a state with a stranger in it for its own
            state[SLOT] = parameter.detach().clone()


@contextmanager
def averaged(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """The model has the averaged weights inside, its own again afterwards. Without an average nothing changes."""
    _swap(optimizer)
    try:
        yield
    finally:
        _swap(optimizer)


@torch.no_grad()
def _swap(optimizer: torch.optim.Optimizer) -> None:
    for parameter in _parameters(optimizer):
        average = optimizer.state[parameter].get(SLOT) if parameter in optimizer.state else None
        if average is not None:
            own = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(own)


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]
