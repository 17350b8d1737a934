"""Causal attention on a CPU, exact, a block of queries of one sequence at a time.

A block reads only the keys up to its own end, so almost half of the products that a whole matrix of scores needs
are never made, and the scores of a block stay in the cache. Sequences are read where they lie, tokens or heads first,
and all heads that share a key/value head form one product. Backward makes the weights of long sequences anew; those of
short ones, small beside the other activations, are kept.

Shape suffixes: B batch, T tokens, H query heads, G key/value heads, K head width; R = H / G, L queries of a block,
M = R * L, E keys up to the end of the block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

BLOCK = 64
"""Queries in a block (measured beside 128 and 256, at 256 tokens)."""
KEPT = 256
"""Tokens of a sequence up to which backward finds its weights kept: a fifth less time than making them anew."""


def causal_attention(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T) v where a query sees the keys up to its own position; [B, H, T, K]."""
    return _CausalAttention.apply(q_BHTK, k_BGTK, v_BGTK, scale)


class _CausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, scale: float) -> Tensor:  # type: ignore[no-untyped-def]
        groups, T = k_BGTK.shape[1:3]
        out_BHTK = _tokens_first(q_BHTK)
        blocks = _blocks(T, q_BHTK.shape[1] // groups, q_BHTK)
        kept: list[Tensor] = []
        for out_GRTK, q_GRTK, k_GTK, v_GTK in _rows(groups, (out_BHTK, q_BHTK), (k_BGTK, v_BGTK)):
            for start, end, later_ME in blocks:
                q_GMK = q_GRTK[:, :, start:end].flatten(1, 2)
                weights_GME = _weights(q_GMK, k_GTK[:, :end], later_ME, scale)
                out_GMK = torch.bmm(weights_GME, v_GTK[:, :end])
                out_GRTK[:, :, start:end] = out_GMK.unflatten(1, (-1, end - start))
                if T <= KEPT and any(ctx.needs_input_grad):
                    kept.append(weights_GME)
        ctx.save_for_backward(q_BHTK, k_BGTK, v_BGTK, *kept)
        ctx.scale = scale
        return out_BHTK

    @staticmethod
    def backward(ctx, grad_BHTK: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # type: ignore[no-untyped-def]
        q_BHTK, k_BGTK, v_BGTK, *kept = ctx.saved_tensors
        groups, T = k_BGTK.shape[1:3]
        blocks = _blocks(T, q_BHTK.shape[1] // groups, q_BHTK)
        dq_BHTK, dk_BGTK, dv_BGTK = (_tokens_first(x) for x in (q_BHTK, k_BGTK, v_BGTK))
        rows = _rows(groups, (dq_BHTK, q_BHTK, grad_BHTK), (dk_BGTK, dv_BGTK, k_BGTK, v_BGTK))
        for dq_GRTK, q_GRTK, grad_GRTK, dk_to_GTK, dv_to_GTK, k_GTK, v_GTK in rows:
            dk_GTK, dv_GTK = torch.empty(0), torch.empty(0)
            weights, kept = kept[: len(blocks)], kept[len(blocks) :]
            # The last block reads every key, so it comes first: what the others find they add to its sums.
            for n, (start, end, later_ME) in reversed(list(enumerate(blocks))):
                q_GMK, grad_GMK = (x[:, :, start:end].flatten(1, 2) for x in (q_GRTK, grad_GRTK))
                k_GEK, v_GEK = k_GTK[:, :end], v_GTK[:, :end]
                weights_GME = weights[n] if weights else _weights(q_GMK, k_GEK, later_ME, ctx.scale)
                d_weights_GME = torch.bmm(grad_GMK, v_GEK.mT)
                d_scores_GME = torch._softmax_backward_data(d_weights_GME, weights_GME, -1, weights_GME.dtype)
                dq_GMK = torch.bmm(d_scores_GME, k_GEK).mul_(ctx.scale)
                dq_GRTK[:, :, start:end] = dq_GMK.unflatten(1, (-1, end - start))
                dk_GEK, dv_GEK = torch.bmm(d_scores_GME.mT, q_GMK), torch.bmm(weights_GME.mT, grad_GMK)
                if end == T:
                    dk_GTK, dv_GTK = dk_GEK, dv_GEK
                else:
                    dk_GTK[:, :end] += dk_GEK
                    dv_GTK[:, :end] += dv_GEK
            torch.mul(dk_GTK, ctx.scale, out=dk_to_GTK)
            dv_to_GTK.copy_(dv_GTK)
        return dq_BHTK, dk_BGTK, dv_BGTK, None


def _tokens_first(like_BHTK: Tensor) -> Tensor:
    """An empty tensor of this shape whose heads lie side by side: the projections read and write them so."""
    B, H, T, K = like_BHTK.shape
    return like_BHTK.new_empty(B, T, H, K).transpose(1, 2)


def _rows(groups: int, queries: Sequence[Tensor], keys: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """Views of every sequence: what has query heads as [G, R, T, K], what has key/value heads as [G, T, K]."""
    for row in zip(*queries, *keys, strict=True):
        yield *(x.unflatten(0, (groups, -1)) for x in row[: len(queries)]), *row[len(queries) :]


def _blocks(tokens: int, shared: int, like: Tensor) -> list[tuple[int, int, Tensor]]:
    """(start, end, what is added to the scores of its queries by their M heads and places: -inf at later keys)."""
    blocks = []
    for start in range(0, tokens, BLOCK):
        end = min(start + BLOCK, tokens)
        later_LE = like.new_full((end - start, end), float("-inf")).triu_(start + 1)
        blocks.append((start, end, later_LE.repeat(shared, 1)))
    return blocks


def _weights(q_GMK: Tensor, k_GEK: Tensor, later_ME: Tensor, scale: float) -> Tensor:
    """Attention weights of the queries of a block, [G, M, E]."""
    return torch.softmax(torch.baddbmm(later_ME, q_GMK, k_GEK.mT, alpha=scale), -1)
