"""Log-probability of every token, with gradient: what preferences and rewards are made of.

A loss of this family weighs each token with a number that is known only once all of them are (a ratio, a margin), so
the gradient cannot be made with the loss as in `logprobs.cross_entropy`. But the number is one a token: the gradient by
a token's features is that number times a vector that the forward pass can make. So logits exist for a few hundred
positions at a time, once, and are never kept. Where the output matrix itself is trained, its gradient mixes tokens,
and logits are made once more on the way back.

Shape suffixes: N positions, D width, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from matura.model import logprobs
from matura.model.heads import Unembedding
from matura.model.logprobs import add_product, product_into, softmax_in_place


class Likelihoods(NamedTuple):
    """Natural-log probability of each target [N], and the entropy in nats of each distribution [N] if asked for."""

    logprobs_N: Tensor
    entropy_N: Tensor | None = None


def likelihoods_reference(
    features_ND: Tensor,
    head: Unembedding,
    targets_N: Tensor,
    *,
    temperature: float = 1.0,
    entropy: bool = False,
) -> Likelihoods:
    """log softmax(logits / temperature)[target], all logits at once."""
    logprobs_NV = torch.log_softmax(head.logits(features_ND) / temperature, -1)
    chosen_N = logprobs_NV.gather(1, targets_N[:, None])[:, 0]
    return Likelihoods(chosen_N, -(logprobs_NV.exp() * logprobs_NV).sum(-1) if entropy else None)


def likelihoods(
    features_ND: Tensor,
    head: Unembedding,
    targets_N: Tensor,
    *,
    temperature: float = 1.0,
    entropy: bool = False,
) -> Likelihoods:
    """The same in chunks; differentiable in the features and the head, entropy too.

    The temperature divides the logits after their cap. Under autocast the products are made in its dtype, all else in
    float32. No positions give empty tensors that are still connected to the graph. Raises ValueError for a
    temperature that is not above zero.
    """
    if not temperature > 0:
        raise ValueError(f"a temperature is above zero, not {temperature}")
    with logprobs.autocast_by_hand(features_ND) as dtype:
        found = _ChunkedLikelihoods.apply(
            features_ND,
            head.weight_VD,
            head.bias_V,
            head.softcap,
            targets_N,
            temperature,
            entropy,
            torch.is_grad_enabled(),
            dtype,
        )
    return Likelihoods(*found)


class _ChunkedLikelihoods(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx,
        x_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        softcap: float | None,
        targets_N: Tensor,
        temperature: float,
        entropy: bool,
        recording: bool,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor | None]:
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        exact = torch.promote_types(dtype, torch.float32)
        head_VD = weight_VD.to(dtype)
        logprobs_N = x_ND.new_empty(len(x_ND), dtype=exact)
        entropy_N = torch.empty_like(logprobs_N) if entropy else None
        at_once = recording and need_x and not (need_weight or need_bias)
        d_x_ND = torch.empty_like(x_ND, dtype=exact) if at_once else None
        for start in range(0, len(x_ND), logprobs.CHUNK):
            part = slice(start, start + logprobs.CHUNK)
            logits_NV, slope_NV = _logits(x_ND[part], head_VD, bias_V, softcap, temperature, exact)
            chosen_N1 = logits_NV.gather(1, targets_N[part, None])
            p_NV, log_total_N1 = softmax_in_place(logits_NV)
            logprobs_N[part] = (chosen_N1 - log_total_N1)[:, 0]
            if entropy_N is not None:
                entropy_N[part] = -torch.xlogy(p_NV, p_NV).sum(-1)
            if d_x_ND is not None:
                d_logits_NV = _toward(targets_N[part, None], p_NV, slope_NV, temperature)
                product_into(d_x_ND[part], d_logits_NV.to(dtype), head_VD)
        if recording:
            again = not at_once or entropy  # only then is anything made once more
            ctx.save_for_backward(*(x_ND, weight_VD, bias_V, targets_N) if again else [None] * 4, d_x_ND)
            ctx.settings = softcap, temperature, exact, dtype, x_ND.dtype
        ctx.set_materialize_grads(False)
        return logprobs_N, entropy_N

    @staticmethod
    def backward(ctx, g_N: Tensor | None, h_N: Tensor | None = None) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        *_, d_x_ND = ctx.saved_tensors
        if g_N is None and h_N is None:
            return (None,) * 9
        if d_x_ND is not None and g_N is not None and h_N is None:
            return ((d_x_ND * g_N[:, None]).to(ctx.settings[-1]), *[None] * 8)
        return (*_again(ctx, g_N, h_N), *[None] * 6)


def _logits(
    x_ND: Tensor,
    head_VD: Tensor,
    bias_V: Tensor | None,
    softcap: float | None,
    temperature: float,
    exact: torch.dtype,
) -> tuple[Tensor, Tensor | None]:
    """Logits of a chunk, capped and divided by the temperature, and the derivative of the cap."""
    logits_NV, slope_NV = logprobs.capped_logits(x_ND, head_VD, bias_V, softcap, exact)
    return (logits_NV if temperature == 1 else logits_NV.div_(temperature)), slope_NV


def _toward(targets_N1: Tensor, p_NV: Tensor, slope_NV: Tensor | None, temperature: float) -> Tensor:
    """Gradient of log p(target) by the raw logits, in the memory of the softmax."""
    d_logits_NV = p_NV.neg_().scatter_add_(1, targets_N1, torch.ones_like(p_NV[:, :1]))
    if temperature != 1:
        d_logits_NV.div_(temperature)
    return d_logits_NV if slope_NV is None else d_logits_NV.mul_(slope_NV)


def _again(ctx, g_N: Tensor | None, h_N: Tensor | None) -> list[Tensor | None]:  # type: ignore[no-untyped-def]
    """Gradients of features, matrix and bias from logits that are made once more; `g_N` arrives for the
    log-probabilities, `h_N` for the entropies, whose gradient by a logit is -p (log p + H)."""
    x_ND, weight_VD, bias_V, targets_N, _ = ctx.saved_tensors
    softcap, temperature, exact, dtype, _ = ctx.settings
    given = (x_ND, weight_VD, bias_V)
    d_x_ND, d_weight_VD, d_bias_V = (
        torch.zeros_like(one, dtype=exact) if need and one is not None else None
        for one, need in zip(given, ctx.needs_input_grad, strict=False)
    )
    head_VD = weight_VD.to(dtype)
    for start in range(0, len(x_ND), logprobs.CHUNK):
        part = slice(start, start + logprobs.CHUNK)
        logits_NV, slope_NV = _logits(x_ND[part], head_VD, bias_V, softcap, temperature, exact)
        p_NV, _ = softmax_in_place(logits_NV)
        spread_NV = None
        if h_N is not None:
            spread_NV = torch.xlogy(p_NV, p_NV)
            spread_NV -= p_NV * spread_NV.sum(-1, keepdim=True)  # p log p + p H
            spread_NV *= -h_N[part, None] / temperature
            if slope_NV is not None:
                spread_NV *= slope_NV
        d_logits_NV = _toward(targets_N[part, None], p_NV, slope_NV, temperature)
        d_logits_NV *= 0.0 if g_N is None else g_N[part, None]
        if spread_NV is not None:
            d_logits_NV += spread_NV
        if d_bias_V is not None:
            d_bias_V += d_logits_NV.sum(0)
        d_logits_NV = d_logits_NV.to(dtype)
        if d_x_ND is not None:
            product_into(d_x_ND[part], d_logits_NV, head_VD)
        if d_weight_VD is not None:
            add_product(d_weight_VD, d_logits_NV.T, x_ND[part].to(dtype))
    found = (d_x_ND, d_weight_VD, d_bias_V)
    return [None if new is None else new.to(one.dtype) for new, one in zip(found, given, strict=True)]
