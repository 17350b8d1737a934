"""How the processes of one run act together, as a value that the training loop is given.

`ALONE` is one process, without torch's distributed package. `train/parallel.py` makes the value for many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Ranks(Protocol):
    """What the loop asks of the other processes. Every rank makes the same calls in the same order."""

    @property
    def rank(self) -> int:
        """This process, from 0; rank 0 writes logs and artifacts."""
        ...

    @property
    def world(self) -> int:
        """Number of processes."""
        ...

    @property
    def data(self) -> int:
        """Number of ranks (or groups of tensor-parallel ranks) that read batches of their own."""
        ...

    @property
    def data_rank(self) -> int:
        """Which of them this one belongs to; ranks of equal number must read the same batches and draw the same
        random numbers."""
        ...

    def barrier(self) -> None:
        """Wait for all ranks."""
        ...

    def sum(self, *values: float) -> tuple[float, ...]:
        """Each value summed over the batches of all ranks, in float64."""
        ...

    def forward(self, model: nn.Module, compute: Callable[..., Any], *args: Any, last: bool = True) -> Any:
        """`compute(model, *args)` as one forward pass of the model, wherever its weights are.

        Gradients are averaged over the ranks by the backward pass of the `last` batch of a step.
        """
        ...

    def clip(self, parameters: Sequence[nn.Parameter], limit: float) -> float:
        """Complete the gradients of a step and scale them to a norm of at most `limit`; returns the norm before, over
        all parts of all weights."""
        ...

    def deal(self, work: Callable[[Tensor], Tensor], matrices: Sequence[Tensor]) -> Sequence[Tensor]:
        """This rank's parts of what `work` ([M, I, O] -> the same) makes of M matrices of one shape, each for itself.

        A matrix is put together on one rank, which works on it for all; `world` of them keep every rank busy.
        """
        ...


class Alone:
    """One process."""

    rank, world, data, data_rank = 0, 1, 1, 0

    def barrier(self) -> None:
        pass

    def sum(self, *values: float) -> tuple[float, ...]:
        return tuple(map(float, values))

    def forward(self, model: nn.Module, compute: Callable[..., Any], *args: Any, last: bool = True) -> Any:
        return compute(model, *args)

    def clip(self, parameters: Sequence[nn.Parameter], limit: float) -> float:
        return torch.nn.utils.clip_grad_norm_(parameters, limit).item()

    def deal(self, work: Callable[[Tensor], Tensor], matrices: Sequence[Tensor]) -> Sequence[Tensor]:
        return work(torch.stack(list(matrices))).unbind()


ALONE: Ranks = Alone()
