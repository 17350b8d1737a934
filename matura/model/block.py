"""A block of the transformer: attention to itself, attention to an encoder's memory, MLP.

Shape suffixes: B batch, T query tokens, S source tokens, D width, H query heads, G key/value heads, K head width,
X = H + 2G, Y outputs of a projection.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matura.model import config as c
from matura.model.attention import Attend, Mask, Rule, attend
from matura.model.bias import Bias
from matura.model.cache import LayerCache
from matura.model.layers import Joint, Linear, build_mlp, build_norm, joined, linear, outputs
from matura.model.position import Turn, rotate


@dataclass(frozen=True)
class View:
    """What one forward pass looks at, the same in all layers; `attend` may be one that also looks on."""

    mask: Mask = None
    memory_BSD: Tensor | None = None
    memory_mask_BS: Tensor | None = None
    attend: Attend = attend


class Attention(nn.Module):
    """Self-attention, or cross-attention when `memory_BSD` is given."""

    def __init__(self, width: int, config: c.Attention, *, causal: bool, window: int | None = None) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.heads, config.kv_heads
        self.rule = Rule(causal, window, config.scale, config.softcap)
        self.dropout = config.dropout
        inner, inner_kv = config.heads * config.head_width, config.kv_heads * config.head_width
        self.q = Linear(width, inner, bias=config.bias != "none")
        self.k = Linear(width, inner_kv, bias=config.bias != "none")
        self.v = Linear(width, inner_kv, bias=config.bias != "none")
        self.o = Linear(inner, width, bias=config.bias == "all")
        self.q_norm = build_norm(config.head_width, config.qk_norm) if config.qk_norm else None
        self.k_norm = build_norm(config.head_width, config.qk_norm) if config.qk_norm else None
        self.qkv: Joint | None = None
        """Rows of q, k and v in one matrix (see `fuse_projections`); not a parameter."""

    def forward(
        self,
        x_BTD: Tensor,
        *,
        turn: Turn | None = None,
        mask: Mask = None,
        bias: Bias | None = None,
        memory_BSD: Tensor | None = None,
        cache: LayerCache | None = None,
        attend: Attend = attend,
    ) -> Tensor:
        if memory_BSD is not None and cache is not None and cache.length:
            q_BTHK = self._queries(self.q(x_BTD))
            k_BGSK, v_BGSK = cache.k_BGSK, cache.v_BGSK  # memory never changes
        else:
            q_BTHK, k_BSGK, v_BSGK = self._project(x_BTD, memory_BSD, turn)
            k_BGSK, v_BGSK = k_BSGK.transpose(1, 2), v_BSGK.transpose(1, 2)
            if cache is not None:
                k_BGSK, v_BGSK = cache.append(k_BGSK, v_BGSK)
            if turn is not None and turn.keys is not None:
                k_BGSK = rotate(k_BGSK.transpose(1, 2), turn.keys).transpose(1, 2)
        rule = self.rule
        if self.dropout and self.training:
            rule = replace(rule, dropout=self.dropout)
        # Under autocast, rotation and norms widen queries and keys; a kernel wants one dtype.
        q_BTHK, k_BGSK = q_BTHK.to(v_BGSK.dtype), k_BGSK.to(v_BGSK.dtype)
        out_BHTK = attend(q_BTHK.transpose(1, 2), k_BGSK, v_BGSK, rule, mask=mask, bias=bias)
        return self.o(out_BHTK.transpose(1, 2).flatten(-2))

    def _project(
        self, x_BTD: Tensor, memory_BSD: Tensor | None, turn: Turn | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, normed and turned; by one product where the weights lie together."""
        if memory_BSD is None and (joint := self._joint()) is not None:
            return self._project_fused(x_BTD, joint, turn)
        if memory_BSD is None:
            q_BTY, k_BSY, v_BSY = outputs((self.q, self.k, self.v), x_BTD)
        else:
            q_BTY, (k_BSY, v_BSY) = self.q(x_BTD), outputs((self.k, self.v), memory_BSD)
        q_BTHK = self._queries(q_BTY)
        k_BSGK, v_BSGK = (x_BSY.unflatten(-1, (self.kv_heads, -1)) for x_BSY in (k_BSY, v_BSY))
        if self.k_norm is not None:
            k_BSGK = self.k_norm(k_BSGK)
        if turn is not None:
            q_BTHK = rotate(q_BTHK, turn.queries)
            k_BSGK = k_BSGK if turn.keys is not None else rotate(k_BSGK, turn.queries)
        return q_BTHK, k_BSGK, v_BSGK

    def _joint(self) -> Joint | None:
        """Rows of q, k and v in one matrix; None where a layer is no plain one.

        In training the weights are joined anew in every pass: a copy of the weights costs nothing beside reading the
        inputs once instead of three times, forward and backward.
        """
        if torch.is_grad_enabled():
            return joined([self.q, self.k, self.v])
        return self.qkv

    def _queries(self, q_BTY: Tensor) -> Tensor:
        q_BTHK = q_BTY.unflatten(-1, (self.heads, -1))
        return q_BTHK if self.q_norm is None else self.q_norm(q_BTHK)

    def _project_fused(self, x_BTD: Tensor, qkv: Joint, turn: Turn | None) -> tuple[Tensor, Tensor, Tensor]:
        heads, kv_heads = self.heads, self.kv_heads
        all_BTXK = linear(x_BTD, *qkv).unflatten(-1, (heads + 2 * kv_heads, -1))
        qk_BTXK, v_BTGK = all_BTXK.split([heads + kv_heads, kv_heads], dim=2)
        if turn is not None and turn.keys is None and self.q_norm is None:
            qk_BTXK, turn = rotate(qk_BTXK, turn.queries), None  # queries and keys together
        q_BTHK, k_BTGK = qk_BTXK.split([heads, kv_heads], dim=2)
        if self.q_norm is not None and self.k_norm is not None:
            q_BTHK, k_BTGK = self.q_norm(q_BTHK), self.k_norm(k_BTGK)
        if turn is not None:
            q_BTHK = rotate(q_BTHK, turn.queries)
            k_BTGK = k_BTGK if turn.keys is not None else rotate(k_BTGK, turn.queries)
        return q_BTHK, k_BTGK, v_BTGK


