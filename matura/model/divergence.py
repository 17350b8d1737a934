"""KL(parent || child) as a loss: how far a child's expectations have moved from its parent's.

It is exact over the whole vocabulary: at every position the parent's whole distribution counts, not a sample of it.
Logits of both exist for a few hundred positions at a time and are never kept.

Shape suffixes: N positions, D width (E: the parent's), V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from matura.model.heads import Unembedding

CHUNK = 256
"""Positions per block of logits, of which about five exist at a time: 5 x 256 x 49,152 float32 is 250 MB."""


def kl_divergence_reference(
    features_ND: Tensor, head: Unembedding, parent_NE: Tensor, parent_head: Unembedding, weights_N: Tensor
) -> Tensor:
    """Weighted sum over positions of sum over v of p(v) (log p(v) - log q(v)), all logits at once."""
    p_NV = parent_head.logits(parent_NE).log_softmax(-1)
    q_NV = head.logits(features_ND).log_softmax(-1)
    return ((p_NV.exp() * (p_NV - q_NV)).sum(-1) * weights_N).sum()


def kl_divergence(
    features_ND: Tensor, head: Unembedding, parent_NE: Tensor, parent_head: Unembedding, weights_N: Tensor
) -> Tensor:
    """Sum over positions of weight * KL(parent || child) in nats, in chunks; differentiable in the child's features
    and head, nothing flows into the parent. Equal models give exactly zero, and no gradient.

    No positions give a zero that is still connected to the graph.
    """
    total: Tensor = _ChunkedDivergence.apply(
        features_ND, head.weight_VD, head.bias_V, head.softcap, parent_NE, parent_head, weights_N
    )
    return total


class _ChunkedDivergence(torch.autograd.Function):
    """The gradient by the logits, q - p, is at hand once the divergence is computed, so both are made in one pass."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx,
        x_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        softcap: float | None,
        parent_NE: Tensor,
        parent_head: Unembedding,
        weights_N: Tensor,
    ) -> Tensor:
        d_x_ND, d_weight_VD, d_bias_V = grads = [
            torch.zeros_like(one) if need and one is not None else None
            for one, need in zip((x_ND, weight_VD, bias_V), ctx.needs_input_grad, strict=False)
        ]
        total = x_ND.new_zeros(())
        for start in range(0, len(x_ND), CHUNK):
            part = slice(start, start + CHUNK)
            with torch.enable_grad():  # for both: products without a gradient may be made in another way
                p_NV = parent_head.detach().logits(parent_NE[part].detach()).log_softmax(-1)
                x = x_ND[part].detach().requires_grad_(d_x_ND is not None)
                weight = weight_VD.detach().requires_grad_(d_weight_VD is not None)
                bias = None if bias_V is None else bias_V.detach().requires_grad_(d_bias_V is not None)
                logits_NV = Unembedding(weight, bias, softcap).logits(x)
            nats, d_logits_NV = _divergence_in_place(
                p_NV, logits_NV.detach().log_softmax(-1), weights_N[part, None]
            )
            total += nats
            wanted = [one for one in (x, weight, bias) if one is not None and one.requires_grad]
            slots = [d_x_ND[part] if d_x_ND is not None else None, d_weight_VD, d_bias_V]
            if wanted:
                found = torch.autograd.grad(logits_NV, wanted, d_logits_NV)
                for slot, new in zip((s for s in slots if s is not None), found, strict=True):
                    slot += new
        ctx.save_for_backward(*grads)
        return total

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        found = [None if one is None else one * grad for one in ctx.saved_tensors]
        return (*found, None, None, None, None)


def _divergence_in_place(p_NV: Tensor, q_NV: Tensor, weights_N1: Tensor) -> tuple[Tensor, Tensor]:
    """The weighted divergence of a chunk from both log-probabilities, and its gradient by the child's logits, which
    takes the memory of `q_NV`."""
    likely_NV = p_NV.exp()
    nats = (p_NV.sub_(q_NV).mul_(likely_NV) * weights_N1).sum()
    return nats, q_NV.exp_().sub_(likely_NV).mul_(weights_N1)
