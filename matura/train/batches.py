"""From examples to packed batches: no padding, no contamination, and a position that can be saved.

An example is a list of token ids and a mask of those that are trained. Several examples lie end to end in one row;
attention and positions start anew at each, so a packed row computes exactly what its examples would alone.

Shape suffixes: T tokens of a row, N trained positions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from matura.model.attention import Packed, spans


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids, and which of them are trained; the first token is never a target. `weight` scales its loss."""

    ids: tuple[int, ...]
    mask: tuple[bool, ...]
    weight: float = 1.0

    @property
    def trained(self) -> int:
        """Number of positions with a loss."""
        return sum(self.mask[1:])

    @property
    def size(self) -> int:
        """Tokens that run through the model: the last one predicts nothing."""
        return len(self.ids) - 1


@dataclass(frozen=True)
class PackedBatch:
    """One row: ids [1, T], its sequences, and where hidden states meet which targets with which weight [N]."""

    ids_1T: Tensor
    mask: Packed
    where_N: Tensor
    targets_N: Tensor
    weights_N: Tensor

    @property
    def weight(self) -> float:
        """Sum of the loss weights."""
        return float(self.weights_N.sum())

    @property
    def tokens(self) -> int:
        """Tokens that run through the model."""
        return self.ids_1T.shape[1]


def pack(examples: Sequence[Example], device: str = "cpu") -> PackedBatch:
    """Lay examples end to end. The last token of an example predicts nothing, so it is left out of the row."""
    ids: list[int] = []
    where: list[int] = []
    targets: list[int] = []
    weights: list[float] = []
    lengths = []
    for example in examples:
        for i, trained in enumerate(example.mask[1:]):
            if trained:
                where.append(len(ids) + i)
                targets.append(example.ids[i + 1])
                weights.append(example.weight)
        ids += example.ids[:-1]
        lengths.append(len(example.ids) - 1)
    return PackedBatch(
        torch.tensor([ids], device=device),
        Packed(tuple(lengths)),
        torch.tensor(where, dtype=torch.long, device=device),
        torch.tensor(targets, dtype=torch.long, device=device),
        torch.tensor(weights, device=device),
    )


def unpack(batch: PackedBatch) -> list[list[int]]:
    """The ids of each sequence in a packed row."""
    return [batch.ids_1T[0, start:end].tolist() for start, end in spans(batch.mask.lengths)]


def chunk_document(ids: Sequence[int], length: int, begin: int | None) -> list[Example]:
    """Cut a document into examples of about `length` tokens, each starting with `begin` (when given).

    Pieces are equal to within one token, so no tiny rest is left at the end. Every token of the document is a target
    exactly once: a piece begins with the last token of the one before, as context that is not trained.
    """
    room = length - (begin is not None)
    if len(ids) + (begin is not None) < 2 or room < 2:
        return []
    pieces = -(-len(ids) // room)
    examples = []
    for k in range(pieces):
        start, end = len(ids) * k // pieces, len(ids) * (k + 1) // pieces
        head: list[int] = [] if begin is None else [begin]
        overlap = 1 if begin is None and start else 0
        piece = (*head, *ids[start - overlap : end])
        examples.append(Example(piece, (False, *[True] * (len(piece) - 1))))
    return examples


def truncate(example: Example, length: int) -> Example:
    """Keep the first `length` tokens."""
    return (
        example
        if len(example.ids) <= length
        else Example(example.ids[:length], example.mask[:length], example.weight)
    )


def plan_rows(sizes: Sequence[int], capacity: int, order: Sequence[int]) -> list[list[int]]:
    """Best fit: each example, in `order`, goes into the fullest of the open rows that still has room.

    Rows keep the order in which they were opened. An example longer than `capacity` gets a row of its own.
    """
    rows: list[list[int]] = []
    free: list[int] = []
    for i in order:
        fitting = [(room, r) for r, room in enumerate(free) if sizes[i] <= room]
        if fitting:
            room, r = min(fitting)
        else:
            r, room = len(rows), capacity
            rows.append([])
            free.append(0)
        rows[r].append(i)
        free[r] = room - sizes[i]
    return rows


class Rows:
    """An endless, seeded sequence of rows over examples: groups that fit into `tokens`, every epoch shuffled anew.

    Examples (`Example`, `labels.Labelled`) have a `size`, and are left out unless `trained`.
    """

    WINDOW = 256
    """Examples packed together at a time: enough to fill rows well, few enough to keep the order random."""

    def __init__(self, examples: Sequence[Any], *, tokens: int, seed: int) -> None:
        self.examples = [example for example in examples if example.trained]
        if not self.examples:
            raise ValueError("no example has anything to train on")
        self.tokens, self.seed = tokens, seed
        self._epoch, self._next = 0, 0
        self._rows = self._plan(0)

    def next(self) -> list[Any]:
        """The examples of the next row."""
        if self._next == len(self._rows):
            self._epoch, self._next = self._epoch + 1, 0
            self._rows = self._plan(self._epoch)
        row = self._rows[self._next]
        self._next += 1
        return [self.examples[i] for i in row]

    @property
    def mean_tokens(self) -> float:
        """Tokens of an average row in this epoch."""
        return sum(self.examples[i].size for row in self._rows for i in row) / len(self._rows)

    @property
    def epochs(self) -> float:
        """How often the examples have been seen, as a fraction."""
        return self._epoch + self._next / len(self._rows)

    def state(self) -> dict[str, int]:
        """The position, as JSON values."""
        return {"epoch": self._epoch, "next": self._next}

    def restore(self, state: dict[str, int]) -> None:
        """Go to a position that `state` gave."""
        self._epoch, self._next = state["epoch"], state["next"]
        self._rows = self._plan(self._epoch)

    def _plan(self, epoch: int) -> list[list[int]]:
        order = list(range(len(self.examples)))
        shuffler = random.Random(f"{self.seed}/{epoch}")
        shuffler.shuffle(order)
        sizes = [example.size for example in self.examples]
        rows: list[list[int]] = []
        for start in range(0, len(order), self.WINDOW):
            # Long ones first within a window: neighbours of equal length share one attention kernel.
            window = sorted(order[start : start + self.WINDOW], key=lambda i: -sizes[i])
            rows += plan_rows(sizes, self.tokens, window)
        shuffler.shuffle(rows)
        return rows


class PackedBatches:
    """An endless iterator of rows that `pack` makes, each of one row of every source: a fixed mixture in every update.

    `state()` and `restore()` carry the position: the next batch after a resume is the one that would have come.
    """

    def __init__(self, sources: Sequence[Rows], device: str = "cpu", pack: Callable[..., Any] = pack) -> None:
        self.sources = tuple(sources)
        self.device, self.pack = device, pack

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self.pack([example for source in self.sources for example in source.next()], self.device)

    @property
    def mean_tokens(self) -> float:
        """Tokens of an average batch."""
        return sum(source.mean_tokens for source in self.sources)

    def state(self) -> dict[str, Any]:
        """The position, as JSON values."""
        return {"sources": [source.state() for source in self.sources]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to a position that `state` gave."""
        for source, position in zip(self.sources, state["sources"], strict=True):
            source.restore(position)