class Block(nn.Module):
    """Self-attention, then cross-attention in a decoder with memory, then the MLP; each with norm and residual."""

    def __init__(self, config: c.StackConfig, layer: int) -> None:
        super().__init__()
        self.placement, self.dropout = config.norm_placement, config.dropout
        window = config.local.window if config.local and layer in config.local.layers else None
        self.mixers = nn.ModuleList(
            [Attention(config.width, config.attention, causal=config.causal, window=window)]
        )
        if config.cross:
            self.mixers.append(Attention(config.width, config.attention, causal=False))
        self.mlp = build_mlp(config.width, config.mlp)
        parts = len(self.mixers) + 1
        self.norms = nn.ModuleList(build_norm(config.width, config.norm) for _ in range(parts))
        self.out_norms = nn.ModuleList(
            build_norm(config.width, config.norm) for _ in range(parts if self.placement == "sandwich" else 0)
        )

    def forward(
        self,
        x_BTD: Tensor,
        view: View,
        *,
        turn: Turn | None,
        bias: Bias | None,
        cache: LayerCache | None,
        cross_cache: LayerCache | None,
        where_N: Tensor | None = None,
    ) -> Tensor:
        """With `where_N`, what is past attention is computed at those positions alone, [B, N, D]."""
        h_BTD = self._read(x_BTD, 0)
        h_BTD = self.mixers[0](h_BTD, turn=turn, mask=view.mask, bias=bias, cache=cache, attend=view.attend)
        x_BTD = self._add(x_BTD, h_BTD, 0)
        if len(self.mixers) == 2:
            h_BTD = self.mixers[1](
                self._read(x_BTD, 1),
                memory_BSD=view.memory_BSD,
                mask=view.memory_mask_BS,
                cache=cross_cache,
                attend=view.attend,
            )
            x_BTD = self._add(x_BTD, h_BTD, 1)
        if where_N is not None:
            x_BTD = x_BTD.index_select(1, where_N)
        return self._add(x_BTD, self.mlp(self._read(x_BTD, -1)), -1)

    def _read(self, x_BTD: Tensor, part: int) -> Tensor:
        return x_BTD if self.placement == "post" else self.norms[part](x_BTD)

    def _add(self, x_BTD: Tensor, out_BTD: Tensor, part: int) -> Tensor:
        if self.placement == "sandwich":
            out_BTD = self.out_norms[part](out_BTD)
        if self.dropout and self.training:
            out_BTD = F.dropout(out_BTD, self.dropout)
        x_BTD = x_BTD + out_BTD
        return self.norms[part](x_BTD) if self.placement == "post" else x_BTD
