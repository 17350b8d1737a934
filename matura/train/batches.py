"""From examples to packed batches: no padding, no contamination, and a position that can be saved.

An example is a list of token ids with the weight of each one's loss. Several examples lie end to end in one row;
attention and positions start anew at each, so a packed row computes exactly what its examples would alone. What several
begin with can lie there once (`beginnings`).

Shape suffixes: T tokens of a row, N trained positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, Protocol

import torch
from torch import Tensor

from matura.model.attention import Packed
from matura.model.transformer import Transformer
from matura.train.beginnings import Lay, end_to_end, layout_for
from matura.train.packing import plan_epoch


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids, and for each the weight of its loss: 0 is only read (a bool does). The first is never a target."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def mask(self) -> tuple[bool, ...]:
        """Which tokens are trained."""
        return tuple(weight > 0 for weight in self.weights)

    @property
    def trained(self) -> int:
        """Number of positions with a loss."""
        return sum(weight > 0 for weight in self.weights[1:])

    @property
    def size(self) -> int:
        """Tokens that run through the model: the last one predicts nothing."""
        return len(self.ids) - 1


@dataclass(frozen=True)
class PackedBatch:
    """One row: ids [1, T], its sequences, and where hidden states meet which targets with which weight [N].

    `sources`: how many sequences came from each source of a mixture, in order; empty where there is one. No sequence
    continues one of another source.
    """

    ids_1T: Tensor
    mask: Packed
    where_N: Tensor
    targets_N: Tensor
    weights_N: Tensor
    sources: tuple[int, ...] = ()

    @property
    def weight(self) -> float:
        """Sum of the loss weights."""
        return float(self.weights_N.sum())

    @property
    def tokens(self) -> int:
        """Tokens of the examples without their last ones; a beginning counts for each that has it."""
        lengths, ends = self.mask.lengths, set(range(len(self.mask.lengths))) - set(self.mask.parents)
        return sum(lengths[i] for end in ends for i in self.mask.line(end))


def pack(examples: Sequence[Example], device: str = "cpu", lay: Lay = end_to_end) -> PackedBatch:
    """Lay examples in one row. The last token of an example predicts nothing, so it is left out."""
    row = lay([example.ids[:-1] for example in examples])
    where: list[int] = []
    targets: list[int] = []
    weights: list[float] = []
    for i, example in enumerate(examples):
        for place, id, weight in zip(row.places[i], example.ids[1:], example.weights[1:], strict=True):
            if weight:
                where.append(place)
                targets.append(id)
                weights.append(float(weight))
    return PackedBatch(
        torch.tensor([row.ids], device=device),
        row.mask(),
        torch.tensor(where, dtype=torch.long, device=device),
        torch.tensor(targets, dtype=torch.long, device=device),
        torch.tensor(weights, device=device),
    )


class Asking(Protocol):
    """A packed row [1, T], and the positions [N] whose hidden states predict what is learned."""

    @property
    def ids_1T(self) -> Tensor: ...
    @property
    def mask(self) -> Packed: ...
    @property
    def where_N(self) -> Tensor: ...


def hidden_states(model: Transformer, batch: Asking) -> Tensor:
    """Hidden states where a batch asks for them, [N, D]."""
    return model.decode(batch.ids_1T, mask=batch.mask, where_N=batch.where_N)[0]


def features(model: Transformer, batch: Asking) -> Tensor:
    """What the output matrix is multiplied with there, [N, D]."""
    return model.features(hidden_states(model, batch))


def packing(model: Transformer) -> Callable[..., PackedBatch]:
    """`pack` as this model is trained: what examples begin with alike is computed once where that changes nothing."""
    return partial(pack, lay=layout_for(model))


def joined(parts: Sequence[PackedBatch]) -> PackedBatch:
    """Rows of several sources end to end in one."""
    starts = accumulate((part.ids_1T.shape[1] for part in parts[:-1]), initial=0)
    return PackedBatch(
        torch.cat([part.ids_1T for part in parts], 1),
        Packed.joined([part.mask for part in parts]),
        torch.cat([part.where_N + start for part, start in zip(parts, starts, strict=True)]),
        torch.cat([part.targets_N for part in parts]),
        torch.cat([part.weights_N for part in parts]),
        tuple(len(part.mask.lengths) for part in parts),
    )


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
        examples.append(Example(piece, (0.0, *[1.0] * (len(piece) - 1))))
    return examples


class Rows:
    """An endless, seeded sequence of rows over examples: groups that fit into `tokens`, every epoch shuffled anew.

    Examples (`Example`, `labels.Labelled`) have a `size`, and are left out unless `trained`.
    """

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
    def fill(self) -> float:
        """Share of the rows' capacity that is filled in this epoch."""
        return self.mean_tokens / self.tokens

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
        sizes = [example.size for example in self.examples]
        return plan_epoch(sizes, self.tokens, f"{self.seed}/{epoch}")


class PackedBatches:
    """An endless iterator of rows that `pack` makes, each of one row of every source: a fixed mixture in every update.
    Of several sources, `pack` makes a `PackedBatch`.

    `state()` and `restore()` carry the position: the next batch after a resume is the one that would have come.
    """

    def __init__(self, sources: Sequence[Rows], device: str = "cpu", pack: Callable[..., Any] = pack) -> None:
        self.sources = tuple(sources)
        self.device, self.pack = device, pack

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        parts = [self.pack(source.next(), self.device) for source in self.sources]
        return parts[0] if len(parts) == 1 else joined(parts)

    @property
    def mean_tokens(self) -> float:
        """Tokens of an average batch."""
        return sum(source.mean_tokens for source in self.sources)

    @property
    def epochs(self) -> list[float]:
        """How often each source has been seen."""
        return [source.epochs for source in self.sources]

    def state(self) -> dict[str, Any]:
        """The position, as JSON values."""
        return {"sources": [source.state() for source in self.sources]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to a position that `state` gave."""
        for source, position in zip(self.sources, state["sources"], strict=True):
            source.restore(position)
