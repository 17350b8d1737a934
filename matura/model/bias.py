"""Positions as numbers added to the attention scores: they depend only on how far apart two tokens are.

Shape suffixes: H heads, T query tokens, S key tokens. The queries are always the last T of the S positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from matura.model import config as c

Bias = Callable[[int, int], Tensor]
"""(T, S) -> what is added to the scores, [1, H, T, S]."""


def distances(T: int, S: int, device: torch.device | None = None) -> Tensor:
    """Position of the key minus position of the query, [T, S]."""
    queries_T1 = torch.arange(S - T, S, device=device)[:, None]
    return torch.arange(S, device=device)[None] - queries_T1


class RelativeBias(nn.Module):
    """A trained number per head and bucket of distances (arXiv:1910.10683, section 2.1)."""

    def __init__(self, heads: int, config: c.RelativeBias, causal: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(config.buckets, heads))
        self.max_distance, self.causal = config.max_distance, causal

    def forward(self, T: int, S: int) -> Tensor:
        buckets_TS = self._buckets(distances(T, S, self.weight.device))
        return nn.functional.embedding(buckets_TS, self.weight).permute(2, 0, 1)[None]

    def _buckets(self, distance_TS: Tensor) -> Tensor:
        """Small distances have a bucket each, larger ones share them logarithmically; an encoder has one half of
        the buckets for each side, a decoder sees no later keys."""
        buckets, side_TS = len(self.weight), torch.zeros_like(distance_TS)
        if self.causal:
            distance_TS = (-distance_TS).clamp(min=0)
        else:
            buckets //= 2
            side_TS = (distance_TS > 0).long() * buckets
            distance_TS = distance_TS.abs()
        exact = buckets // 2
        ratio_TS = distance_TS.float() / exact
        log_TS = torch.log(ratio_TS) / math.log(self.max_distance / exact) * (buckets - exact)
        far_TS = (exact + log_TS.clamp(min=0).long()).clamp(max=buckets - 1)
        return side_TS + torch.where(distance_TS < exact, distance_TS, far_TS)


class AlibiBias(nn.Module):
    """-slope * distance; nothing is trained (arXiv:2108.12409)."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.slopes = alibi_slopes(heads)

    def forward(self, T: int, S: int) -> Tensor:
        slopes_H = torch.tensor(self.slopes, dtype=torch.float64)
        return -slopes_H[None, :, None, None] * distances(T, S).abs()


def alibi_slopes(heads: int) -> list[float]:
    """2^(-8/n), 2^(-16/n), ... for n heads, a power of two; between two powers every second one of the next."""
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    between = [2 ** (-4 * (2 * i + 1) / power) for i in range(heads - power)]
    return slopes + between


def build_bias(stack: c.StackConfig) -> RelativeBias | AlibiBias | None:
    """The module for a position that is added to scores, else None."""
    heads = stack.attention.heads
    if isinstance(stack.position, c.RelativeBias):
        return RelativeBias(heads, stack.position, stack.causal)
    return AlibiBias(heads) if isinstance(stack.position, c.Alibi) else None
