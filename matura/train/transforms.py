"""Transformations of a model that change how it computes, never what: recomputed activations, compiled blocks.

They replace how a block is called, not the block: names of weights stay, and the model does not know. Apply them
before the model is spread over ranks (`parallel.place`).
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from matura.core.errors import ConfigError
from matura.core.settings import Recompute, recomputed_every
from matura.model.block import Block
from matura.model.transformer import Stack

Model = TypeVar("Model", bound=nn.Module)


def blocks(model: nn.Module) -> Iterator[Block]:
    """Every block of every stack, in order."""
    for module in model.modules():
        if isinstance(module, Stack):
            yield from (block for block in module.blocks if isinstance(block, Block))


def checkpoint_activations(model: Model, which: Recompute = "full") -> Model:
    """Keep only what enters a block in the forward pass, and run the block again in the backward pass.

    (arXiv:1604.06174.) `full` does so for all blocks, about a third more work; a number n for every n-th; `none` leaves
    the model as it is.
    """
    every = recomputed_every(which)
    for i, block in enumerate(blocks(model)):
        if every and i % every == 0:
            block.forward = functools.partial(_recomputed, block.forward)  # type: ignore[method-assign]
    return model


def _recomputed(forward: Any, x_BTD: Tensor, view: Any, *, bias: Any = None, **given: Any) -> Tensor:
    if not torch.is_grad_enabled():
        return forward(x_BTD, view, bias=bias, **given)
    # A bias that the first block computes and the others find cached would be missing when they are run again.
    own = getattr(bias, "__wrapped__", bias)
    return checkpoint(forward, x_BTD, view, bias=own, use_reentrant=False, **given)


def compile_blocks(model: Model, device: str = "cpu") -> Model:
    """Compile every block for training by torch.compile, once for every shape; before `checkpoint_activations`, which a
    compiler does not see into. Without gradients a block runs as it is: held-out texts have shapes of all kinds, and
    after so many of them torch compiles no other.

    Raises ConfigError when this machine has no compiler.
    """
    _need_compiler(torch.device(device).type)
    for block in blocks(model):
        if "forward" in vars(block):
            raise ValueError("compile_blocks comes before checkpoint_activations")
        compiled = torch.compile(block.forward, dynamic=False)
        block.forward = functools.partial(_trained, compiled, block.forward)  # type: ignore[method-assign]
    return model


def _trained(compiled: Any, plain: Any, *args: Any, **given: Any) -> Tensor:
    out_BTD: Tensor = (compiled if torch.is_grad_enabled() else plain)(*args, **given)
    return out_BTD


def _need_compiler(kind: str) -> None:
    if kind == "cpu":
        names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "cl"]
        if not any(map(shutil.which, names)):
            raise ConfigError(
                f"compile=on needs a C++ compiler, and {' or '.join(names)} is not on the PATH: install one "
                "(Debian: apt-get install g++), or leave compile out"
            )
    elif not torch.utils._triton.has_triton():
        raise ConfigError(
            "compile=on needs Triton for this GPU, which is not installed (or does not know the GPU): "
            "pip install triton, or leave compile out"
        )
