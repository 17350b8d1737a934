"""The forgetting meter: what general text costs a model now, and how far it has moved from its parent there.

Shape suffixes: N positions, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from matura.core.grouping import neighbours
from matura.model.divergence import kl_divergence
from matura.model.heads import Unembedding
from matura.model.logprobs import cross_entropy
from matura.model.transformer import Transformer
from matura.train.batches import Example, PackedBatch, features, pack
from matura.train.labels import LabelBatch, accuracy
from matura.train.objectives import loss
from matura.train.watch import looking

ROW = 2048
"""Tokens read at a time."""


@dataclass(frozen=True)
class Text:
    """Held-out text, packed, with the bytes of what is scored in it: ordinary tokens, not the stop token."""

    batches: tuple[PackedBatch, ...]
    bytes: int

    @classmethod
    def of(cls, examples: Sequence[Example], tokenizer: Any) -> Text:
        """Examples as text to measure on. Bits of stop tokens count, and have no bytes."""
        batches = tuple(map(pack, neighbours(examples, ROW, lambda one: one.size)))
        scored = (id for batch in batches for id in batch.targets_N.tolist())
        return cls(
            batches, sum(len(tokenizer.token_bytes(id)) for id in scored if id not in tokenizer.special_ids)
        )

    @property
    def tokens(self) -> int:
        """How many tokens are scored."""
        return sum(len(batch.targets_N) for batch in self.batches)


@dataclass(frozen=True)
class Reading:
    """Bits per byte of a text, and the mean divergence from the parent in nats a token."""

    bpb: float
    kl: float


class Meter:
    """Reads a text with a model again and again, and compares with what its parent made of it once.

    Of the parent only the features at the scored positions are kept (4 bytes x width a token), and its output matrix.
    """

    def __init__(self, text: Text, parent: Transformer) -> None:
        """`parent` reads the text now. Its output matrix must not change afterwards."""
        if not text.bytes:
            raise ValueError("a text without bytes has no bits per byte")
        self.text = text
        with looking(parent):
            self.parent_ND = [features(parent, batch).clone() for batch in text.batches]
            self.head = parent.unembedding.detach()
            nats = [self._loss(one, self.head, i) for i, one in enumerate(self.parent_ND)]
        self.parent = Reading(self._bpb(nats), 0.0)

    @torch.no_grad()
    def read(self, model: Transformer) -> Reading:
        """What the model makes of the text now."""
        nats, divergence = [], []
        with looking(model):
            head = model.unembedding.detach()
            for i, batch in enumerate(self.text.batches):
                features_ND = features(model, batch)
                nats.append(self._loss(features_ND, head, i))
                ones_N = torch.ones_like(batch.weights_N)
                divergence.append(
                    float(kl_divergence(features_ND, head, self.parent_ND[i], self.head, ones_N))
                )
        return Reading(self._bpb(nats), math.fsum(divergence) / self.text.tokens)

    def _loss(self, features_ND: Tensor, head: Unembedding, row: int) -> float:
        batch = self.text.batches[row]
        return float(cross_entropy(features_ND, head, batch.targets_N, torch.ones_like(batch.weights_N)))

    def _bpb(self, nats: Sequence[float]) -> float:
        return math.fsum(nats) / math.log(2) / self.text.bytes


@dataclass(frozen=True)
class Looks:
    """What is looked at between updates: held-out examples of what is learned, and the forgetting meter."""

    heldout: PackedBatch | LabelBatch | None = None
    meter: Meter | None = None
    also: tuple[Callable[[Transformer], dict[str, float]], ...] = ()
    """Further readings. The first `heldout_loss` among all is what a limit of forgetting calls the best."""

    def __call__(self, model: Transformer) -> dict[str, float]:
        """`heldout_loss` (nats a trained token, or a text with a label), `heldout_accuracy` of labels, `general_bpb`
        and `general_kl`, as far as there is text for them."""
        found: dict[str, float] = {}
        if self.heldout is not None:
            with looking(model):
                found["heldout_loss"] = float(loss(model, self.heldout)) / self.heldout.weight
                if isinstance(self.heldout, LabelBatch):
                    found["heldout_accuracy"] = accuracy(model, self.heldout)
        for read in self.also:
            with looking(model):
                found = read(model) | found
        if self.meter is not None:
            reading = self.meter.read(model)
            found |= {"general_bpb": reading.bpb, "general_kl": reading.kl}
        return found

    def change(self, found: dict[str, float]) -> float:
        """Bits per byte of general text as a share of the parent's, minus one: 0.02 is 2% more. 0 without a meter."""
        return 0.0 if self.meter is None else found["general_bpb"] / self.meter.parent.bpb - 1
