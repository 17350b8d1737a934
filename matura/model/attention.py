"""Attention: who may look at whom, and the weighted sum.

Shape suffixes: B batch, T query tokens, S key tokens, D width, H query heads, G key/value heads, K head width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from matura.model.bias import Bias
from matura.model.blockwise import BLOCK, causal_attention


@dataclass(frozen=True)
class Packed:
    """Several sequences end to end in one row (B = 1); none sees another, except that one may continue a parent.

    `parents[i]` is the index of an earlier sequence that sequence i continues (it sees all of it, and all that one
    continues, and counts its positions on from there), or None. So the choices of a question share the work of reading
    it, and questions that of reading the examples before them. A parent that does not come earlier is a ValueError.
    """

    lengths: tuple[int, ...]
    parents: tuple[int | None, ...] = ()

    def __post_init__(self) -> None:
        if self.parents and len(self.parents) != len(self.lengths):
            raise ValueError(f"{len(self.lengths)} packed sequences, but {len(self.parents)} parents")
        for i, parent in enumerate(self.parents):
            if parent is not None and not 0 <= parent < i:
                raise ValueError(f"packed sequence {i} cannot continue sequence {parent}")

    @classmethod
    def joined(cls, rows: Sequence[Packed]) -> Packed:
        """Rows end to end in one; each keeps its own lines."""
        lengths: list[int] = []
        parents: list[int | None] = []
        for row in rows:
            above = row.parents or (None,) * len(row.lengths)
            parents += [None if one is None else one + len(lengths) for one in above]
            lengths += row.lengths
        return cls(tuple(lengths), tuple(parents) if any(row.parents for row in rows) else ())

    def part(self, start: int, end: int) -> Packed:
        """Sequences `start` to `end` as a row; none may continue one before them (ValueError)."""
        parents = tuple(None if one is None else one - start for one in self.parents[start:end])
        return Packed(self.lengths[start:end], parents)

    def parent(self, i: int) -> int | None:
        """The sequence that sequence i continues."""
        return self.parents[i] if self.parents else None

    def line(self, i: int) -> tuple[int, ...]:
        """Sequence i after all that it continues, the first one first."""
        parent = self.parent(i)
        return (i,) if parent is None else (*self.line(parent), i)

    def positions(self, device: torch.device | None = None) -> Tensor:
        """Position of every token in its own sequence, counted on from its parent's end, [1, T]."""
        starts = [sum(self.lengths[j] for j in self.line(i)[:-1]) for i in range(len(self.lengths))]
        counts = [torch.arange(s, s + n, device=device) for s, n in zip(starts, self.lengths, strict=True)]
        return torch.cat(counts)[None]

    def visible(self, device: torch.device | None = None) -> Tensor:
        """[T, S], True where query and key belong to one sequence, or the key to one that the query's continues."""
        label_T = torch.repeat_interleave(
            torch.arange(len(self.lengths), device=device), torch.tensor(self.lengths, device=device)
        )
        visible_TS = label_T[:, None] == label_T[None, :]
        if self.parents:
            lines = [self.line(i) for i in range(len(self.lengths))]
            seen_NN = torch.tensor([[j in line for j in range(len(lines))] for line in lines], device=device)
            visible_TS = seen_NN[label_T][:, label_T]
        return visible_TS


Mask = Packed | Tensor | None
"""`Packed`, or a boolean [B, S] that is True at real (not padding) keys, or None: every key is real."""


@dataclass(frozen=True)
class Rule:
    """How the scores of one layer are made. `window`: tokens a query sees, itself included (to each side when not
    causal); `scale` None is 1 / sqrt(K)."""

    causal: bool
    window: int | None = None
    scale: float | None = None
    softcap: float | None = None
    dropout: float = 0.0


Attend = Callable[..., Tensor]
"""(q_BHTK, k_BGSK, v_BGSK, rule, mask=..., bias=...) -> [B, H, T, K]: `attend`, or one that also looks on."""


def allowed(
    T: int, S: int, rule: Rule, mask: Mask = None, device: torch.device | None = None
) -> Tensor | None:
    """Boolean [B or 1, 1, T, S], True where a query may look; None when it may look everywhere.

    The queries are the last T of the S positions, so a causal query t sees keys up to S - T + t. What stands before a
    packed row, every sequence of it sees as its own past.
    """
    parts: list[Tensor] = []
    if rule.causal and T > 1:
        parts.append(torch.ones(T, S, dtype=torch.bool, device=device).tril(S - T)[None, None])
    if isinstance(mask, Packed):
        past = S - T
        parts.append(F.pad(mask.visible(device), (past, 0), value=True)[None, None])
        if rule.window:
            keys_S = _after(mask, past, device)
            parts.append(_near(keys_S[past:], keys_S, rule.window)[None, None])
    else:
        if mask is not None:
            parts.append(mask[:, None, None, :])
        if rule.window and rule.window < S:
            keys = torch.arange(S, device=device)
            parts.append(_near(keys[S - T :], keys, rule.window)[None, None])
    return reduce(torch.logical_and, parts) if parts else None


