"""Texts with labels: examples, packed batches, and the objective of a classification head.

Shape suffixes: T tokens of a row, N texts, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from matura.model.attention import Packed, spans
from matura.model.classifying import span_scores
from matura.model.transformer import Transformer


@dataclass(frozen=True, slots=True)
class Labelled:
    """The ids of a text, and the number of its label."""

    ids: tuple[int, ...]
    label: int

    @property
    def size(self) -> int:
        """Tokens that run through the model."""
        return len(self.ids)

    @property
    def trained(self) -> int:
        """Number of places with a loss."""
        return 1


@dataclass(frozen=True)
class LabelBatch:
    """One packed row [1, T], the spans of its texts, and their labels [N]."""

    ids_1T: Tensor
    mask: Packed
    targets_N: Tensor

    @property
    def weight(self) -> float:
        """Texts."""
        return float(len(self.targets_N))

    @property
    def tokens(self) -> int:
        """Tokens that run through the model."""
        return self.ids_1T.shape[1]


def pack_labels(examples: Sequence[Labelled], device: str = "cpu") -> LabelBatch:
    """Lay texts end to end; none sees another."""
    return LabelBatch(
        torch.tensor([[id for one in examples for id in one.ids]], device=device),
        Packed(tuple(len(one.ids) for one in examples)),
        torch.tensor([one.label for one in examples], device=device),
    )


def scores(model: Transformer, batch: LabelBatch) -> Tensor:
    """Logits [N, L] of every text in the row."""
    return span_scores(model, batch.ids_1T, batch.mask, spans(batch.mask.lengths))


def label_loss(model: Transformer, batch: LabelBatch) -> Tensor:
    """-log p(label | text), summed over the texts."""
    return F.cross_entropy(scores(model, batch), batch.targets_N, reduction="sum")


def accuracy(model: Transformer, batch: LabelBatch) -> float:
    """Share of the texts whose own label has the highest score."""
    right_N = scores(model, batch).argmax(-1) == batch.targets_N
    return float(right_N.float().mean())
