"""The leaves of a model that can be swapped, and how one is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import Tensor, nn

from matura.core.errors import ConfigError
from matura.core.peft_settings import ALL_LINEAR, names, unmatched
from matura.model.block import Attention
from matura.model.int4 import Int4Linear
from matura.model.layers import Gated
from matura.model.transformer import Stack

Model = TypeVar("Model", bound=nn.Module)


def linears(model: nn.Module) -> dict[str, nn.Module]:
    """Every linear layer by its whole name, in order."""
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear | Int4Linear)}


def in_blocks(model: nn.Module) -> list[str]:
    """The names of linear layers inside the blocks: `all-linear`."""
    stacks = [f"{name}.blocks." for name, module in model.named_modules() if isinstance(module, Stack)]
    return [name for name in linears(model) if name.startswith(tuple(stacks))]


def targets(model: nn.Module, patterns: Sequence[str], others: Sequence[str], setting: str) -> list[str]:
    """The layers that `patterns` name, in the model's order: linear ones and `others`.

    Raises ConfigError for a pattern that names none, with those there are.
    """
    known = [*linears(model), *others]
    inside = in_blocks(model)
    if strange := unmatched((p for p in patterns if p != ALL_LINEAR), known):
        there = sorted({name.rpartition(".")[2] for name in known})
        raise ConfigError(
            f"{setting}: no layer is called {', '.join(map(repr, strange))}; "
            f"this model has {', '.join(there)}, and {ALL_LINEAR} for all in its blocks"
        )
    return [
        name
        for name in known
        if (ALL_LINEAR in patterns and name in inside) or any(names(name, p) for p in patterns)
    ]


def swap(model: nn.Module, name: str, make: Callable[[nn.Module], nn.Module]) -> None:
    """Put `make(leaf)` in the place of the leaf of this name."""
    leaf = model.get_submodule(name)
    put(model, name, make(leaf).train(leaf.training))


def put(model: nn.Module, name: str, leaf: nn.Module) -> None:
    """Put a leaf in the place of the one of this name."""
    above, _, last = name.rpartition(".")
    parent = model.get_submodule(above)
    setattr(parent, last, leaf)
    unfuse(parent)


def unfuse(parent: nn.Module) -> None:
    """Forget the joint matrix of layers of which one is no longer plain: it would be used in their place."""
    if isinstance(parent, Attention):
        parent.qkv = None
    elif isinstance(parent, Gated):
        parent.gate_up = None


def trained(model: nn.Module) -> dict[str, Tensor]:
    """What is trained, by name: all that an adapter's file holds."""
    return {
        name.replace(".parametrizations.weight.0.", "."): p.detach()
        for name, p in model.named_parameters()
        if p.requires_grad
    }
