"""Preferences in packed rows: pairs and thumbs beside the log-probabilities of the reference, and for KTO how far the
model has moved.

A ranking is never taken apart: all pairs of a prompt are in one batch, and an answer that several of them share is read
once.

Shape suffixes: T tokens of a row, S answers, P pairs, Q thumbs.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from matura.align.preferred import Preferred, Thumb
from matura.align.sequences import AnswerBatch, Ids, Prompted, pack_answers, sequence_logprobs
from matura.model.transformer import Transformer
from matura.train.batches import Rows
from matura.train.watch import looking


@dataclass(frozen=True, slots=True)
class Known:
    """Preferences, and log p of their answers under the reference (empty where there is none). `mismatch` is an answer
    to another prompt after this one, and its log p under the reference: what KTO estimates a divergence from."""

    preferred: Preferred
    reference: tuple[float, ...] = ()
    mismatch: Ids = ()
    mismatch_reference: float = 0.0

    @property
    def size(self) -> int:
        """Tokens that run through the model."""
        return self.preferred.size

    @property
    def trained(self) -> int:
        """Number of pairs and thumbs."""
        return self.preferred.trained


@dataclass(frozen=True)
class PreferenceBatch:
    """Answers, log p of each under the reference [S]; pairs of answers with their weights [P]; thumbs with theirs [Q].
    `z` is KTO's estimate of the divergence over the whole update."""

    answers: AnswerBatch
    reference_S: Tensor
    chosen_P: Tensor
    rejected_P: Tensor
    weights_P: Tensor
    judged_Q: Tensor
    liked_Q: Tensor
    weights_Q: Tensor
    z: float = 0.0

    @property
    def weight(self) -> float:
        """Sum of the weights of pairs and thumbs."""
        return float(self.weights_P.sum() + self.weights_Q.sum())

    @property
    def tokens(self) -> int:
        """Tokens that run through the model."""
        return self.answers.tokens


def pack(examples: Sequence[Known], device: str = "cpu", z: float = 0.0) -> PreferenceBatch:
    """Lay prompts with their answers end to end."""
    reference: list[float] = []
    pairs: list[tuple[int, int, float]] = []
    thumbs: list[tuple[int, bool, float]] = []
    start = 0
    for one in examples:
        its = one.preferred
        reference += one.reference or [0.0] * len(its.answers)
        pairs += [(start + c.chosen, start + c.rejected, c.weight) for c in its.choices]
        thumbs += [(start + t.answer, t.liked, t.weight) for t in its.thumbs]
        start += len(its.answers)

    def column(rows: Sequence[tuple[Any, ...]], at: int, dtype: torch.dtype) -> Tensor:
        return torch.tensor([row[at] for row in rows], dtype=dtype, device=device)

    return PreferenceBatch(
        pack_answers([one.preferred.prompted for one in examples], device),
        torch.tensor(reference, device=device),
        column(pairs, 0, torch.long),
        column(pairs, 1, torch.long),
        column(pairs, 2, torch.float32),
        column(thumbs, 0, torch.long),
        column(thumbs, 1, torch.bool),
        column(thumbs, 2, torch.float32),
        z,
    )


def unpaired(preferred: Preferred) -> Preferred:
    """Pairs as thumbs: what was chosen up, what was rejected down. An answer that was both is both, with the weights of
    its pairs."""
    thumbs: dict[tuple[int, bool], float] = {}
    for choice in preferred.choices:
        for answer, liked in ((choice.chosen, True), (choice.rejected, False)):
            thumbs[answer, liked] = thumbs.get((answer, liked), 0.0) + choice.weight
    made = tuple(Thumb(*who, weight) for who, weight in thumbs.items())
    return replace(preferred, choices=(), thumbs=(*preferred.thumbs, *made))


def mismatched(preferred: Sequence[Preferred], length: int, seed: int) -> list[Prompted]:
    """For every prompt an answer to another one, cut to `length` tokens with it; none where there is no other prompt.

    A seeded round: each gets a judged answer of the next one whose prompt differs, so nobody's own.
    """
    draw = random.Random(f"mismatch/{seed}")
    order = list(range(len(preferred)))
    draw.shuffle(order)
    out: list[Prompted] = [Prompted(one.prompt, ()) for one in preferred]
    for at, i in enumerate(order):
        mine = preferred[i].prompt
        others = (order[(at + step) % len(order)] for step in range(1, len(order)))
        other = next((j for j in others if preferred[j].prompt != mine), None)
        if other is not None and len(mine) < length:
            answer = draw.choice(preferred[other].answers)[: length - len(mine)]
            out[i] = Prompted(mine, (answer,))
    return out


def divergence(model: Transformer, rows: Sequence[Sequence[Known]]) -> float:
    """Mean of log p - log p_ref over the answers to other prompts of an update, and not below zero: KTO's z
    (arXiv:2402.01306, section 4.1); 0 where there are none."""
    ratios: list[float] = []
    with looking(model):
        for row in rows:
            its = [one for one in row if one.mismatch]
            if its:
                batch = pack_answers([Prompted(one.preferred.prompt, (one.mismatch,)) for one in its])
                found = sequence_logprobs(model, batch).logprobs_S.tolist()
                ratios += [new - one.mismatch_reference for new, one in zip(found, its, strict=True)]
    return max(0.0, math.fsum(ratios) / len(ratios)) if ratios else 0.0


class PreferenceBatches:
    """An endless iterator of packed batches, `accumulate` of which make an update. Where there are answers to other
    prompts, z is estimated by `model` from all batches of an update before its first is given out.

    Its position is saved between updates.
    """

    def __init__(
        self,
        examples: Sequence[Known],
        *,
        tokens: int,
        seed: int,
        accumulate: int = 1,
        model: Transformer | None = None,
        device: str = "cpu",
    ) -> None:
        self.rows = Rows(examples, tokens=tokens, seed=seed)
        self.accumulate, self.model, self.device = accumulate, model, device
        self._waiting: list[PreferenceBatch] = []

    def __iter__(self) -> Iterator[PreferenceBatch]:
        return self

    def __next__(self) -> PreferenceBatch:
        if not self._waiting:
            rows = [self.rows.next() for _ in range(self.accumulate)]
            z = 0.0 if self.model is None else divergence(self.model, rows)
            self._waiting = [pack(row, self.device, z) for row in rows]
        return self._waiting.pop(0)

    def updates(self, epochs: float) -> int:
        """How many updates go through the preferences so often; at least one."""
        total = sum(one.size for one in self.rows.examples)
        return max(1, round(epochs * total / (self.mean_tokens * self.accumulate)))

    def reached(self, updates: int) -> set[int]:
        """The ids (of Python) of the examples that so many updates from the start learn from."""
        rows = Rows(self.rows.examples, tokens=self.rows.tokens, seed=self.rows.seed)
        return {id(one) for _ in range(updates * self.accumulate) for one in rows.next()}

    @property
    def mean_tokens(self) -> float:
        """Tokens of an average batch."""
        return self.rows.mean_tokens

    @property
    def epochs(self) -> list[float]:
        """How often the preferences have been seen."""
        return [self.rows.epochs]

    def state(self) -> dict[str, Any]:
        """The position, as JSON values."""
        if self._waiting:
            raise RuntimeError("an update is not finished")
        return self.rows.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Go to a position that `state` gave."""
        self._waiting = []
        self.rows.restore(state)
