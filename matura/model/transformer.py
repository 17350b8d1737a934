"""One transformer for decoder-only, encoder-only and encoder-decoder models.

    ids -> embed (+ positions) -> encoder blocks -> memory
    ids -> embed (+ positions) -> decoder blocks (self-attention, attention to memory, MLP) -> logits

Every part is a value in `model/config.py`; LoRA and quantization replace `nn.Linear` leaves and nothing here
knows. The cache is an argument.

Shape suffixes: B batch, T query tokens, S source tokens, D width, H query heads, G key/value heads, K head width,
V vocabulary.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matura.core.errors import FormatError
from matura.model import config as c
from matura.model.attention import Attend, Mask, Packed, attend
from matura.model.bias import build_bias
from matura.model.block import Attention, Block, View
from matura.model.cache import Cache, LayerCache, new_cache
from matura.model.heads import LanguageHead, Unembedding, build_head
from matura.model.layers import Embedding, Gated, build_norm, join
from matura.model.position import Turn, rotation, sinusoids


class Stack(nn.Module):
    """Blocks with their positions; the whole encoder or the whole decoder without its embedding."""

    def __init__(self, config: c.StackConfig, context: int) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(Block(config, i) for i in range(config.layers))
        self.norm = build_norm(config.width, config.norm) if config.norm_placement != "post" else None
        learned = isinstance(config.position, c.Learned)
        self.positions = Embedding(context, config.width) if learned else None
        self.segments = Embedding(config.segments, config.width) if config.segments else None
        self.embedding_norm = (
            build_norm(config.width, config.embedding_norm) if config.embedding_norm else None
        )
        self.bias = build_bias(config)

    def forward(
        self,
        x_BTD: Tensor,
        view: View,
        *,
        positions_BT: Tensor | None = None,
        segments_BT: Tensor | None = None,
        cache: Cache | None = None,
        where_N: Tensor | None = None,
    ) -> Tensor:
        past = cache.length if cache else 0
        if positions_BT is None:
            positions_BT = _positions(x_BTD, view.mask, past)
        x_BTD = self._embedded(x_BTD, positions_BT, segments_BT)
        turn, near = self._turns(x_BTD, positions_BT, view.mask, past)
        bias = None if self.bias is None else functools.cache(self.bias)  # every layer asks for the same
        local = self.config.local.layers if self.config.local else ()
        for i, block in enumerate(self.blocks):
            if cache is not None and view.memory_BSD is not None and cache.cross[i] is None:
                cache.cross[i] = self._memory_cache(view.memory_BSD)
            x_BTD = block(
                x_BTD,
                view,
                turn=near if i in local else turn,
                bias=bias,
                cache=cache.layers[i] if cache else None,
                cross_cache=cache.cross[i] if cache else None,
                where_N=where_N if i == len(self.blocks) - 1 else None,
            )
        return x_BTD if self.norm is None else self.norm(x_BTD)

    def _embedded(self, x_BTD: Tensor, positions_BT: Tensor, segments_BT: Tensor | None) -> Tensor:
        """Token embeddings with what is added to them."""
        position = self.config.position
        if self.segments is not None:
            first = torch.zeros_like(positions_BT) if segments_BT is None else segments_BT
            x_BTD = x_BTD + self.segments(first)
        elif segments_BT is not None:
            raise ValueError("this model has no segments")
        if self.positions is not None:
            x_BTD = x_BTD + self.positions(positions_BT)
        elif isinstance(position, c.Sinusoidal):
            x_BTD = x_BTD + sinusoids(position.order, positions_BT, x_BTD.shape[-1], x_BTD.dtype)
        if self.embedding_norm is not None:
            x_BTD = self.embedding_norm(x_BTD)
        return F.dropout(x_BTD, self.config.dropout) if self.config.dropout and self.training else x_BTD

    def _turns(
        self, x_BTD: Tensor, positions_BT: Tensor, mask: Mask, past: int
    ) -> tuple[Turn | None, Turn | None]:
        """The rotation of full layers, and that of local ones."""
        position, local = self.config.position, self.config.local
        if not isinstance(position, c.Rope):
            return None, None
        turn = self._turn(position, x_BTD, positions_BT, mask, past)
        if local is None or local.position is None:
            return turn, turn
        return turn, self._turn(local.position, x_BTD, positions_BT, mask, past)

    def _turn(self, rope: c.Rope, x_BTD: Tensor, positions_BT: Tensor, mask: Mask, past: int) -> Turn:
        width, dtype = self.config.attention.head_width, x_BTD.dtype
        if not isinstance(rope.scaling, c.DynamicScaling):
            return Turn(rotation(rope, positions_BT, width, dtype))
        keys_BS = positions_BT if isinstance(mask, Packed) else _all_positions(x_BTD, mask, past)
        lengths_BS = _lengths(keys_BS, mask)
        keys = rotation(rope, keys_BS, width, dtype, lengths_BS)
        T = x_BTD.shape[1]
        return Turn((keys[0][:, -T:], keys[1][:, -T:]), keys)

    def _memory_cache(self, memory_BSD: Tensor) -> LayerCache:
        B, S = memory_BSD.shape[:2]
        one = new_cache(self.config, B, S, dtype=memory_BSD.dtype, device=memory_BSD.device)
        return one.layers[0]


def _positions(x_BTD: Tensor, mask: Mask, past: int) -> Tensor:
    """Positions of the T new tokens: from 0 in every packed sequence, otherwise counted over real tokens."""
    if isinstance(mask, Packed):
        return mask.positions(x_BTD.device)
    return _all_positions(x_BTD, mask, past)[:, -x_BTD.shape[1] :]


def _all_positions(x_BTD: Tensor, mask: Tensor | None, past: int) -> Tensor:
    """Positions of all S = past + T tokens, [B or 1, S]."""
    if mask is None:
        return torch.arange(past + x_BTD.shape[1], device=x_BTD.device)[None]
    return (mask.long().cumsum(-1) - 1).clamp(min=0)


def _lengths(positions_BS: Tensor, mask: Mask) -> Tensor:
    """For every token the length of the sequence that it belongs to."""
    if not isinstance(mask, Packed):
        return positions_BS.amax(-1, keepdim=True) + 1
    per_sequence = [int(part.max()) + 1 for part in positions_BS[0].split(list(mask.lengths))]
    counts = torch.tensor(mask.lengths, device=positions_BS.device)
    return torch.tensor(per_sequence, device=positions_BS.device).repeat_interleave(counts)[None]


class Transformer(nn.Module):
    """`encoder` only: BERT. `decoder` only: GPT. Both: T5."""

    def __init__(self, config: c.ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = Embedding(config.vocabulary, config.width)
        self.encoder = Stack(config.encoder, config.context) if config.encoder else None
        self.decoder = Stack(config.decoder, config.context) if config.decoder else None
        self.head = build_head(config)

    def encode(
        self,
        ids_BS: Tensor,
        *,
        mask: Mask = None,
        segments_BS: Tensor | None = None,
        attend: Attend = attend,
    ) -> Tensor:
        """Source ids to memory [B, S, D]; every token sees both sides."""
        if self.encoder is None:
            raise ValueError("this model has no encoder")
        view = View(mask, attend=attend)
        return self.encoder(self._embed(ids_BS), view, segments_BT=segments_BS)

    def decode(
        self,
        ids_BT: Tensor,
        *,
        mask: Mask = None,
        positions_BT: Tensor | None = None,
        memory_BSD: Tensor | None = None,
        memory_mask_BS: Tensor | None = None,
        cache: Cache | None = None,
        attend: Attend = attend,
        where_N: Tensor | None = None,
    ) -> Tensor:
        """Token ids to hidden states [B, T, D] after the final norm; `logits` turns them into scores.

        With `where_N` to those of these positions alone, [B, N, D]: the last block is spared what no one asks for.

        `mask` covers all S = past + T keys when it is a tensor. With a cache, the T tokens follow what it holds.
        """
        if self.decoder is None:
            raise ValueError("this model has no decoder")
        view = View(mask, memory_BSD, memory_mask_BS, attend)
        return self.decoder(
            self._embed(ids_BT), view, positions_BT=positions_BT, cache=cache, where_N=where_N
        )

    def _embed(self, ids_BT: Tensor) -> Tensor:
        x_BTD = self.embed(ids_BT)
        scale = self.config.embedding_scale
        return x_BTD if scale == 1 else x_BTD * scale

    def logits(self, hidden_BTD: Tensor) -> Tensor:
        """Scores over the vocabulary [..., V]; ask only for the positions that are needed."""
        return self.unembedding.logits(self.features(hidden_BTD))

    def features(self, hidden_BTD: Tensor) -> Tensor:
        """What the output matrix is multiplied with: hidden states after the head's own layers."""
        return self._language_head.features(hidden_BTD)

    @property
    def unembedding(self) -> Unembedding:
        """The output matrix (the embedding itself when tied), its bias and cap."""
        return self._language_head.unembedding(self.embed.weight)

    @property
    def _language_head(self) -> LanguageHead:
        if not isinstance(self.head, LanguageHead):
            raise FormatError(
                "this model writes nothing: it has no scores over its vocabulary. A reward model or a classifier "
                "judges texts; the model that it was trained from writes"
            )
        return self.head

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
    quantization replaced are left as they are. A fused model must stay on its device.
    """
    for module in model.modules():
        if isinstance(module, Attention):
            module.qkv = join([module.q, module.k, module.v])
        elif isinstance(module, Gated):
            module.gate_up = join([module.gate, module.up])
    return model