def _after(mask: Packed, past: int, device: torch.device | None) -> Tensor:
    """Positions of `past` keys and of the packed sequences, each of which follows them."""
    return torch.cat([torch.arange(past, device=device), past + mask.positions(device)[0]])


def _near(queries_T: Tensor, keys_S: Tensor, window: int) -> Tensor:
    return (queries_T[:, None] - keys_S[None, :]).abs() < window


def attend_reference(
    q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, rule: Rule, *, mask: Mask = None, bias: Bias | None = None
) -> tuple[Tensor, Tensor]:
    """Softmax attention as written in arXiv:1706.03762, section 3.2.1; returns (output, weights [B, H, T, S]).

    Forbidden keys get a score of -inf. A query with no allowed key (padding on the left) gets weights of zero.
    """
    T, S, width = q_BHTK.shape[2], k_BGSK.shape[2], q_BHTK.shape[-1]
    groups = q_BHTK.shape[1] // k_BGSK.shape[1]
    k_BHSK, v_BHSK = k_BGSK.repeat_interleave(groups, 1), v_BGSK.repeat_interleave(groups, 1)
    scores_BHTS = q_BHTK @ k_BHSK.transpose(-1, -2) * (width**-0.5 if rule.scale is None else rule.scale)
    if rule.softcap is not None:
        scores_BHTS = torch.tanh(scores_BHTS / rule.softcap) * rule.softcap
    if bias is not None:
        scores_BHTS = scores_BHTS + _bias(bias, T, S, mask, q_BHTK)
    allow = allowed(T, S, rule, mask, q_BHTK.device)
    if allow is not None:
        scores_BHTS = scores_BHTS.masked_fill(~allow, float("-inf"))
    weights_BHTS = torch.softmax(scores_BHTS, -1).nan_to_num(0.0)
    dropped_BHTS = F.dropout(weights_BHTS, rule.dropout) if rule.dropout else weights_BHTS
    return dropped_BHTS @ v_BHSK, weights_BHTS


def _bias(bias: Bias, T: int, S: int, mask: Mask, like: Tensor) -> Tensor:
    """[1, H, T, S]; a packed row takes its distances from the positions inside the sequences."""
    if isinstance(mask, Packed):
        at_S = _after(mask, S - T, like.device)
        longest = int(at_S.max()) + 1
        all_1HLL = bias(longest, longest).to(like.device, like.dtype)
        return all_1HLL[:, :, at_S[-T:, None], at_S[None]]
    return bias(T, S).to(like.device, like.dtype)


def attend(
    q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, rule: Rule, *, mask: Mask = None, bias: Bias | None = None
) -> Tensor:
    """The same through PyTorch's fused kernels where they know the rule; [B, H, T, K].

    Packed rows run one kernel per sequence on a CPU (nothing is computed across sequences) and one masked
    kernel on an accelerator (no launch per sequence).
    """
    T, S = q_BHTK.shape[2], k_BGSK.shape[2]
    if isinstance(mask, Packed):
        if q_BHTK.device.type == "cpu":
            return _attend_packed(q_BHTK, k_BGSK, v_BGSK, rule, mask, bias)
    elif T == 1 and rule.causal and rule.window and rule.window < S:
        near = slice(S - rule.window, None)  # decoding: the far keys are not even read
        k_BGSK, v_BGSK = k_BGSK[:, :, near], v_BGSK[:, :, near]
        mask = None if mask is None else mask[:, near]
        S = rule.window
    if rule.softcap is not None:
        return attend_reference(q_BHTK, k_BGSK, v_BGSK, rule, mask=mask, bias=bias)[0]
    simple = bias is None and not rule.dropout and (rule.causal or not rule.window)
    if T == 1 and simple and not isinstance(mask, Packed):
        return _attend_one_query(q_BHTK, k_BGSK, v_BGSK, rule, mask)
    if rule.causal and mask is None and simple and T == S and not (rule.window and rule.window < S):
        return _attend_causal(q_BHTK, k_BGSK, v_BGSK, rule)
    allow = allowed(T, S, rule, mask, q_BHTK.device)
    seen = allow
    if bias is not None:
        added = _bias(bias, T, S, mask, q_BHTK)
        seen = added if allow is None else added.masked_fill(~allow, float("-inf"))
    out_BHTK = F.scaled_dot_product_attention(
        q_BHTK, k_BGSK, v_BGSK, attn_mask=seen, dropout_p=rule.dropout, scale=rule.scale, enable_gqa=True
    )
    if mask is None or allow is None:
        return out_BHTK
    # A left-padded query sees nothing: kernels may answer NaN there, the reference answers zero.
    return torch.where(allow.any(-1, keepdim=True), out_BHTK, 0.0)


