"""One transformer for decoder-only, encoder-only and encoder-decoder models.

    ids -> embed (+ positions) -> encoder blocks -> memory
    ids -> embed (+ positions) -> decoder blocks (self-attention, attention to memory, MLP) -> logits

Every part is a value in `model/config.py`; LoRA and quantization replace `nn.Linear` leaves and nothing here
knows. The cache is an argument.

Shape suffixes: B batch, T query tokens, S source tokens, D width, H query heads, G key/value heads, K head width,
V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matura.model import config as c
from matura.model.attention import Mask, Packed, attend
from matura.model.cache import Cache, LayerCache, new_cache
from matura.model.layers import Linear, SwiGLU, build_mlp, build_norm, join, linear
from matura.model.position import Rotation, rotate, rotation


class Attention(nn.Module):
    """Self-attention, or cross-attention when `memory_BSD` is given."""

    def __init__(self, width: int, config: c.Attention, causal: bool) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.causal = config.heads, config.kv_heads, causal
        inner, inner_kv = config.heads * config.head_width, config.kv_heads * config.head_width
        self.q = Linear(width, inner, bias=config.bias)
        self.k = Linear(width, inner_kv, bias=config.bias)
        self.v = Linear(width, inner_kv, bias=config.bias)
        self.o = Linear(inner, width, bias=config.bias)
        self.qkv_weight: Tensor | None = None
        """Rows of q, k and v in one matrix (see `fuse_projections`); not a parameter."""

    def forward(
        self,
        x_BTD: Tensor,
        *,
        turn: Rotation | None = None,
        mask: Mask = None,
        memory_BSD: Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        if memory_BSD is None and self.qkv_weight is not None and not torch.is_grad_enabled():
            q_BTHK, k_BTGK, v_BTGK = self._fused(x_BTD, turn)
            k_BGSK, v_BGSK = k_BTGK.transpose(1, 2), v_BTGK.transpose(1, 2)
        else:
            q_BTHK = self.q(x_BTD).unflatten(-1, (self.heads, -1))
            if turn is not None:
                q_BTHK = rotate(q_BTHK, turn)
            if memory_BSD is not None and cache is not None and cache.length:
                return self._output(q_BTHK, cache.k_BGSK, cache.v_BGSK, mask)  # memory never changes
            k_BGSK, v_BGSK = self._keys_values(x_BTD if memory_BSD is None else memory_BSD, turn)
        if cache is not None:
            k_BGSK, v_BGSK = cache.append(k_BGSK, v_BGSK)
        return self._output(q_BTHK, k_BGSK, v_BGSK, mask)

    def _output(self, q_BTHK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask) -> Tensor:
        out_BHTK = attend(q_BTHK.transpose(1, 2), k_BGSK, v_BGSK, causal=self.causal, mask=mask)
        return self.o(out_BHTK.transpose(1, 2).flatten(-2))

    def _fused(self, x_BTD: Tensor, turn: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values by one product; queries and keys turned together."""
        assert self.qkv_weight is not None
        all_BTXK = linear(x_BTD, self.qkv_weight).unflatten(-1, (self.heads + 2 * self.kv_heads, -1))
        turned, v_BTGK = all_BTXK.split([self.heads + self.kv_heads, self.kv_heads], dim=2)
        if turn is not None:
            turned = rotate(turned, turn)
        q_BTHK, k_BTGK = turned.split([self.heads, self.kv_heads], dim=2)
        return q_BTHK, k_BTGK, v_BTGK

    def _keys_values(self, source_BSD: Tensor, turn: Rotation | None) -> tuple[Tensor, Tensor]:
        k_BSGK = self.k(source_BSD).unflatten(-1, (self.kv_heads, -1))
        v_BSGK = self.v(source_BSD).unflatten(-1, (self.kv_heads, -1))
        if turn is not None:
            k_BSGK = rotate(k_BSGK, turn)
        return k_BSGK.transpose(1, 2), v_BSGK.transpose(1, 2)


class Block(nn.Module):
    """Self-attention, then cross-attention in a decoder with memory, then the MLP; each with norm and residual."""

    def __init__(self, config: c.StackConfig) -> None:
        super().__init__()
        self.post = config.norm_placement == "post"
        self.dropout = config.dropout
        self.mixers = nn.ModuleList([Attention(config.width, config.attention, config.causal)])
        if config.cross:
            self.mixers.append(Attention(config.width, config.attention, causal=False))
        self.mlp = build_mlp(config.width, config.mlp)
        self.norms = nn.ModuleList(build_norm(config.width, config.norm) for _ in range(len(self.mixers) + 1))

    def forward(
        self,
        x_BTD: Tensor,
        *,
        turn: Rotation | None,
        mask: Mask,
        memory_BSD: Tensor | None,
        memory_mask_BS: Tensor | None,
        cache: LayerCache | None,
        cross_cache: LayerCache | None,
    ) -> Tensor:
        x_BTD = self._step(x_BTD, 0, lambda h: self.mixers[0](h, turn=turn, mask=mask, cache=cache))
        if len(self.mixers) == 2:
            x_BTD = self._step(
                x_BTD,
                1,
                lambda h: self.mixers[1](h, memory_BSD=memory_BSD, mask=memory_mask_BS, cache=cross_cache),
            )
        return self._step(x_BTD, -1, self.mlp)

    def _step(self, x_BTD: Tensor, which: int, part) -> Tensor:  # type: ignore[no-untyped-def]
        norm = self.norms[which]
        out_BTD = part(x_BTD if self.post else norm(x_BTD))
        if self.dropout and self.training:
            out_BTD = F.dropout(out_BTD, self.dropout)
        return norm(x_BTD + out_BTD) if self.post else x_BTD + out_BTD


