"""What reads the last hidden states: scores over the vocabulary, or over labels.

Shape suffixes: B batch, T tokens, N any leading dimensions, D width, V vocabulary, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matura.model import config as c
from matura.model.layers import Linear, build_norm, gelu_tanh, linear

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "gelu_tanh": gelu_tanh, "relu": F.relu}


class Unembedding(NamedTuple):
    """How features become logits: features W^T + b, then the cap."""

    weight_VD: Tensor
    bias_V: Tensor | None = None
    softcap: float | None = None

    def logits(self, features_ND: Tensor) -> Tensor:
        """Scores [N, V]."""
        logits_NV = linear(features_ND, self.weight_VD, self.bias_V)
        return logits_NV if self.softcap is None else torch.tanh(logits_NV / self.softcap) * self.softcap

    def detach(self) -> Unembedding:
        """The same numbers, through which no gradient flows."""
        bias_V = None if self.bias_V is None else self.bias_V.detach()
        return Unembedding(self.weight_VD.detach(), bias_V, self.softcap)


class LanguageHead(nn.Module):
    """Scores for every token; without a `weight` of its own when tied to the embedding."""

    def __init__(self, width: int, vocabulary: int, config: c.LanguageHead) -> None:
        super().__init__()
        self.scale, self.softcap = config.scale, config.softcap
        self.activation = ACTIVATIONS[config.activation]
        self.weight = None if config.tied else nn.Parameter(torch.empty(vocabulary, width))
        self.bias = nn.Parameter(torch.zeros(vocabulary)) if config.bias else None
        self.dense = self.norm = None
        if config.transform is not None:
            self.dense = Linear(width, width)
            self.norm = build_norm(width, config.transform)

    def features(self, hidden_ND: Tensor) -> Tensor:
        """What the output matrix is multiplied with."""
        if self.dense is not None and self.norm is not None:
            hidden_ND = self.norm(self.activation(self.dense(hidden_ND)))
        return hidden_ND if self.scale == 1 else hidden_ND * self.scale

    def unembedding(self, embedding_VD: Tensor) -> Unembedding:
        """The output matrix, its bias and the cap."""
        weight_VD = embedding_VD if self.weight is None else self.weight
        return Unembedding(weight_VD, self.bias, self.softcap)


class Classifier(nn.Module):
    """One score per label."""

    def __init__(self, width: int, config: c.Classifier) -> None:
        super().__init__()
        self.pool, self.hidden = config.pool, config.hidden
        self.dense = None if config.hidden == "none" else Linear(width, width)
        self.out = Linear(width, len(config.labels), bias=config.bias)

    def forward(self, hidden_BTD: Tensor, real_BT: Tensor | None = None) -> Tensor:
        """Scores [B, L]; `real_BT` is True at tokens that are no padding."""
        return self.scores(pick(hidden_BTD, real_BT, self.pool))

    def scores(self, x_ND: Tensor) -> Tensor:
        """Scores [N, L] of the tokens that are read."""
        if self.dense is not None:
            x_ND = self.dense(x_ND)
            x_ND = torch.tanh(x_ND) if self.hidden == "tanh" else F.relu(x_ND)
        return self.out(x_ND)


class Pooler(nn.Module):
    """tanh of a projection of the first token (arXiv:1810.04805, in its released checkpoints)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = Linear(width, width)

    def forward(self, hidden_BTD: Tensor, real_BT: Tensor | None = None) -> Tensor:
        """Text vectors [B, D]."""
        return torch.tanh(self.dense(pick(hidden_BTD, real_BT, "first")))


def pick(hidden_BTD: Tensor, real_BT: Tensor | None, which: c.Pool) -> Tensor:
    """The first or the last real token of every row, or the mean of all, [B, D], whichever side the padding is on."""
    if which == "mean":
        return _mean(hidden_BTD, real_BT)
    if real_BT is None:
        return hidden_BTD[:, 0 if which == "first" else -1]
    T = real_BT.shape[1]
    at_B = real_BT.int().argmax(1) if which == "first" else T - 1 - real_BT.flip(1).int().argmax(1)
    return hidden_BTD[torch.arange(len(hidden_BTD), device=hidden_BTD.device), at_B]


def _mean(hidden_BTD: Tensor, real_BT: Tensor | None) -> Tensor:
    if real_BT is None:
        return hidden_BTD.mean(1)
    weight_BT1 = real_BT[..., None].to(hidden_BTD.dtype)
    return (hidden_BTD * weight_BT1).sum(1) / weight_BT1.sum(1)


def pick_spans(hidden_TD: Tensor, spans: Sequence[tuple[int, int]], which: c.Pool) -> Tensor:
    """As `pick`, of the texts in a packed row that lie at these (start, end): [N, D]."""
    if which == "mean":
        return torch.stack([hidden_TD[start:end].mean(0) for start, end in spans])
    at = [start if which == "first" else end - 1 for start, end in spans]
    return hidden_TD[torch.tensor(at, device=hidden_TD.device)]


def build_head(config: c.ModelConfig) -> nn.Module | None:
    """The module for a head value; None when hidden states are the output."""
    match config.head:
        case c.LanguageHead():
            return LanguageHead(config.width, config.vocabulary, config.head)
        case c.Classifier():
            return Classifier(config.width, config.head)
        case c.Pooler():
            return Pooler(config.width)
        case _:
            return None
