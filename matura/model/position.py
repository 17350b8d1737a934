"""Positions as values: rotary tables and their application.

Shape suffixes: B batch, T tokens, H heads, K head width, J = K / 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from matura.model.config import Position, Rope

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines, each [B or 1, T, 1, J]."""


def rotation(
    position: Position, positions_BT: Tensor, head_width: int, dtype: torch.dtype
) -> Rotation | None:
    """Cosines and sines for the given positions, or None when the position kind does not rotate.

    Angles are computed in float64, so that long positions keep their accuracy in any model dtype.
    """
    if not isinstance(position, Rope):
        return None
    exponent_J = torch.arange(0, head_width, 2, device=positions_BT.device, dtype=torch.float64) / head_width
    angle_BTJ = positions_BT.double()[..., None] * (position.theta**-exponent_J)
    angle_BT1J = angle_BTJ.unsqueeze(-2)
    return angle_BT1J.cos().to(dtype), angle_BT1J.sin().to(dtype)


def rotate(x_BTHK: Tensor, rotation: Rotation) -> Tensor:
    """Rotate the pairs (x[j], x[j + K/2]) by their angles: the half-split order of Hugging Face checkpoints."""
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
    y_BTHK = x_BTHK.new_empty(B, H, T, K).transpose(
        1, 2
    )  # heads lie apart in memory, as attention reads them
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
