"""Log-probabilities: the one place where hidden states become losses and scores.

The vocabulary is the widest matrix of a small model, so logits exist only at the positions that are asked for, a few
hundred at a time, and are never all in memory.

Shape suffixes: N positions, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from matura.model.attention import Packed
from matura.model.transformer import Transformer

CHUNK = 512
"""Positions per block of logits: 512 x 49,152 float32 is 100 MB."""

Row = tuple[Sequence[int], Sequence[int]]
"""(context ids, continuation ids); the context is never empty."""


def cross_entropy_reference(
    hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor, weights_N: Tensor
) -> Tensor:
    """Weighted sum of -log softmax(hidden head^T)[target], all logits at once."""
    logprobs_NV = torch.log_softmax(hidden_ND @ head_VD.T, -1)
    return -(logprobs_NV.gather(1, targets_N[:, None])[:, 0] * weights_N).sum()


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The gradient needs the softmax that the loss has just computed, so both are made in one pass over chunks."""

    @staticmethod
    def forward(ctx, hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor, weights_N: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        need_hidden, need_head = ctx.needs_input_grad[:2]
        d_hidden_ND = torch.empty_like(hidden_ND) if need_hidden else None
        d_head_VD = torch.zeros_like(head_VD) if need_head else None
        loss = hidden_ND.new_zeros(())
        for start in range(0, len(hidden_ND), CHUNK):
            part = slice(start, start + CHUNK)
            hidden, targets, weights = hidden_ND[part], targets_N[part, None], weights_N[part, None]
            logits_NV = hidden @ head_VD.T
            chosen = logits_NV.gather(1, targets)
            probabilities, log_total = _softmax_in_place(logits_NV)
            loss += ((log_total - chosen) * weights).sum()
            if not (need_hidden or need_head):
                continue
            probabilities.scatter_add_(1, targets, torch.full_like(chosen, -1.0)).mul_(weights)
            if d_hidden_ND is not None:
                torch.mm(probabilities, head_VD, out=d_hidden_ND[part])
            if d_head_VD is not None:
                d_head_VD.addmm_(probabilities.T, hidden)
        ctx.save_for_backward(d_hidden_ND, d_head_VD)
        return loss

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # type: ignore[no-untyped-def]
        d_hidden_ND, d_head_VD = ctx.saved_tensors
        return (
            None if d_hidden_ND is None else d_hidden_ND * grad,
            None if d_head_VD is None else d_head_VD * grad,
            None,
            None,
        )


def _softmax_in_place(logits_NV: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax over the last dimension into the same memory; also log of the normalizer, [N, 1]."""
    largest = logits_NV.amax(-1, keepdim=True)
    total = logits_NV.sub_(largest).exp_().sum(-1, keepdim=True)
    return logits_NV.div_(total), total.log() + largest


def cross_entropy(hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor, weights_N: Tensor) -> Tensor:
    """Sum over positions of weight * -log p(target), in chunks; differentiable in hidden and head.

    No positions give a loss of zero that is still connected to the graph.
    """
    return _ChunkedCrossEntropy.apply(hidden_ND, head_VD, targets_N, weights_N)


@torch.no_grad()
def continuation_logprobs(
    model: Transformer,
    rows: Sequence[Row],
    *,
    tokens_per_batch: int = 2048,
    advance: Callable[[int], None] | None = None,
) -> list[list[float]]:
    """Natural-log probability of every continuation token given what stands before it, in the order of `rows`.

    Rows are packed without padding, and a context that several of them share (the choices of a question) is read
    once. `advance(n)` is told how many tokens are done.
    """
    out: list[list[float]] = [[] for _ in rows]
    for batch in _batches(rows, tokens_per_batch):
        hidden_ND, targets_N = _hidden_at_continuations(model, [rows[i] for i in batch])
        logprobs: list[float] = []
        for start in range(0, len(hidden_ND), CHUNK):
            logits_NV = model.logits(hidden_ND[start : start + CHUNK]).float()
            chosen = logits_NV.gather(1, targets_N[start : start + CHUNK, None])
            logprobs += (chosen - logits_NV.logsumexp(-1, keepdim=True))[:, 0].tolist()
        _deal(out, batch, rows, logprobs)
        if advance:
            advance(sum(len(rows[i][0]) + len(rows[i][1]) for i in batch))
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
    for batch in _batches(rows, tokens_per_batch):
        chosen = [rows[i] for i in batch]
        parent_ND, _ = _hidden_at_continuations(parent, chosen)
        child_ND, _ = _hidden_at_continuations(child, chosen)
        divergences: list[float] = []
        for start in range(0, len(parent_ND), CHUNK):
            p_NV = torch.log_softmax(parent.logits(parent_ND[start : start + CHUNK]).float(), -1)
            q_NV = torch.log_softmax(child.logits(child_ND[start : start + CHUNK]).float(), -1)
            divergences += (q_NV.sub_(p_NV).neg_().mul_(p_NV.exp_())).sum(-1).tolist()
        _deal(out, batch, rows, divergences)
        if advance:
            advance(2 * sum(len(rows[i][0]) + len(rows[i][1]) for i in batch))
    return out


def _batches(rows: Sequence[Row], tokens_per_batch: int) -> list[list[int]]:
    """Indices of rows, the largest groups of one context first, cut so that each batch reads at most
    `tokens_per_batch` tokens (or holds one group)."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, (context, continuation) in enumerate(rows):
        if not len(context):
            raise ValueError(f"row {i}: the context is empty; give at least one token (usually BOS)")
        if len(continuation):
            groups.setdefault(tuple(context), []).append(i)
    sizes = {
        context: len(context) + sum(len(rows[i][1]) - 1 for i in members)
        for context, members in groups.items()
    }
    batches: list[list[int]] = []
    used = tokens_per_batch
    for context in sorted(groups, key=lambda context: (-sizes[context], groups[context][0])):
        if used + sizes[context] > tokens_per_batch:
            batches.append([])
            used = 0
        batches[-1] += groups[context]
        used += sizes[context]
    return batches


def _hidden_at_continuations(model: Transformer, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Hidden states that predict the continuation tokens, and those tokens, for rows packed into one.

    A context that several neighbours share is read once, and each continuation branches off from it.
    """
    device = model.embed.weight.device
    ids: list[int] = []
    where: list[int] = []
    targets: list[int] = []
    lengths: list[int] = []
    parents: list[int | None] = []
    trunk, end = -1, 0
    for i, (context, continuation) in enumerate(rows):
        shared = [i > 0 and rows[i - 1][0] == context, i + 1 < len(rows) and rows[i + 1][0] == context]
        rest = continuation[:-1]
        if not any(shared):
            where += range(len(ids) + len(context) - 1, len(ids) + len(context) + len(rest))
            ids += [*context, *rest]
            lengths.append(len(context) + len(rest))
            parents.append(None)
        else:
            if not shared[0]:
                trunk = len(lengths)
                ids += context
                end = len(ids) - 1
                lengths.append(len(context))
                parents.append(None)
            where += [end, *range(len(ids), len(ids) + len(rest))]
            if rest:
                ids += rest
                lengths.append(len(rest))
                parents.append(trunk)
        targets += continuation
    mask = Packed(tuple(lengths), tuple(parents) if any(p is not None for p in parents) else ())
    hidden_1TD = model.decode(torch.tensor([ids], device=device), mask=mask)
    return hidden_1TD[0, torch.tensor(where, device=device)], torch.tensor(targets, device=device)


def _deal(out: list[list[float]], batch: list[int], rows: Sequence[Row], values: list[float]) -> None:
    start = 0
    for i in batch:
        end = start + len(rows[i][1])
        out[i] = values[start:end]
        start = end
