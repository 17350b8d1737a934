"""Four bits for a weight: groups along the inputs share a scale and a minimum, two codes lie in a byte.

    w = minimum + scale * code        code in 0..15; scale and minimum in float16, one of each for G weights

That is 4 + 32 / G bits a weight: 5 with groups of 32, 4.5 with groups of 64. Byte j of a group holds weight 2j in its
low and 2j + 1 in its high half. A row whose length is no multiple of G ends in a group that its last weight fills up.

The matrix exists as float32 only while it is multiplied with, in the forward and again in the backward pass.

Shape suffixes: N any leading dimensions, O outputs, I inputs, J groups of a row, G weights of a group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 15
ROUNDS = 4
"""Of fitting the line to the codes and the codes to the line: the error of normal weights falls by 6 to 7%."""
PAIRS = torch.tensor([[byte & 15, byte >> 4] for byte in range(256)], dtype=torch.float32)
"""Byte -> its two codes."""


class Int4(NamedTuple):
    """A packed matrix. `bytes_OJH` has G / 2 bytes for a group."""

    bytes_OJH: Tensor
    scale_OJ: Tensor
    minimum_OJ: Tensor

    @property
    def nbytes(self) -> int:
        """Memory of all of it."""
        return sum(part.nbytes for part in self)


@torch.no_grad()
def quantize(weight_OI: Tensor, group: int) -> Int4:
    """A matrix, packed."""
    codes_OJG, scale_OJ, minimum_OJ = quantize_reference(weight_OI, group)
    low, high = codes_OJG[..., 0::2], codes_OJG[..., 1::2]
    return Int4(low | (high << 4), scale_OJ, minimum_OJ)


@torch.no_grad()
def quantize_reference(weight_OI: Tensor, group: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes [O, J, G] as whole bytes, scales and minima [O, J]: what is packed.

    The line from the least weight to the greatest, then in turn the least-squares line for the codes and the nearest
    codes for the line.
    """
    w_OJG = _grouped(weight_OI.float(), group)
    least, most = w_OJG.amin(-1), w_OJG.amax(-1)
    scale_OJ, minimum_OJ = ((most - least) / LEVELS).half(), least.half()
    codes_OJG = _codes(w_OJG, scale_OJ, minimum_OJ)
    for _ in range(ROUNDS):
        scale_OJ, minimum_OJ = _line(codes_OJG, w_OJG)
        codes_OJG = _codes(w_OJG, scale_OJ, minimum_OJ)
    return codes_OJG.byte(), scale_OJ, minimum_OJ


def _line(codes_OJG: Tensor, w_OJG: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and minimum of the line through (code, weight) with the least squared error."""
    mean_code_OJ, mean_w_OJ = codes_OJG.mean(-1), w_OJG.mean(-1)
    centred_OJG = codes_OJG - mean_code_OJ[..., None]
    spread_OJ = centred_OJG.square().sum(-1)
    slope_OJ = (centred_OJG * w_OJG).sum(-1) / spread_OJ.clamp(min=1e-12)
    scale_OJ = torch.where(spread_OJ > 0, slope_OJ, 0.0)
    return scale_OJ.half(), (mean_w_OJ - scale_OJ * mean_code_OJ).half()


def dequantize(bytes_OJH: Tensor, scale_OJ: Tensor, minimum_OJ: Tensor, inputs: int) -> Tensor:
    """The matrix [O, I] in float32."""
    pairs = PAIRS.to(bytes_OJH.device)
    w_OJG = F.embedding(bytes_OJH.int(), pairs).flatten(-2)
    w_OJG.mul_(scale_OJ.float()[..., None]).add_(minimum_OJ.float()[..., None])
    w_OI = w_OJG.flatten(1)
    return w_OI if w_OI.shape[1] == inputs else w_OI[:, :inputs].contiguous()


def _grouped(weight_OI: Tensor, group: int) -> Tensor:
    missing = -weight_OI.shape[1] % group
    if missing:
        weight_OI = torch.cat([weight_OI, weight_OI[:, -1:].expand(-1, missing)], 1)
    return weight_OI.unflatten(1, (-1, group))


def _codes(w_OJG: Tensor, scale_OJ: Tensor, minimum_OJ: Tensor) -> Tensor:
    step_OJ1 = torch.where(scale_OJ > 0, scale_OJ, 1.0).float()[..., None]
    return ((w_OJG - minimum_OJ.float()[..., None]) / step_OJ1).round_().clamp_(0, LEVELS)


Dense = Callable[..., Tensor]
"""Parts of a frozen weight -> the weight [O, I]."""


class FrozenProduct(torch.autograd.Function):
    """x W^T for a frozen W that is made from `parts` when it is needed, forward and backward."""

    @staticmethod
    def forward(ctx, x_NI: Tensor, dense: Dense, *parts: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.dense, ctx.parts = dense, parts  # constants: no gradient, and none of them is made here
        return F.linear(x_NI, dense(*parts).to(x_NI.dtype))

    @staticmethod
    def backward(ctx, grad_NO: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        dx_NI = grad_NO @ ctx.dense(*ctx.parts).to(grad_NO.dtype) if ctx.needs_input_grad[0] else None
        return (dx_NI, None, *[None] * len(ctx.parts))


class Int4Linear(nn.Module):
    """A frozen linear layer with packed weights."""

    bytes_OJH: Tensor
    scale_OJ: Tensor
    minimum_OJ: Tensor

    def __init__(self, base: nn.Linear, group: int) -> None:
        super().__init__()
        self.in_features, self.out_features, self.group = base.in_features, base.out_features, group
        for name, part in quantize(base.weight, group)._asdict().items():
            self.register_buffer(name, part)
        self.bias = None if base.bias is None else nn.Parameter(base.bias.detach(), requires_grad=False)

    @property
    def parts(self) -> Sequence[Tensor]:
        """What `dense_from` needs."""
        return self.bytes_OJH, self.scale_OJ, self.minimum_OJ

    def dense_from(self, *parts: Tensor) -> Tensor:
        """The weight [O, I] as float32, made anew."""
        return dequantize(parts[0], parts[1], parts[2], self.in_features)

    def dense(self) -> Tensor:
        """The weight [O, I] as float32, made anew."""
        return self.dense_from(*self.parts)

    def forward(self, x_NI: Tensor) -> Tensor:
        y_NO: Tensor = FrozenProduct.apply(x_NI, self.dense_from, *self.parts)
        return y_NO if self.bias is None else y_NO + self.bias

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, group={self.group}"
