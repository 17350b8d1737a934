"""How much of its updates a model has: none of them (its parent), a share, all; and how large they are.

Shape suffixes: I inputs, O outputs, R rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from matura.model.peft.lora import LoraLinear

UPDATED = (LoraLinear,)
"""Modules whose weight is W + scale * b @ a."""


def updated(model: nn.Module) -> list[LoraLinear]:
    """The modules with an update."""
    return [module for module in model.modules() if isinstance(module, UPDATED)]


@contextmanager
def off(model: nn.Module) -> Iterator[None]:
    """The model without its updates inside, which is its parent without a second copy, and frozen as a whole; as it
    was afterwards."""
    modules = updated(model)
    scales = [module.scale for module in modules]
    trained = [p for p in model.parameters() if p.requires_grad]
    try:
        for module in modules:
            module.scale = 0.0
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, scale in zip(modules, scales, strict=True):
            module.scale = scale
        for parameter in trained:
            parameter.requires_grad_(True)


def squared_size(module: LoraLinear) -> Tensor:
    """|scale * b @ a|^2 (Frobenius), by two products of the size of the rank: tr((b^T b)(a a^T))."""
    return module.scale**2 * ((module.b.T @ module.b) * (module.a @ module.a.T)).sum()


def parameters(model: nn.Module) -> set[int]:
    """The ids of the updates' own parameters."""
    return {id(p) for module in updated(model) for p in (module.a, module.b)}
