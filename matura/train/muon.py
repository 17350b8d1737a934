"""Muon: momentum whose update is the nearest orthogonal matrix, for the matrices inside a network.

Every direction of a matrix gets an equally large update, not only the few that dominate its gradient (Jordan 2024,
https://kellerjordan.github.io/posts/muon/; arXiv:2502.16982). Embeddings, the output layer and vectors are no such
matrices: they get AdamW, in the same optimizer, so that one state dict and one step cover the model.

Shape suffixes: M matrices of one shape, I rows, O columns (I <= O).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from matura.train.ranks import ALONE, Ranks

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic step: the steepest rise at zero that keeps singular values of 1 within about 0.7 to 1.2."""
EPS = 1e-7
TOGETHER = 1 << 26
"""Numbers in the matrices that go through one iteration together on one rank: it holds about four copies of them."""


def orthogonalize_reference(matrix_IO: Tensor) -> Tensor:
    """U V^T of the singular value decomposition U S V^T: what the iteration comes near to."""
    u, _, vt = torch.linalg.svd(matrix_IO.double(), full_matrices=False)
    return (u @ vt).to(matrix_IO.dtype)


def orthogonalize(stacked_MIO: Tensor, steps: int = 5) -> Tensor:
    """Every matrix with its singular values brought near 1 (0.7 to 1.2), by Newton-Schulz iterations.

    In bfloat16 on an accelerator, where its products are several times faster; in float32 on a CPU, where they are
    slower. Matrices of one shape go through together.
    """
    a, b, c = COEFFICIENTS
    x = stacked_MIO.bfloat16() if stacked_MIO.device.type != "cpu" else stacked_MIO.clone()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT.contiguous()
    x = x.div_(torch.linalg.matrix_norm(x, keepdim=True).clamp_(min=EPS))
    for _ in range(steps):
        gram_MII = x @ x.mT
        slope_MII = torch.baddbmm(gram_MII, gram_MII, gram_MII, beta=b, alpha=c)
        x = torch.baddbmm(x, slope_MII, x, beta=a)
    return (x.mT if tall else x).to(stacked_MIO.dtype)


class Muon(torch.optim.Optimizer):
    """Muon for groups with `orthogonal=True`, AdamW (arXiv:1711.05101) for the others.

    An update of Muon has the root mean square of a typical AdamW update (0.2 * lr for every element, arXiv:2502.16982,
    section 2.2), so both kinds of groups share one learning rate and one weight decay. The ranks of a run share the
    work on the matrices.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        steps: int = 5,
        ranks: Ranks = ALONE,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "orthogonal": False,
        }
        super().__init__(groups, defaults)
        self._steps, self._ranks = steps, ranks

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            found = [p for p in group["params"] if p.grad is not None]
            if found:
                torch._foreach_mul_(found, 1 - group["lr"] * group["weight_decay"])
                (self._orthogonal if group["orthogonal"] else self._adam)(found, group)

    def _orthogonal(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        momentum = group["momentum"]
        buffers = [self._slot(p, "momentum") for p in parameters]
        gradients = _gradients(parameters)
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, gradients)
        wanted = torch._foreach_add(gradients, buffers, alpha=momentum)  # Nesterov's look ahead
        for shape, members in _together(parameters, self._ranks.world):
            updates = self._ranks.deal(self._turned, [wanted[i] for i in members])
            size = group["lr"] * 0.2 * max(shape) ** 0.5
            for i, update in zip(members, updates, strict=True):
                parameters[i].sub_(update, alpha=size)

    def _turned(self, stacked_MIO: Tensor) -> Tensor:
        return orthogonalize(stacked_MIO, self._steps)

    def _adam(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        first, second = ([self._slot(p, name) for p in parameters] for name in ("first", "second"))
        gradients = _gradients(parameters)
        beta1, beta2 = group["betas"]
        for parameter in parameters:
            self.state[parameter]["updates"] = self.state[parameter].get("updates", 0) + 1
        updates = self.state[parameters[0]]["updates"]
        torch._foreach_lerp_(first, gradients, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
        scale = torch._foreach_sqrt(second)
        torch._foreach_div_(scale, (1 - beta2**updates) ** 0.5)
        torch._foreach_add_(scale, group["eps"])
        torch._foreach_addcdiv_(parameters, first, scale, -group["lr"] / (1 - beta1**updates))

    def _slot(self, parameter: Tensor, name: str) -> Tensor:
        state = self.state[parameter]
        if name not in state:
            state[name] = torch.zeros_like(parameter)
        slot: Tensor = state[name]
        return slot


def _together(parameters: list[Tensor], ranks: int) -> Iterator[tuple[tuple[int, ...], list[int]]]:
    """Shapes, and the matrices of each by their number, as many at a time as TOGETHER allows each of the ranks."""
    shapes: dict[tuple[int, ...], list[int]] = {}
    for i, parameter in enumerate(parameters):
        shapes.setdefault(tuple(parameter.shape), []).append(i)
    for shape, members in shapes.items():
        count = ranks * max(1, TOGETHER // math.prod(shape))
        for start in range(0, len(members), count):
            yield shape, members[start : start + count]


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    return [p.grad for p in parameters if p.grad is not None]
