"""Causal attention on a CPU, exact, a block of queries at a time.

A block reads only the keys up to its own end, so almost half of the products that a whole matrix of scores needs
are never made, and the scores of a block stay in the cache. All heads that share a key/value head form one product.
About a third faster than PyTorch's kernel for sequences of a few hundred tokens, forward and backward; the
scores are made anew in backward and never kept.

Shape suffixes: B batch, T tokens, H query heads, G key/value heads, K head width; N = B * G, R = H / G, L queries of a
block, M = R * L, E keys up to the end of the block.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 48
"""Queries in a block (the fastest of 32 to 256 at 500 tokens)."""


def causal_attention(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T) v where a query sees the keys up to its own position; [B, H, T, K]."""
    return _CausalAttention.apply(q_BHTK, k_BGTK, v_BGTK, scale)


class _CausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, scale: float) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(q_BHTK, k_BGTK, v_BGTK)
        ctx.scale = scale
        q_NRTK = _grouped(q_BHTK * scale, k_BGTK.shape[1])
        k_NTK, v_NTK = k_BGTK.flatten(0, 1), v_BGTK.flatten(0, 1)
        out_NRTK = torch.empty_like(q_NRTK)
        for start, end in _blocks(q_NRTK.shape[2]):
            weights_NME = _weights(q_NRTK, k_NTK, start, end)
            out_NMK = torch.bmm(weights_NME, v_NTK[:, :end])
            out_NRTK[:, :, start:end] = out_NMK.view(*q_NRTK.shape[:2], end - start, -1)
        return out_NRTK.view(q_BHTK.shape)

    @staticmethod
    def backward(ctx, grad_BHTK: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # type: ignore[no-untyped-def]
        q_BHTK, k_BGTK, v_BGTK = ctx.saved_tensors
        groups = k_BGTK.shape[1]
        q_NRTK, grad_NRTK = _grouped(q_BHTK * ctx.scale, groups), _grouped(grad_BHTK, groups)
        k_NTK, v_NTK = k_BGTK.flatten(0, 1), v_BGTK.flatten(0, 1)
        dq_NRTK = torch.empty_like(q_NRTK)
        dk_NTK, dv_NTK = torch.zeros_like(k_NTK), torch.zeros_like(v_NTK)
        for start, end in _blocks(q_NRTK.shape[2]):
            q_NMK, grad_NMK = (x[:, :, start:end].flatten(1, 2) for x in (q_NRTK, grad_NRTK))
            weights_NME = _weights(q_NRTK, k_NTK, start, end)
            dv_NTK[:, :end].baddbmm_(weights_NME.mT, grad_NMK)
            d_weights_NME = torch.bmm(grad_NMK, v_NTK[:, :end].mT)
            d_scores_NME = torch._softmax_backward_data(d_weights_NME, weights_NME, -1, weights_NME.dtype)
            dq_NMK = torch.bmm(d_scores_NME, k_NTK[:, :end])
            dq_NRTK[:, :, start:end] = dq_NMK.view(*q_NRTK.shape[:2], end - start, -1)
            dk_NTK[:, :end].baddbmm_(d_scores_NME.mT, q_NMK)
        dq_BHTK = dq_NRTK.mul_(ctx.scale).view(q_BHTK.shape)
        return dq_BHTK, dk_NTK.view(k_BGTK.shape), dv_NTK.view(v_BGTK.shape), None


def _blocks(tokens: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + BLOCK, tokens)) for start in range(0, tokens, BLOCK))


def _grouped(x_BHTK: Tensor, groups: int) -> Tensor:
    """[N, R, T, K]: the query heads of one key/value head side by side."""
    B, H, T, K = x_BHTK.shape
    return x_BHTK.reshape(B * groups, H // groups, T, K)


def _weights(q_NRTK: Tensor, k_NTK: Tensor, start: int, end: int) -> Tensor:
    """Attention weights of the queries from `start` to `end`, [N, M, E]."""
    scores_NME = torch.bmm(q_NRTK[:, :, start:end].flatten(1, 2), k_NTK[:, :end].mT)
    L = end - start
    later_LL = torch.ones(L, L, dtype=torch.bool).triu_(1)
    scores_NME.view(*q_NRTK.shape[:2], L, end)[..., start:].masked_fill_(later_LL, float("-inf"))
    return torch.softmax(scores_NME, -1)