def _attend_causal(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, rule: Rule) -> Tensor:
    """Every query sees what stands before it, and nothing else is asked."""
    T, K = q_BHTK.shape[2:]
    if q_BHTK.device.type == "cpu" and T > BLOCK and q_BHTK.dtype in (torch.float32, torch.float64):
        return causal_attention(q_BHTK, k_BGTK, v_BGTK, K**-0.5 if rule.scale is None else rule.scale)
    return F.scaled_dot_product_attention(
        q_BHTK, k_BGTK, v_BGTK, is_causal=True, scale=rule.scale, enable_gqa=True
    )


def _attend_packed(
    q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, rule: Rule, mask: Packed, bias: Bias | None
) -> Tensor:
    """One kernel per run of neighbours of equal length, which become rows of one batch; one per continuation.

    Keys before the row's own (a prefix) are every sequence's past.
    """
    past = k_BGSK.shape[2] - q_BHTK.shape[2]
    before, (k_BGSK, v_BGSK) = _split_past(past, k_BGSK, v_BGSK)
    if any(parent is not None for parent in mask.parents):
        return _attend_branches(q_BHTK, k_BGSK, v_BGSK, rule, mask, bias, before)
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
        k, v = (_continued(old, new) for old, new in zip(before, (k, v), strict=True))
        out = attend(q, k, v, rule, bias=bias)  # [count, H, length, K]
        outs.append(out.transpose(0, 1).flatten(1, 2)[None])
    return torch.cat(outs, dim=2)


Before = tuple[Tensor | None, Tensor | None]
"""Keys and values that stand before a packed row."""


def _split_past(past: int, k_BGSK: Tensor, v_BGSK: Tensor) -> tuple[Before, tuple[Tensor, Tensor]]:
    if not past:
        return (None, None), (k_BGSK, v_BGSK)
    return (k_BGSK[:, :, :past], v_BGSK[:, :, :past]), (k_BGSK[:, :, past:], v_BGSK[:, :, past:])


def _continued(before: Tensor | None, new: Tensor) -> Tensor:
    return new if before is None else torch.cat([before.expand(len(new), -1, -1, -1), new], 2)


def _attend_branches(
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    v_BGSK: Tensor,
    rule: Rule,
    mask: Packed,
    bias: Bias | None,
    before: Before,
) -> Tensor:
    """One kernel per sequence; the keys of a continuation are those of what it continues and its own."""
    qs, ks, vs = (x.split(list(mask.lengths), dim=2) for x in (q_BHTK, k_BGSK, v_BGSK))
    outs = []
    for i, (q, k, v) in enumerate(zip(qs, ks, vs, strict=True)):
        if len(line := mask.line(i)) > 1:
            k, v = torch.cat([ks[j] for j in line], 2), torch.cat([vs[j] for j in line], 2)
        k, v = (_continued(old, new) for old, new in zip(before, (k, v), strict=True))
        outs.append(attend(q, k, v, rule, bias=bias))
    return torch.cat(outs, dim=2)


def _attend_one_query(
    q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, rule: Rule, mask: Tensor | None
) -> Tensor:
    """Decoding: the heads that share a key/value head become the queries of one small attention."""
    B, H, _, K = q_BHTK.shape
    G = k_BGSK.shape[1]
    keys = None if mask is None else mask[:, None, None, :]
    q_BGRK = q_BHTK.reshape(B, G, H // G, K)
    out_BGRK = F.scaled_dot_product_attention(q_BGRK, k_BGSK, v_BGSK, attn_mask=keys, scale=rule.scale)
    return out_BGRK.reshape(B, H, 1, K)


def spans(lengths: tuple[int, ...]) -> list[tuple[int, int]]:
    """(start, end) of every sequence in a packed row."""
    ends = list(accumulate(lengths))
    return list(zip([0, *ends[:-1]], ends, strict=True))
