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
def scaled(model: nn.Module, share: float) -> Iterator[None]:
    """The model with `share` of every update inside, as it was afterwards. 0 is the parent, without a second copy."""
    modules = updated(model)
    scales = [module.scale for module in modules]
    for module, scale in zip(modules, scales, strict=True):
        module.scale = scale * share
    try:
        yield
    finally:
        for module, scale in zip(modules, scales, strict=True):
            module.scale = scale


def squared_size(module: LoraLinear) -> Tensor:
    """|scale * b @ a|^2 (Frobenius), by two products of the size of the rank: tr((b^T b)(a a^T))."""
    return module.scale**2 * ((module.b.T @ module.b) * (module.a @ module.a.T)).sum()


def parameters(model: nn.Module) -> set[int]:
    """The ids of the updates' own parameters."""
    return {id(p) for module in updated(model) for p in (module.a, module.b)}
