"""Models on the straight line from a parent to its child: theta_0 + alpha (theta_1 - theta_0).

A child that learned too much can be walked back: on the way the parent's abilities often return sooner than the
child's go (WiSE-FT, arXiv:2109.01903; language models: arXiv:2309.06256).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from matura.core.errors import FormatError
from matura.model.peft.updates import updated
from matura.model.transformer import Transformer

Line = Callable[[float], Transformer]
"""alpha in 0..1 -> the model there. It is the same object every time, with other weights."""


def between(parent: Transformer, child: Transformer) -> Line:
    """The line between two whole models of one shape. 0 is the parent, 1 the child, bit for bit.

    The model it gives takes the memory of a third. Raises FormatError when the two have different weights.
    """
    start, end = dict(parent.named_parameters()), dict(child.named_parameters())
    shapes = [{name: tuple(p.shape) for name, p in one.items()} for one in (start, end)]
    if shapes[0] != shapes[1]:
        names = sorted(n for n in {**start, **end} if shapes[0].get(n) != shapes[1].get(n))
        raise FormatError(
            f"parent and child have weights of different shapes ({names[0]}): there is no line between them. "
            "The parent must be the very model that the child was tuned from."
        )
    moving = Transformer(child.config).to(child.embed.weight.device, child.embed.weight.dtype).eval()
    slots = dict(moving.named_parameters())
    buffers = dict(child.named_buffers())

    @torch.no_grad()
    def at(alpha: float) -> Transformer:
        for name, slot in slots.items():
            slot.copy_(torch.lerp(start[name], end[name], alpha))
        for name, buffer in moving.named_buffers():
            buffer.copy_(buffers[name])
        return moving

    return at


def along_updates(child: Transformer) -> Line:
    """The same line for a model with updates (LoRA), by scaling them; its weights are not touched."""
    full = [(module, module.scale) for module in updated(child)]

    def at(alpha: float) -> Transformer:
        for module, scale in full:
            module.scale = scale * alpha
        return child

    return at
