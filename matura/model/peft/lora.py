"""LoRA: a trained low-rank update beside every frozen linear layer (arXiv:2106.09685).

    y = x (W + s B A)^T        A [R, I], B [O, R], s = alpha / R  (rsLoRA: alpha / sqrt(R), arXiv:2312.03732)

A training step adds s B A to W first and then multiplies once, forward and backward. Adding costs 2 R O I FLOPs once
a step, where the usual y = x W^T + s (x A^T) B^T costs two thin products and an addition over every token. The two are
equal in exact arithmetic; `LoraLinear.forward_reference` is the second, and a test compares them.

Shape suffixes: N any leading dimensions (tokens), I inputs, O outputs, R rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matura.core.errors import ConfigError
from matura.core.settings import LoraConfig
from matura.model.layers import Linear

Model = TypeVar("Model", bound=nn.Module)


class _UpdatedLinear(torch.autograd.Function):
    """x (W + s B A)^T with gradients for x, A and B only; the sum is rebuilt in backward instead of kept."""

    @staticmethod
    def forward(ctx, x_NI: Tensor, weight_OI: Tensor, a_RI: Tensor, b_OR: Tensor, scale: float) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x_NI, weight_OI, a_RI, b_OR)
        ctx.scale = scale
        return F.linear(x_NI, torch.addmm(weight_OI, b_OR, a_RI, alpha=scale))

    @staticmethod
    def backward(ctx, grad_NO: Tensor) -> tuple[Tensor | None, None, Tensor, Tensor, None]:  # type: ignore[no-untyped-def]
        x_NI, weight_OI, a_RI, b_OR = ctx.saved_tensors
        flat_x_NI, flat_grad_NO = x_NI.flatten(0, -2), grad_NO.flatten(0, -2)
        # The rank stays the first dimension of every thin product: the other orders are up to 3 times slower.
        da_RI = ((b_OR * ctx.scale).T @ flat_grad_NO.T) @ flat_x_NI
        db_OR = ((flat_x_NI @ (a_RI * ctx.scale).T).T @ flat_grad_NO).T
        dx_NI = None
        if ctx.needs_input_grad[0]:
            dx_NI = grad_NO @ torch.addmm(weight_OI, b_OR, a_RI, alpha=ctx.scale)
        return dx_NI, None, da_RI, db_OR, None


class LoraLinear(nn.Module):
    """A frozen linear layer with a trained update. B starts at zero, so the model starts as its parent."""

    def __init__(self, base: nn.Linear, config: LoraConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = config.scale
        weight = base.weight
        a_RI = torch.empty(config.rank, base.in_features, dtype=torch.float32)
        bound = 1 / math.sqrt(base.in_features)  # kaiming_uniform(a=sqrt(5)), as the reference implementation
        a_RI.uniform_(-bound, bound, generator=generator)
        self.a = nn.Parameter(a_RI.to(weight.device, weight.dtype))
        self.b = nn.Parameter(
            torch.zeros(base.out_features, config.rank, dtype=weight.dtype, device=weight.device)
        )

    def forward(self, x_NI: Tensor) -> Tensor:
        y_NO = _UpdatedLinear.apply(x_NI, self.base.weight, self.a, self.b, self.scale)
        return y_NO if self.base.bias is None else y_NO + self.base.bias

    def forward_reference(self, x_NI: Tensor) -> Tensor:
        """x W^T + s (x A^T) B^T, as in the paper."""
        return self.base(x_NI) + self.scale * (x_NI @ self.a.T) @ self.b.T

    @torch.no_grad()
    def merged(self) -> Linear:
        """The plain linear layer with the update added into a copy of its weight."""
        bias = self.base.bias is not None
        linear = Linear(self.base.in_features, self.base.out_features, bias, device="meta")
        linear.weight = nn.Parameter(torch.addmm(self.base.weight, self.b, self.a, alpha=self.scale))
        if bias:
            linear.bias = self.base.bias
        return linear


def apply_lora(model: Model, config: LoraConfig, seed: int = 0) -> Model:
    """Freeze `model` and put an update beside every target layer; the same seed gives the same start.

    Raises ConfigError when a target names no linear layer of the model.
    """
    generator = torch.Generator().manual_seed(seed)
    linear_names = {name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    if unknown := [t for t in config.targets if t not in linear_names]:
        raise ConfigError(
            f"lora.targets: no linear layer is called {', '.join(map(repr, unknown))}; "
            f"this model has {', '.join(sorted(linear_names))}"
        )
    model.requires_grad_(False)
    for parent, name, child in list(_leaves(model)):
        if isinstance(child, nn.Linear) and name in config.targets:
            setattr(parent, name, LoraLinear(child, config, generator))
    return model


def merge_lora(model: Model) -> Model:
    """Replace every LoRA layer by the plain layer it equals."""
    for parent, name, child in list(_leaves(model)):
        if isinstance(child, LoraLinear):
            setattr(parent, name, child.merged())
    return model


def lora_state(model: nn.Module) -> dict[str, Tensor]:
    """The trained tensors only: `<layer>.a` and `<layer>.b`."""
    return {
        f"{name}.{part}": getattr(module, part).detach()
        for name, module in model.named_modules()
        if isinstance(module, LoraLinear)
        for part in ("a", "b")
    }


def _leaves(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Every module with its parent and its name there."""
    for path, module in model.named_modules():
        if path:
            parent, _, name = path.rpartition(".")
            yield model.get_submodule(parent), name, module
