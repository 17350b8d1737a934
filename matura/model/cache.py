"""The key/value cache: an argument of the model, never hidden inside it.

Shape suffixes: B batch, S positions, G key/value heads, K head width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from matura.model.config import StackConfig


@dataclass
class LayerCache:
    """Keys and values of one attention in a buffer that grows by doubling, so appending is a copy of the new."""

    k_BGSK: Tensor
    v_BGSK: Tensor
    length: int = 0

    def append(self, k_BGTK: Tensor, v_BGTK: Tensor) -> tuple[Tensor, Tensor]:
        """Store T new positions; returns all keys and values so far (views of the buffer)."""
        end = self.length + k_BGTK.shape[2]
        if end > self.k_BGSK.shape[2]:
            self._grow(max(end, 2 * self.k_BGSK.shape[2]))
        self.k_BGSK[:, :, self.length : end] = k_BGTK
        self.v_BGSK[:, :, self.length : end] = v_BGTK
        self.length = end
        return self.k_BGSK[:, :, :end], self.v_BGSK[:, :, :end]

    def _grow(self, capacity: int) -> None:
        for name in ("k_BGSK", "v_BGSK"):
            old = getattr(self, name)
            new = old.new_empty(old.shape[0], old.shape[1], capacity, old.shape[3])
            new[:, :, : self.length] = old[:, :, : self.length]
            setattr(self, name, new)


@dataclass
class Cache:
    """One `LayerCache` per block for self-attention and, with an encoder, one for cross-attention."""

    layers: list[LayerCache]
    cross: list[LayerCache | None]

    @property
    def length(self) -> int:
        """Positions stored so far."""
        return self.layers[0].length

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows of the batch, in this order (finished answers leave, beams are reordered)."""
        for layer in [*self.layers, *self.cross]:
            if layer is not None:
                layer.k_BGSK = layer.k_BGSK[rows]
                layer.v_BGSK = layer.v_BGSK[rows]


def new_cache(
    config: StackConfig,
    batch: int,
    capacity: int = 64,
    *,
    dtype: torch.dtype,
    device: torch.device | None = None,
) -> Cache:
    """An empty cache for `batch` rows with room for `capacity` positions before it first grows."""
    shape = (batch, config.attention.kv_heads, max(capacity, 1), config.attention.head_width)

    def empty() -> LayerCache:
        return LayerCache(
            torch.empty(shape, dtype=dtype, device=device), torch.empty(shape, dtype=dtype, device=device)
        )

    return Cache([empty() for _ in range(config.layers)], [None] * config.layers)
