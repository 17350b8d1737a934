"""Attention: who may look at whom, and the weighted sum.

Shape suffixes: B batch, T query tokens, S key tokens, D width, H query heads, G key/value heads, K head width.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Packed:
    """Several sequences end to end in one row (B = 1); none sees another, except that one may continue a parent.

    `parents[i]` is the index of an earlier sequence that sequence i continues (it sees all of it and counts its
    positions on from there), or None. So the choices of a question share the work of reading it.
    """

    lengths: tuple[int, ...]
    parents: tuple[int | None, ...] = ()

    def parent(self, i: int) -> int | None:
        """The sequence that sequence i continues."""
        return self.parents[i] if self.parents else None

    def positions(self, device: torch.device | None = None) -> Tensor:
        """Position of every token in its own sequence, counted on from its parent's end, [1, T]."""
        starts = [0 if (p := self.parent(i)) is None else self.lengths[p] for i in range(len(self.lengths))]
        counts = [torch.arange(s, s + n, device=device) for s, n in zip(starts, self.lengths, strict=True)]
        return torch.cat(counts)[None]

    def visible(self, device: torch.device | None = None) -> Tensor:
        """[T, S], True where query and key belong to one sequence, or the key to the query's parent."""
        label_T = torch.repeat_interleave(
            torch.arange(len(self.lengths), device=device), torch.tensor(self.lengths, device=device)
        )
        visible_TS = label_T[:, None] == label_T[None, :]
        if self.parents:
            above = torch.tensor([-1 if p is None else p for p in self.parents], device=device)
            visible_TS = visible_TS | (above[label_T][:, None] == label_T[None, :])
        return visible_TS


Mask = Packed | Tensor | None
"""`Packed`, or a boolean [B, S] that is True at real (not padding) keys, or None: every key is real."""


def allowed(T: int, S: int, *, causal: bool, mask: Mask, device: torch.device | None = None) -> Tensor | None:
    """Boolean [B or 1, 1, T, S], True where a query may look; None when it may look everywhere.

    The queries are the last T of the S positions, so a causal query t sees keys up to S - T + t.
    """
    allow: Tensor | None = None
    if causal and T > 1:
        allow = torch.ones(T, S, dtype=torch.bool, device=device).tril(S - T)[None, None]
    if isinstance(mask, Packed):
        visible = mask.visible(device)[None, None]
        allow = visible if allow is None else allow & visible
    elif mask is not None:
        keys = mask[:, None, None, :]
        allow = keys if allow is None else allow & keys
    return allow


def attend_reference(
    q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, *, causal: bool, mask: Mask = None
) -> tuple[Tensor, Tensor]:
    """Softmax attention as written in arXiv:1706.03762, section 3.2.1; returns (output, weights [B, H, T, S]).

    A query with no allowed key (padding on the left) gets weights of zero.
    """
    groups = q_BHTK.shape[1] // k_BGSK.shape[1]
    k_BHSK, v_BHSK = k_BGSK.repeat_interleave(groups, 1), v_BGSK.repeat_interleave(groups, 1)
    scores_BHTS = q_BHTK @ k_BHSK.transpose(-1, -2) * q_BHTK.shape[-1] ** -0.5
    allow = allowed(q_BHTK.shape[2], k_BGSK.shape[2], causal=causal, mask=mask, device=q_BHTK.device)
    if allow is not None:
        scores_BHTS = scores_BHTS.masked_fill(~allow, float("-inf"))
    weights_BHTS = torch.softmax(scores_BHTS, -1).nan_to_num(0.0)
    return weights_BHTS @ v_BHSK, weights_BHTS


def attend(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, *, causal: bool, mask: Mask = None) -> Tensor:
    """The same through PyTorch's fused kernels; [B, H, T, K].

    Packed rows run one kernel per sequence on a CPU (nothing is computed across sequences) and one masked
    kernel on an accelerator (no launch per sequence).
    """
    T, S = q_BHTK.shape[2], k_BGSK.shape[2]
    if isinstance(mask, Packed) and q_BHTK.device.type == "cpu":
        return _attend_packed(q_BHTK, k_BGSK, v_BGSK, causal=causal, mask=mask)
    if T == 1 and not isinstance(mask, Packed):
        return _attend_one_query(q_BHTK, k_BGSK, v_BGSK, mask)
    if causal and mask is None and T == S:
        return F.scaled_dot_product_attention(q_BHTK, k_BGSK, v_BGSK, is_causal=True, enable_gqa=True)
    allow = allowed(T, S, causal=causal, mask=mask, device=q_BHTK.device)
    out_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BGSK, v_BGSK, attn_mask=allow, enable_gqa=True)
    # A left-padded query sees nothing: kernels may answer NaN there, the reference answers zero.
    return out_BHTK if mask is None else torch.where(_sees_any(allow), out_BHTK, 0.0)


def _sees_any(allow: Tensor | None) -> Tensor:
    assert allow is not None
    return allow.any(-1, keepdim=True)


def _attend_packed(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, *, causal: bool, mask: Packed) -> Tensor:
    """One kernel per run of neighbours of equal length, which become rows of one batch; one per continuation."""
    if any(parent is not None for parent in mask.parents):
        return _attend_branches(q_BHTK, k_BGSK, v_BGSK, causal=causal, mask=mask)
    runs: list[list[int]] = []
    for length in mask.lengths:
        if runs and runs[-1][0] == length:
            runs[-1][1] += 1
        else:
            runs.append([length, 1])
    sizes = [length * count for length, count in runs]
    outs = []
    for i, (q, k, v) in enumerate(
        zip(*(x.split(sizes, dim=2) for x in (q_BHTK, k_BGSK, v_BGSK)), strict=True)
    ):
        q, k, v = (x.unflatten(2, (-1, runs[i][0])).squeeze(0).transpose(0, 1) for x in (q, k, v))
        out = F.scaled_dot_product_attention(
            q, k, v, is_causal=causal, enable_gqa=True
        )  # [count, H, length, K]
        outs.append(out.transpose(0, 1).flatten(1, 2)[None])
    return torch.cat(outs, dim=2)


def _attend_branches(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, *, causal: bool, mask: Packed) -> Tensor:
    """One kernel per sequence; the keys of a continuation are its parent's and its own."""
    qs, ks, vs = (x.split(list(mask.lengths), dim=2) for x in (q_BHTK, k_BGSK, v_BGSK))
    outs = []
    for i, (q, k, v) in enumerate(zip(qs, ks, vs, strict=True)):
        if (parent := mask.parent(i)) is not None:
            k, v = torch.cat([ks[parent], k], 2), torch.cat([vs[parent], v], 2)
        outs.append(attend(q, k, v, causal=causal))
    return torch.cat(outs, dim=2)


def _attend_one_query(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Tensor | None) -> Tensor:
    """Decoding: the heads that share a key/value head become the queries of one small attention."""
    B, H, _, K = q_BHTK.shape
    G = k_BGSK.shape[1]
    keys = None if mask is None else mask[:, None, None, :]
    q_BGRK = q_BHTK.reshape(B, G, H // G, K)
    return F.scaled_dot_product_attention(q_BGRK, k_BGSK, v_BGSK, attn_mask=keys).reshape(B, H, 1, K)


def spans(lengths: tuple[int, ...]) -> list[tuple[int, int]]:
    """(start, end) of every sequence in a packed row."""
    ends = list(accumulate(lengths))
    return list(zip([0, *ends[:-1]], ends, strict=True))
