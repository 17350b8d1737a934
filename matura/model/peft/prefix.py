"""Prefix tuning: trained keys and values before every text, in all layers (arXiv:2101.00190, section 4).

The prefix is what a cache would hold after reading P tokens, so it goes in as one: the stack is swapped for one that
begins after it. Nobody else knows; positions and masks count from the text's own first token, and the context is P
tokens shorter. Keys are kept as they are compared: normed, and turned by their positions 0 to P - 1.

In training the layers' caches are values that append without changing, so a block that is run again in the backward
pass (`checkpoint_activations`) sees what it saw the first time.

Shape suffixes: L layers, B batch, G key/value heads, P prefix, T new tokens, S all positions, K head width, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from matura.core.errors import ConfigError
from matura.core.peft_settings import PrefixConfig
from matura.model import config as c
from matura.model.attention import Mask, Packed
from matura.model.block import View
from matura.model.cache import Cache, LayerCache, new_cache
from matura.model.transformer import Stack, Transformer

DEVIATION = 0.02
"""Of the noise that a prefix without a text starts from."""


@dataclass(frozen=True)
class Past:
    """Keys and values of what stands before every row, [L, B or 1, G, P, K]; `real_BP` is True at those that a row
    sees (None: all)."""

    k_LBGPK: Tensor
    v_LBGPK: Tensor
    real_BP: Tensor | None = None

    @property
    def length(self) -> int:
        """P."""
        return self.k_LBGPK.shape[3]


@dataclass(frozen=True)
class _Before:
    """The cache of one layer in training: what stands before, and never changes."""

    k_BGPK: Tensor
    v_BGPK: Tensor

    @property
    def length(self) -> int:
        return self.k_BGPK.shape[2]

    def append(self, k_BGTK: Tensor, v_BGTK: Tensor) -> tuple[Tensor, Tensor]:
        """Everything so far, in new memory."""
        B = len(k_BGTK)
        before = (x.expand(B, -1, -1, -1) for x in (self.k_BGPK, self.v_BGPK))
        k_BGSK, v_BGSK = (torch.cat([x, new], 2) for x, new in zip(before, (k_BGTK, v_BGTK), strict=True))
        return k_BGSK, v_BGSK


@dataclass
class _Sorted:
    """The cache of one layer while padded prompts are read for the first time: the padding, which they have on the
    left, is put before the prefix. Then what a row sees lies side by side, and distances between columns are
    distances in the text."""

    layer: LayerCache
    order_BS: Tensor

    @property
    def length(self) -> int:
        return self.layer.length

    def append(self, k_BGTK: Tensor, v_BGTK: Tensor) -> tuple[Tensor, Tensor]:
        """Everything so far, in order."""
        both = self.layer.append(k_BGTK, v_BGTK)
        for x_BGSK in both:
            x_BGSK.copy_(x_BGSK.gather(2, self.order_BS[:, None, :, None].expand_as(x_BGSK)))
        return both


def run_after(
    past: Past,
    stack: nn.Module,
    x_BTD: Tensor,
    view: View,
    *,
    positions_BT: Tensor | None = None,
    cache: Cache | None = None,
    **given: Any,
) -> Tensor:
    """The stack's output for texts that stand after `past`. A cache that is still empty begins with it.

    With a cache, padding is on the left, as the engine has it.
    """
    B = len(x_BTD)
    if positions_BT is not None:
        positions_BT = positions_BT + _count(past)
    elif isinstance(view.mask, Packed):
        positions_BT = view.mask.positions(x_BTD.device) + _count(past)
    seen = x_BTD.shape[1] + (past.length if cache is None or not cache.length else cache.length)
    mask = _mask(past, view.mask, B, seen)
    mask, cache = (mask, _unchanging(past)) if cache is None else _begun(past, mask, cache, B)
    view = View(mask, view.memory_BSD, view.memory_mask_BS, view.attend)
    out_BTD: Tensor = stack(x_BTD, view, positions_BT=positions_BT, cache=cache, **given)
    return out_BTD


def _unchanging(past: Past) -> Cache:
    """A cache for training."""
    layers: list[Any] = [_Before(k, v) for k, v in zip(past.k_LBGPK, past.v_LBGPK, strict=True)]
    nothing: list[Any] = [_Before(one.k_BGPK[:, :, :0], one.v_BGPK[:, :, :0]) for one in layers]
    return Cache(layers, nothing)  # (Nothing stands before an encoder's memory.)


def _begun(past: Past, mask: Mask, cache: Cache, batch: int) -> tuple[Mask, Cache]:
    """The mask with padding first, and the cache to use: one that is empty begins with the past."""
    fresh = not cache.length
    if fresh:
        for layer, k_BGPK, v_BGPK in zip(cache.layers, past.k_LBGPK, past.v_LBGPK, strict=True):
            layer.append(k_BGPK.expand(batch, -1, -1, -1), v_BGPK.expand(batch, -1, -1, -1))
    if not isinstance(mask, Tensor):
        return mask, cache
    order_BS = mask.int().argsort(dim=1, stable=True)
    if fresh:
        ordered: list[Any] = [_Sorted(layer, order_BS) for layer in cache.layers]
        cache = Cache(ordered, cache.cross)
    return mask.gather(1, order_BS), cache


def _count(past: Past) -> int | Tensor:
    """Tokens that each row really has before it."""
    return past.length if past.real_BP is None else past.real_BP.sum(1, keepdim=True)


def _mask(past: Past, mask: Mask, batch: int, seen: int) -> Mask:
    """The mask of the text alone as one over everything that is seen."""
    if isinstance(mask, Packed) or (mask is None and past.real_BP is None):
        return mask
    device = past.k_LBGPK.device
    before_BP = past.real_BP
    if before_BP is None:
        before_BP = torch.ones(batch, past.length, dtype=torch.bool, device=device)
    if mask is None:
        mask = torch.ones(batch, seen - past.length, dtype=torch.bool, device=device)
    return torch.cat([before_BP, mask], 1)


class PrefixedStack(nn.Module):
    """A frozen stack that begins after a trained prefix."""

    def __init__(self, base: Stack, keys_LGPK: Tensor, values_LGPK: Tensor) -> None:
        super().__init__()
        self.base, self.config = base.requires_grad_(False), base.config
        self.keys, self.values = nn.Parameter(keys_LGPK), nn.Parameter(values_LGPK)

    def forward(self, x_BTD: Tensor, view: View, **given: Any) -> Tensor:
        past = Past(self.keys[:, None], self.values[:, None])
        return run_after(past, self.base, x_BTD, view, **given)


def apply_prefix(
    model: Transformer, config: PrefixConfig, seed: int = 0, ids: Sequence[int] = ()
) -> Transformer:
    """Freeze `model` and put a trained prefix before its decoder, or its encoder where that is all there is.

    `ids` are those of `config.text`; without any, the same seed gives the same noise. Raises ConfigError for a model
    that has no place for a prefix.
    """
    stack = model.decoder or model.encoder
    assert isinstance(stack, Stack)
    _check(model.config, stack.config, config.tokens)
    model.requires_grad_(False)
    attention, like = stack.config.attention, model.embed.weight
    if len(ids):
        keys_LGPK, values_LGPK = _read(model, ids, config.tokens)
    else:
        generator = torch.Generator().manual_seed(seed)
        shape = (stack.config.layers, attention.kv_heads, config.tokens, attention.head_width)
        noise = (torch.randn(shape, generator=generator) * DEVIATION for _ in range(2))
        keys_LGPK, values_LGPK = (one.to(like.device, like.dtype) for one in noise)
    prefixed: Any = PrefixedStack(stack, keys_LGPK, values_LGPK)
    if model.decoder is not None:
        model.decoder = prefixed
    else:
        model.encoder = prefixed
    model.config = model.config.model_copy(update={"context": model.config.context - config.tokens})
    return model


@torch.no_grad()
def _read(model: Transformer, ids: Sequence[int], length: int) -> tuple[Tensor, Tensor]:
    """Keys and values [L, G, P, K] of `length` tokens: the ids, again and again where they are fewer."""
    device = model.embed.weight.device
    many = [ids[i % len(ids)] for i in range(length)]
    ids_1P = torch.tensor([many], device=device)
    stack = model.decoder or model.encoder
    assert stack is not None
    cache = new_cache(stack.config, 1, length, dtype=model.embed.weight.dtype, device=device)
    stack(model._embed(ids_1P), View(), cache=cache)
    found = [(one.k_BGSK[0, :, :length].clone(), one.v_BGSK[0, :, :length].clone()) for one in cache.layers]
    keys, values = zip(*found, strict=True)
    return torch.stack(keys), torch.stack(values)


def _check(model: c.ModelConfig, stack: c.StackConfig, tokens: int) -> None:
    rope = [p for p in (stack.position, stack.local and stack.local.position) if isinstance(p, c.Rope)]
    if any(isinstance(p.scaling, c.DynamicScaling) for p in rope):
        raise ConfigError(
            "method=prefix: this model's rotary positions change with the length of a text (dynamic scaling), so no "
            "key stays the same; use method=lora or bottleneck"
        )
    if tokens >= model.context:
        raise ConfigError(
            f"prefix.tokens={tokens} leaves nothing of a context of {model.context} tokens; use fewer"
        )
