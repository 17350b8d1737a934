"""Log-probabilities: the one place where hidden states become losses and scores.

The vocabulary is the widest matrix of a small model, so logits exist only at the positions that are asked for, a few
hundred at a time, and are never all in memory.

Shape suffixes: N positions, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from matura.model.continuations import Row, hidden_states, plan
from matura.model.heads import Unembedding
from matura.model.transformer import Transformer

CHUNK = 512
"""Positions per block of logits: 512 x 49,152 float32 is 100 MB."""

T = TypeVar("T")


@dataclass(frozen=True)
class Shaping:
    """What is added to the loss of a position. `smoothing`: share of the target's weight that is spread over the
    whole vocabulary (arXiv:1512.00567, section 7); `z_loss`: factor of log(normalizer)^2, which keeps logits from
    drifting (PaLM, arXiv:2204.02311, section 5; 1e-4 there)."""

    smoothing: float = 0.0
    z_loss: float = 0.0


PLAIN = Shaping()


def cross_entropy_reference(
    features_ND: Tensor, head: Unembedding, targets_N: Tensor, weights_N: Tensor, shaping: Shaping = PLAIN
) -> Tensor:
    """Weighted sum of -log softmax(logits)[target], all logits at once."""
    logits_NV = head.logits(features_ND)
    logprobs_NV = torch.log_softmax(logits_NV, -1)
    loss_N = -logprobs_NV.gather(1, targets_N[:, None])[:, 0] * (1 - shaping.smoothing)
    loss_N = loss_N - shaping.smoothing * logprobs_NV.mean(-1)
    loss_N = loss_N + shaping.z_loss * logits_NV.logsumexp(-1).square()
    return (loss_N * weights_N).sum()


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The gradient needs the softmax that the loss has just computed, so both are made in one pass over chunks.

    The products are made in `dtype` (autocast's, where it is on), everything between and every sum in at least
    float32.
    """

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx,
        x_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        softcap: float | None,
        targets_N: Tensor,
        weights_N: Tensor,
        shaping: Shaping,
        dtype: torch.dtype,
    ) -> Tensor:
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        exact = torch.promote_types(dtype, torch.float32)
        head_VD = weight_VD.to(dtype)
        d_x_ND = torch.empty_like(x_ND, dtype=exact) if need_x else None
        d_weight_VD = torch.zeros_like(weight_VD, dtype=exact) if need_weight else None
        d_bias_V = torch.zeros_like(bias_V, dtype=exact) if need_bias and bias_V is not None else None
        loss = x_ND.new_zeros((), dtype=exact)
        for start in range(0, len(x_ND), CHUNK):
            part = slice(start, start + CHUNK)
            x, targets, weights = x_ND[part].to(dtype), targets_N[part, None], weights_N[part, None]
            logits_NV, slope_NV = capped_logits(x, head_VD, bias_V, softcap, exact)
            chunk_loss, d_logits_NV = _loss_in_place(logits_NV, targets, weights, shaping)
            loss += chunk_loss
            if not (need_x or need_weight or need_bias):
                continue
            if slope_NV is not None:
                d_logits_NV.mul_(slope_NV)
            if d_bias_V is not None:
                d_bias_V += d_logits_NV.sum(0)
            d_logits_NV = d_logits_NV.to(dtype)
            if d_x_ND is not None:
                product_into(d_x_ND[part], d_logits_NV, head_VD)
            if d_weight_VD is not None:
                add_product(d_weight_VD, d_logits_NV.T, x)
        ctx.save_for_backward(d_x_ND, d_weight_VD, d_bias_V)
        ctx.dtypes = x_ND.dtype, weight_VD.dtype, None if bias_V is None else bias_V.dtype
        return loss

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        found = [
            None if one is None else (one * grad).to(dtype)
            for one, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return (*found, None, None, None, None, None)


def _loss_in_place(
    logits_NV: Tensor, targets_N1: Tensor, weights_N1: Tensor, shaping: Shaping
) -> tuple[Tensor, Tensor]:
    """The weighted loss of a chunk, and its gradient by the logits in their memory."""
    smoothing, z_loss = shaping.smoothing, shaping.z_loss
    chosen = logits_NV.gather(1, targets_N1)
    spread = logits_NV.mean(-1, keepdim=True) if smoothing else None
    d_logits_NV, log_total = softmax_in_place(logits_NV)
    loss = log_total - (chosen if spread is None else chosen.lerp(spread, smoothing))
    if z_loss:
        loss = loss + z_loss * log_total.square()
        d_logits_NV.mul_(1 + 2 * z_loss * log_total)
    if smoothing:
        d_logits_NV.sub_(smoothing / d_logits_NV.shape[1])
    d_logits_NV.scatter_add_(1, targets_N1, torch.full_like(chosen, smoothing - 1)).mul_(weights_N1)
    return (loss * weights_N1).sum(), d_logits_NV


def product_into(out: Tensor, a: Tensor, b: Tensor) -> None:
    """out = a b; with another dtype than theirs the product is widened."""
    if out.dtype == a.dtype:
        torch.mm(a, b, out=out)
    else:
        out.copy_(a @ b)


def add_product(out: Tensor, a: Tensor, b: Tensor) -> None:
    """out += a b; with another dtype than theirs the sum is made in the wider one."""
    if out.dtype == a.dtype:
        out.addmm_(a, b)
    else:
        out += a @ b


def capped_logits(
    x_ND: Tensor, head_VD: Tensor, bias_V: Tensor | None, softcap: float | None, exact: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """Logits of a chunk in `exact`, of a product in the head's dtype, and the derivative of their cap."""
    logits_NV = (x_ND.to(head_VD.dtype) @ head_VD.T).to(exact)
    if bias_V is not None:
        logits_NV += bias_V
    return logits_NV, cap_in_place(logits_NV, softcap)


def cap_in_place(logits_NV: Tensor, softcap: float | None) -> Tensor | None:
    """softcap * tanh(logits / softcap) in the same memory; returns its derivative, 1 - tanh^2."""
    if softcap is None:
        return None
    logits_NV.div_(softcap).tanh_()
    slope_NV = 1 - logits_NV.square()
    logits_NV.mul_(softcap)
    return slope_NV


def softmax_in_place(logits_NV: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax over the last dimension into the same memory; also log of the normalizer, [N, 1]."""
    largest = logits_NV.amax(-1, keepdim=True)
    total = logits_NV.sub_(largest).exp_().sum(-1, keepdim=True)
    return logits_NV.div_(total), total.log() + largest


def cross_entropy(
    features_ND: Tensor,
    head: Unembedding,
    targets_N: Tensor,
    weights_N: Tensor,
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Tensor:
    """Sum over positions of weight * -log p(target), in chunks; differentiable in the features and the head.

    `label_smoothing` in [0, 1) and `z_loss` >= 0 as in `Shaping`. Under autocast the products are made in its dtype,
    the loss in float32. No positions give a loss of zero that is still connected to the graph.
    """
    shaping = Shaping(label_smoothing, z_loss)
    with autocast_by_hand(features_ND) as dtype:
        return _ChunkedCrossEntropy.apply(
            features_ND, head.weight_VD, head.bias_V, head.softcap, targets_N, weights_N, shaping, dtype
        )


@contextmanager
def autocast_by_hand(features_ND: Tensor) -> Iterator[torch.dtype]:
    """Autocast is off within. The dtype that products are to be made in: autocast's where it was on, else that of the
    features."""
    kind = features_ND.device.type
    if not torch.is_autocast_enabled(kind):
        yield features_ND.dtype
        return
    dtype = torch.get_autocast_dtype(kind)
    with torch.autocast(kind, enabled=False):
        yield dtype


@torch.no_grad()
def continuation_logprobs(
    model: Transformer,
    rows: Sequence[Row],
    *,
    tokens_per_batch: int = 2048,
    advance: Callable[[int], None] | None = None,
) -> list[list[float]]:
    """Natural-log probability of every continuation token given what stands before it, in the order of `rows`.

    Rows are packed without padding, and what contexts share is read once (see `continuations`). `advance(n)` is told
    how many tokens are done.
    """

    def read(logits_NV: Tensor, targets_N: Tensor) -> list[float]:
        return _logprobs(logits_NV, targets_N).tolist()

    return _each(model, rows, read, tokens_per_batch, advance)


@torch.no_grad()
def continuation_scores(
    model: Transformer,
    rows: Sequence[Row],
    *,
    tokens_per_batch: int = 2048,
    advance: Callable[[int], None] | None = None,
) -> list[list[tuple[float, bool]]]:
    """`continuation_logprobs`, and for every token whether it is the model's likeliest: (log-probability, greedy)."""

    def read(logits_NV: Tensor, targets_N: Tensor) -> list[tuple[float, bool]]:
        greedy = (logits_NV.argmax(-1) == targets_N).tolist()
        return list(zip(_logprobs(logits_NV, targets_N).tolist(), greedy, strict=True))

    return _each(model, rows, read, tokens_per_batch, advance)


def _logprobs(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    return (logits_NV.gather(1, targets_N[:, None]) - logits_NV.logsumexp(-1, keepdim=True))[:, 0]


def _each(
    model: Transformer,
    rows: Sequence[Row],
    read: Callable[[Tensor, Tensor], list[T]],
    tokens_per_batch: int,
    advance: Callable[[int], None] | None,
) -> list[list[T]]:
    """What `read` makes of the logits [N, V] and the continuation tokens [N], dealt out to the rows."""
    out: list[list[T]] = [[] for _ in rows]
    for reading in plan(rows, tokens_per_batch):
        hidden_ND, targets_N = hidden_states(model, rows, reading)
        found: list[T] = []
        for start in range(0, len(hidden_ND), CHUNK):
            logits_NV = model.logits(hidden_ND[start : start + CHUNK]).float()
            found += read(logits_NV, targets_N[start : start + CHUNK])
        _deal(out, reading.rows, rows, found)
        if advance:
            advance(sum(len(rows[i][0]) + len(rows[i][1]) for i in reading.rows))
    return out


@torch.no_grad()
def continuation_kl(
    parent: Transformer,
    child: Transformer,
    rows: Sequence[Row],
    *,
    tokens_per_batch: int = 2048,
    advance: Callable[[int], None] | None = None,
) -> list[list[float]]:
    """KL(parent || child) in nats over the full vocabulary at every continuation position."""
    out: list[list[float]] = [[] for _ in rows]
    for reading in plan(rows, tokens_per_batch):
        parent_ND, _ = hidden_states(parent, rows, reading)
        child_ND, _ = hidden_states(child, rows, reading)
        divergences: list[float] = []
        for start in range(0, len(parent_ND), CHUNK):
            p_NV = torch.log_softmax(parent.logits(parent_ND[start : start + CHUNK]).float(), -1)
            q_NV = torch.log_softmax(child.logits(child_ND[start : start + CHUNK]).float(), -1)
            divergences += (q_NV.sub_(p_NV).neg_().mul_(p_NV.exp_())).sum(-1).tolist()
        _deal(out, reading.rows, rows, divergences)
        if advance:
            advance(2 * sum(len(rows[i][0]) + len(rows[i][1]) for i in reading.rows))
    return out


def _deal(out: list[list[T]], chosen: list[int], rows: Sequence[Row], values: list[T]) -> None:
    start = 0
    for i in chosen:
        end = start + len(rows[i][1])
        out[i] = values[start:end]
        start = end
