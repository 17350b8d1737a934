"""What is looked at while a model trains: held-out text in bits per byte, masked tokens found again, activations.

Nothing here changes a weight or draws from the global generator, so looking more or less often changes no result.

Shape suffixes: B rows, T tokens, D width, N positions, V vocabulary.
"""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from matura.model.block import Block
from matura.train.objectives import loss
from matura.train.ranks import ALONE, Ranks

Compute = Callable[..., Tensor]
"""(function of model and batch, batch) -> its value, by a forward pass wherever the weights are."""


@contextmanager
def looking(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, and back."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def bits_per_byte(compute: Compute, batches: Iterable[Any], ranks: Ranks = ALONE) -> float:
    """Summed loss of all held-out tokens in bits, by the bytes of their text: comparable across tokenizers."""
    nats, size = _summed(compute, loss, ((held.batch, held.bytes) for held in batches), ranks)
    return nats / math.log(2) / size if size else math.nan


def mean_loss(compute: Compute, batches: Iterable[Any], ranks: Ranks = ALONE) -> float:
    """Nats for each unit of the batches' weight."""
    nats, weight = _summed(compute, loss, ((batch, batch.weight) for batch in batches), ranks)
    return nats / weight if weight else math.nan


def masked_accuracy(compute: Compute, batches: Iterable[Any], ranks: Ranks = ALONE) -> float:
    """Share of the masked tokens that are the likeliest at their place."""
    right, count = _summed(compute, _found, ((batch, len(batch.targets_N)) for batch in batches), ranks)
    return right / count if count else math.nan


def _summed(
    compute: Compute, function: Any, batches: Iterable[tuple[Any, float]], ranks: Ranks
) -> tuple[float, float]:
    """Values of all batches and their units, added up over the ranks, to which the batches are dealt.

    Weights that are cut over ranks need all of them in every pass: in the last turn, some read what another one counts.
    """
    value = units = 0.0
    waiting = iter(batches)
    while turn := list(itertools.islice(waiting, ranks.data)):
        own = ranks.data_rank < len(turn)
        batch, size = turn[ranks.data_rank if own else 0]
        found = float(compute(function, batch))
        value, units = value + own * found, units + own * size
    value, units = ranks.sum(value, units)
    return value, units


def _found(model: Any, batch: Any) -> Tensor:
    hidden_BTD = model.encode(batch.ids_BT, mask=batch.mask)
    logits_NV = model.logits(hidden_BTD.flatten(0, 1)[batch.where_N])
    return (logits_NV.argmax(-1) == batch.targets_N).sum()


def alarms(rows: Sequence[Mapping[str, float]]) -> list[str]:
    """What a run's log says is wrong, for its summary and report: held-out text that is predicted no better than by the
    first weights. (A rate that is too high need not end in numbers that are none.)"""
    first, last = rows[0], rows[-1]
    losses = [name for name in first if name.startswith("heldout") and name.endswith(("_bpb", "_loss"))]
    return [
        f"{name} was {first[name]:.4g} before training and is {last.get(name, math.nan):.4g}: nothing was learned. "
        "Start again with a lower learning rate (optimizer.lr), or with more tokens."
        for name in losses
        if last is not first and math.isfinite(first[name]) and not last.get(name, math.nan) < first[name]
    ]


def activation_sizes(model: Any, forward: Callable[[], Any]) -> dict[str, float]:
    """Root mean square of what each block writes, by its place, during one `forward()`."""
    found: dict[str, float] = {}

    def noting(name: str) -> Callable[[Any, Any, Tensor], None]:
        def note(module: Any, given: Any, out_BTD: Tensor) -> None:
            found[name] = float(out_BTD.detach().float().square().mean().sqrt())

        return note

    hooks = [
        module.register_forward_hook(noting(name.replace(".blocks.", ".")))
        for name, module in model.named_modules()
        if isinstance(module, Block)
    ]
    try:
        forward()
    finally:
        for hook in hooks:
            hook.remove()
    return found


def hidden(model: Any, ids_BT: Tensor) -> Tensor:
    """Last hidden states of a row; an encoder-decoder reads it on both sides."""
    if model.decoder is None:
        return cast(Tensor, model.encode(ids_BT))
    memory_BSD = None if model.encoder is None else model.encode(ids_BT)
    return cast(Tensor, model.decode(ids_BT, memory_BSD=memory_BSD))


@functools.cache
def matrix_speed(device: str = "cpu", dtype: torch.dtype = torch.float32, size: int = 1536) -> float:
    """Floating-point operations a second that products of square matrices reach here: the median of 7. What
    utilisation is measured against; measured once a process."""
    a = torch.full((size, size), 0.5, device=device, dtype=dtype)
    times = []
    for _ in range(8):
        began = time.perf_counter()
        a @ a
        if device != "cpu":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return 2 * size**3 / sorted(times[1:])[3]