class Stack(nn.Module):
    """Blocks with their positions; the whole encoder or the whole decoder without its embedding."""

    def __init__(self, config: c.StackConfig, context: int) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = build_norm(config.width, config.norm) if config.norm_placement == "pre" else nn.Identity()
        learned = isinstance(config.position, c.Learned)
        self.positions = nn.Embedding(context, config.width) if learned else None

    def forward(
        self,
        x_BTD: Tensor,
        *,
        positions_BT: Tensor | None = None,
        mask: Mask = None,
        memory_BSD: Tensor | None = None,
        memory_mask_BS: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        past = cache.length if cache else 0
        if positions_BT is None:
            positions_BT = _positions(x_BTD, mask, past)
        if self.positions is not None:
            x_BTD = x_BTD + self.positions(positions_BT)
        turn = rotation(self.config.position, positions_BT, self.config.attention.head_width, x_BTD.dtype)
        for i, block in enumerate(self.blocks):
            if cache is not None and memory_BSD is not None and cache.cross[i] is None:
                one = new_cache(
                    self.config, len(x_BTD), memory_BSD.shape[1], dtype=x_BTD.dtype, device=x_BTD.device
                )
                cache.cross[i] = one.layers[0]
            x_BTD = block(
                x_BTD,
                turn=turn,
                mask=mask,
                memory_BSD=memory_BSD,
                memory_mask_BS=memory_mask_BS,
                cache=cache.layers[i] if cache else None,
                cross_cache=cache.cross[i] if cache else None,
            )
        return self.norm(x_BTD)


def _positions(x_BTD: Tensor, mask: Mask, past: int) -> Tensor:
    """Positions of the T new tokens: from 0 in every packed sequence, otherwise counted over real tokens."""
    T, device = x_BTD.shape[1], x_BTD.device
    if isinstance(mask, Packed):
        return mask.positions(device)
    if mask is None:
        return torch.arange(past, past + T, device=device)[None]
    return (mask.long().cumsum(-1) - 1).clamp(min=0)[:, -T:]


class Transformer(nn.Module):
    """`encoder` only: BERT. `decoder` only: GPT. Both: T5."""

    def __init__(self, config: c.ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocabulary, config.width)
        self.encoder = Stack(config.encoder, config.context) if config.encoder else None
        self.decoder = Stack(config.decoder, config.context) if config.decoder else None
        self.head = None if config.tied else Linear(config.width, config.vocabulary, bias=False)

    def encode(self, ids_BS: Tensor, *, mask: Mask = None) -> Tensor:
        """Source ids to memory [B, S, D]; every token sees both sides."""
        if self.encoder is None:
            raise ValueError("this model has no encoder")
        return self.encoder(self.embed(ids_BS), mask=mask)

    def decode(
        self,
        ids_BT: Tensor,
        *,
        mask: Mask = None,
        positions_BT: Tensor | None = None,
        memory_BSD: Tensor | None = None,
        memory_mask_BS: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Token ids to hidden states [B, T, D] after the final norm; `logits` turns them into scores.

        `mask` covers all S = past + T keys when it is a tensor. With a cache, the T tokens follow what it holds.
        """
        if self.decoder is None:
            raise ValueError("this model has no decoder")
        return self.decoder(
            self.embed(ids_BT),
            positions_BT=positions_BT,
            mask=mask,
            memory_BSD=memory_BSD,
            memory_mask_BS=memory_mask_BS,
            cache=cache,
        )

    def logits(self, x_BTD: Tensor) -> Tensor:
        """Scores over the vocabulary [..., V]; ask only for the positions that are needed."""
        return linear(x_BTD, self.head_weight_VD)

    @property
    def head_weight_VD(self) -> Tensor:
        """The output matrix: the embedding itself when tied."""
        return self.embed.weight if self.head is None else self.head.weight

    def new_cache(self, batch: int, capacity: int = 64) -> Cache:
        """An empty cache for the decoder in the model's dtype and on its device."""
        if self.decoder is None:
            raise ValueError("this model has no decoder")
        weight = self.embed.weight
        return new_cache(self.decoder.config, batch, capacity, dtype=weight.dtype, device=weight.device)

    @torch.no_grad()
    def initialize(self, seed: int) -> Transformer:
        """Fill every weight: normal(0, 0.02), the projections into the residual stream scaled by 1/sqrt(2 layers).

        (GPT-2, section 2.3.) Norms start at one, biases at zero. The same seed gives the same weights.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
                continue
            stack = self.encoder if name.startswith("encoder") else self.decoder
            residual = name.endswith(("o.weight", "down.weight")) and stack is not None
            std = 0.02 / (2 * stack.config.layers) ** 0.5 if residual and stack is not None else 0.02
            parameter.normal_(0.0, std, generator=generator)
        return self


@torch.no_grad()
def fuse_projections(model: Transformer) -> Transformer:
    """Lay the weights that read the same input side by side (q, k, v; gate, up), for inference.

    The parameters become views of the joint matrices, so nothing is stored twice and names stay. Layers that LoRA or
    quantization replaced, or with biases, are left as they are. A fused model must stay on its device.
    """
    for module in model.modules():
        if isinstance(module, Attention):
            module.qkv_weight = join([module.q, module.k, module.v])
        elif isinstance(module, SwiGLU):
            module.gate_up_weight = join([module.gate, module.up])
    return model
