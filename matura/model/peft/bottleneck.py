"""Bottleneck adapters: small networks after the parts of every block (arXiv:1902.00751, section 2.1).

    h <- h + W_up f(W_down h)        h: what attention or the MLP writes, before it is added to the residual stream

Houlsby's placement has one after attention and one after the MLP, Pfeiffer's (arXiv:2005.00052, section 3.1) only the
latter. W_up starts at zero, so the model starts as its parent. It is a leaf like any other: the last projection of
the part with the network behind it.

Shape suffixes: N any leading dimensions, I inputs, D width, H width of the bottleneck.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matura.core.errors import ConfigError
from matura.core.peft_settings import BottleneckConfig
from matura.model.block import Block
from matura.model.int4 import Int4Linear
from matura.model.layers import Linear
from matura.model.peft import leaves
from matura.model.peft.leaves import Model

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu}


class Bottleneck(nn.Module):
    """W_up f(W_down h)."""

    def __init__(
        self, width: int, config: BottleneckConfig, like: Tensor, generator: torch.Generator | None
    ) -> None:
        super().__init__()
        inner = max(1, width // config.reduction)
        self.activation = ACTIVATIONS[config.activation]
        self.down = Linear(width, inner).to(like.device, like.dtype)
        self.up = Linear(inner, width).to(like.device, like.dtype)
        bound = 1 / math.sqrt(width)
        start_HD = torch.empty(inner, width).uniform_(-bound, bound, generator=generator)
        with torch.no_grad():
            self.down.weight.copy_(start_HD)
            for zero in (self.down.bias, self.up.weight, self.up.bias):
                zero.zero_()

    def forward(self, h_ND: Tensor) -> Tensor:
        return self.up(self.activation(self.down(h_ND)))


class BottleneckLinear(nn.Module):
    """A frozen projection with a trained bottleneck behind it."""

    def __init__(self, base: nn.Module, bottleneck: Bottleneck) -> None:
        super().__init__()
        self.base, self.bottleneck = base.requires_grad_(False), bottleneck

    def forward(self, x_NI: Tensor) -> Tensor:
        h_ND = self.base(x_NI)
        return h_ND + self.bottleneck(h_ND)


def apply_bottleneck(model: Model, config: BottleneckConfig, seed: int = 0) -> Model:
    """Freeze `model` and put bottlenecks behind the last projections of its parts; the same seed, the same start.

    Raises ConfigError when `reduction` is more than the width.
    """
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)

    def behind(base: nn.Module) -> nn.Module:
        assert isinstance(base, nn.Linear | Int4Linear)
        if config.reduction > base.out_features:
            raise ConfigError(
                f"bottleneck.reduction={config.reduction} leaves nothing of a width of {base.out_features}"
            )
        like = base.scale_OJ.float() if isinstance(base, Int4Linear) else base.weight
        return BottleneckLinear(base, Bottleneck(base.out_features, config, like, generator))

    for name in places(model, config):
        leaves.swap(model, name, behind)
    return model


def places(model: nn.Module, config: BottleneckConfig) -> list[str]:
    """The projections that get one, by name."""
    found = []
    for name, block in model.named_modules():
        if isinstance(block, Block):
            mixers = range(len(block.mixers)) if config.placement == "houlsby" else ()
            found += [*(f"{name}.mixers.{i}.o" for i in mixers), f"{name}.mlp.down"]
    return found
