"""Positions as values: rotary tables and their application, and the fixed vectors of the original Transformer.

(Positions that are numbers added to the scores, T5's and ALiBi's, are in `bias.py`.)

Shape suffixes: B batch, T tokens, H heads, K head width, J = K / 2, D width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from matura.model import config as c

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines, each [B or 1, T, 1, J]."""


@dataclass(frozen=True)
class Turn:
    """How the heads of one layer are turned. With `keys`, the cache holds keys as they were before, and all of them
    are turned anew at every step: the angles depend on how long the sequence is by now."""

    queries: Rotation
    keys: Rotation | None = None


def frequencies(rope: c.Rope, head_width: int) -> tuple[Tensor, float]:
    """Radians per position for each pair of dimensions [J] in float64, and the factor of queries and keys.

    (Dynamic scaling, which depends on the length, is in `rotation`.)
    """
    width = rope.width or head_width
    frequency_J = rope.theta ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    match rope.scaling:
        case c.LinearScaling(factor=factor):
            return frequency_J / factor, 1.0
        case c.Llama3Scaling() as scaling:
            return _llama3(frequency_J, scaling), 1.0
        case c.YarnScaling() as scaling:
            return _yarn(frequency_J, scaling, rope.theta, width)
    return frequency_J, 1.0


def _llama3(frequency_J: Tensor, scaling: c.Llama3Scaling) -> Tensor:
    """Turns within the original context decide: few are slowed by the factor, many kept, a linear ramp between."""
    turns_J = scaling.original_context * frequency_J / (2 * math.pi)
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    kept_J = ((turns_J - low) / (high - low)).clamp(0, 1)
    return kept_J * frequency_J + (1 - kept_J) * frequency_J / scaling.factor


def _yarn(frequency_J: Tensor, scaling: c.YarnScaling, theta: float, width: int) -> tuple[Tensor, float]:
    """NTK-by-parts (arXiv:2309.00071, 3.2): a linear ramp over the dimensions between two numbers of turns."""

    def dimension(turns: float) -> float:
        return width * math.log(scaling.original_context / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dimension(scaling.beta_fast), dimension(scaling.beta_slow)
    if scaling.whole:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    at_J = torch.arange(len(frequency_J), dtype=torch.float64)
    slowed_J = ((at_J - low) / ((high - low) or 0.001)).clamp(0, 1)
    factor = scaling.attention_factor
    if factor is None:
        factor = 0.1 * math.log(scaling.factor) + 1 if scaling.factor > 1 else 1.0
    return slowed_J * frequency_J / scaling.factor + (1 - slowed_J) * frequency_J, factor


def rotation(
    rope: c.Rope, positions_BT: Tensor, head_width: int, dtype: torch.dtype, lengths_BT: Tensor | None = None
) -> Rotation:
    """Cosines and sines for the given positions.

    Angles are computed in float64, so that long positions keep their accuracy in any model dtype. `lengths_BT` is
    the length of the sequence each token belongs to; only dynamic scaling asks for it.
    """
    frequency_J, factor = frequencies(rope, head_width)
    frequency = frequency_J.to(positions_BT.device)
    if isinstance(rope.scaling, c.DynamicScaling) and lengths_BT is not None:
        frequency = _dynamic(rope.scaling, rope.theta, rope.width or head_width, lengths_BT)
    angle_BT1J = (positions_BT.double()[..., None] * frequency).unsqueeze(-2)
    return (angle_BT1J.cos() * factor).to(dtype), (angle_BT1J.sin() * factor).to(dtype)


def _dynamic(scaling: c.DynamicScaling, theta: float, width: int, lengths_BT: Tensor) -> Tensor:
    """Frequencies [B, T, J] with the base raised so that a longer sequence turns no further than the original."""
    ratio_BT = lengths_BT.double().clamp(min=scaling.original_context) / scaling.original_context
    base_BT = theta * (scaling.factor * ratio_BT - (scaling.factor - 1)) ** (width / (width - 2))
    exponent_J = torch.arange(0, width, 2, device=lengths_BT.device, dtype=torch.float64) / width
    return base_BT[..., None] ** -exponent_J


def rotate(x_BTHK: Tensor, rotation: Rotation) -> Tensor:
    """Rotate the pairs (x[j], x[j + K/2]) by their angles: the half-split order of Hugging Face checkpoints.

    With fewer angles than pairs only the leading dimensions turn.
    """
    turned = 2 * rotation[0].shape[-1]
    if turned < x_BTHK.shape[-1]:
        return torch.cat([rotate(x_BTHK[..., :turned], rotation), x_BTHK[..., turned:]], -1)
    if not torch.is_grad_enabled():
        return _turn(x_BTHK, *rotation, 1)
    return _Rotate.apply(x_BTHK, *rotation)


def rotate_reference(x_BTHK: Tensor, rotation: Rotation) -> Tensor:
    """The formula as written in the paper; `rotate` is the same with fewer passes over memory."""
    cos, sin = rotation
    a, b = x_BTHK.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def _turn(x_BTHK: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    a, b = x_BTHK.chunk(2, dim=-1)
    B, T, H, K = x_BTHK.shape
    # Heads lie apart in memory, as attention reads them.
    y_BTHK = x_BTHK.new_empty(B, H, T, K).transpose(1, 2)
    left, right = y_BTHK.chunk(2, dim=-1)
    torch.mul(a, cos, out=left).addcmul_(b, sin, value=-sign)
    torch.mul(b, cos, out=right).addcmul_(a, sin, value=sign)
    return y_BTHK


class _Rotate(torch.autograd.Function):
    """A rotation's gradient is the rotation back."""

    @staticmethod
    def forward(ctx, x_BTHK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(cos, sin)
        return _turn(x_BTHK, cos, sin, 1)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        cos, sin = ctx.saved_tensors
        return _turn(grad, cos, sin, -1), None, None


def sinusoids(order: str, positions_BT: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """sin(p / 10000^(2i/D)) and cos of the same, [B, T, D] (arXiv:1706.03762, section 3.5)."""
    exponent_J = torch.arange(0, width, 2, device=positions_BT.device, dtype=torch.float64) / width
    angle_BTJ = positions_BT.double()[..., None] * 10_000.0**-exponent_J
    if order == "halves":
        return torch.cat([angle_BTJ.sin(), angle_BTJ.cos()[..., : width // 2]], -1).to(dtype)
    # An odd width ends in a sine.
    return torch.stack([angle_BTJ.sin(), angle_BTJ.cos()], -1).flatten(-2)[..., :width].to(dtype)
