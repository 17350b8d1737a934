"""Batches for pre-training: blocks of tokens from mapped shards in a global shuffle, mixed by weight.

The documents of a source lie end to end as one circular row of N tokens. In each epoch it is cut, from an offset drawn
anew, into N // T blocks of T tokens and the one after (the last target); a seeded permutation says in which order they
come. So the place of every row in the corpus follows from its number alone, and a position is a few whole numbers.

Shape suffixes: B rows, T tokens of a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from matura.core.errors import ArtifactError, MaturaError
from matura.data.shards import TokenShards
from matura.data.streams import Stream
from matura.model.attention import Packed
from matura.train.order import Permutation, Rota, differences, drawn

Documents = Literal["joined", "separate"]


@dataclass(frozen=True)
class TokenBatch:
    """Ids and the token that follows each. `weights_BT` None: all count alike. With `mask`, the rows lie end to end as
    one, [1, B*T], and attention stays inside the sequences that it lists."""

    ids_BT: Tensor
    targets_BT: Tensor
    weights_BT: Tensor | None = None
    mask: Packed | None = None

    @property
    def weight(self) -> float:
        """Sum of the loss weights."""
        return float(self.targets_BT.numel() if self.weights_BT is None else self.weights_BT.sum())

    @property
    def tokens(self) -> int:
        """Tokens that run through the model."""
        return self.ids_BT.numel()


class Blocks:
    """The blocks of one source by their number: block g belongs to epoch g // count."""

    def __init__(self, name: str, stream: Stream, length: int, seed: int) -> None:
        if stream.tokens <= length:
            raise MaturaError(
                f"{name} holds {stream.tokens:,} tokens in {stream.documents:,} documents, and one row needs "
                f"{length + 1:,} (sequence + 1): give it more text, or train with shorter rows"
            )
        self.name, self.stream, self.length, self.seed = name, stream, length, seed
        self.count = stream.tokens // length
        self._epoch = -1
        self._order = Permutation(self.count, "")
        self._offset = 0

    def start(self, number: int) -> int:
        """Where block `number` begins in the stream."""
        epoch, i = divmod(number, self.count)
        if epoch != self._epoch:
            seed = f"{self.seed}/{self.name}/{epoch}"
            self._epoch, self._order = epoch, Permutation(self.count, seed)
            self._offset = drawn(f"{seed}/offset", self.stream.tokens)
        return (self._offset + self._order(i) * self.length) % self.stream.tokens


class TokenBatches:
    """An endless iterator of batches of `rows` rows of `length` tokens for rank `rank` of `world`.

    `weights` gives sources their shares of all tokens, whatever their sizes, and leaves out the others; None is one
    shuffle of everything. `documents` "separate" keeps attention inside a document; there, the last token of a document
    predicts the begin token of the next where the tokens have one, and otherwise nothing. Rows are numbered over all
    ranks, so 1 rank of 8 rows sees in each step what 2 ranks of 4 see together.

    Raises MaturaError when a source is unknown or has less than a row, or all of them less than one batch.
    """

    def __init__(
        self,
        shards: TokenShards,
        *,
        rows: int,
        length: int,
        seed: int,
        weights: Mapping[str, float] | None = None,
        documents: Documents = "joined",
        split: str = "train",
        rank: int = 0,
        world: int = 1,
        device: str = "cpu",
    ) -> None:
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} of {world}")
        streams = (
            {"all": Stream(shards, split)}
            if not weights
            else {name: Stream(shards, split, [name]) for name in weights}
        )
        tokens, needed = sum(one.tokens for one in streams.values()), rows * world * length + 1
        if tokens < needed:
            held = sum(one.documents for one in streams.values())
            raise MaturaError(
                f"{shards.folder} holds {tokens:,} tokens of {split!r} in {held:,} documents, and one batch needs "
                f"{needed:,} ({rows * world} rows of {length} and 1): add text, or train with fewer or shorter rows"
            )
        self.sources = tuple(Blocks(name, one, length, seed) for name, one in streams.items())
        self.rows, self.length, self.documents, self.device = rows, length, documents, device
        self._begin = shards.coding.begin if shards.coding.end is None else None
        self._first, self._all = rank * rows, world * rows
        self._rota = Rota(list(weights.values()) if weights else [1.0])
        self._identity = {
            "tokens": {name: one.tokens for name, one in streams.items()},
            "shares": self._rota.shares,
            "length": length,
            "seed": seed,
        }

    def __iter__(self) -> Iterator[TokenBatch]:
        return self

    def __next__(self) -> TokenBatch:
        places = []
        for _ in range(self._all):
            i = self._rota.next()
            places.append((self.sources[i], self._rota.had[i] - 1))
        mine = places[self._first : self._first + self.rows]
        starts = [(blocks, blocks.start(number)) for blocks, number in mine]
        ids = np.stack([blocks.stream.read(start, self.length + 1) for blocks, start in starts])
        ids_BT = torch.from_numpy(ids.astype(np.int64)).to(self.device)
        if self.documents == "joined":
            return TokenBatch(ids_BT[:, :-1], ids_BT[:, 1:])
        begins = [blocks.stream.starts(start, self.length + 1) for blocks, start in starts]
        return _separate(ids_BT, begins, self._begin)

    @property
    def epochs(self) -> dict[str, float]:
        """How often each source has been seen, as a fraction; more than one is a repetition."""
        return {
            blocks.name: had / blocks.count for blocks, had in zip(self.sources, self._rota.had, strict=True)
        }

    def state(self) -> dict[str, Any]:
        """The position, as JSON values. It is the same on every rank, and fits any number of ranks and rows."""
        return {**self._identity, "drawn": list(self._rota.had)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to a position that `state` gave; the next batch is the one that would have come. Raises ArtifactError when
        it belongs to other tokens, shares, length or seed."""
        if changed := differences(state, self._identity):
            raise ArtifactError(f"the checkpoint was made with other data: {'; '.join(changed)}")
        self._rota.had = list(state["drawn"])


def _separate(ids_BT: Tensor, begins: list[np.ndarray[Any, Any]], begin: int | None) -> TokenBatch:
    """Rows of T + 1 tokens as one packed row of B*T whose sequences are the documents and their pieces."""
    rows, length = ids_BT.shape[0], ids_BT.shape[1] - 1
    targets_BT = ids_BT[:, 1:]
    weights_BT = torch.ones(rows, length, device=ids_BT.device)
    lengths: list[int] = []
    for row, at in enumerate(begins):
        at = at[at > 0]
        crossing = torch.from_numpy(at - 1).to(ids_BT.device)
        weights_BT[row, crossing] = (targets_BT[row, crossing] == (-1 if begin is None else begin)).float()
        edges = [0, *at[at < length].tolist(), length]
        lengths += [end - start for start, end in pairwise(edges)]
    ids_1T, targets_1T = ids_BT[:, :-1].reshape(1, -1), targets_BT.reshape(1, -1)
    return TokenBatch(ids_1T, targets_1T, weights_BT.reshape(1, -1), Packed(tuple(lengths)))


@dataclass(frozen=True)
class HeldoutBatch:
    """A packed row of windows, and the bytes of text of the documents that end in it."""

    batch: TokenBatch
    bytes: int


def held_out(
    shards: TokenShards,
    *,
    length: int,
    rows: int = 1,
    overlap: int = 0,
    split: str = "heldout",
    sources: tuple[str, ...] | None = None,
    limit: int | None = None,
    device: str = "cpu",
) -> Iterator[HeldoutBatch]:
    """Every token of the held-out documents as a target exactly once: bits per byte are the summed losses of all
    batches / ln 2 / the sum of `bytes`.

    Each document is read by itself, after its begin token (or, where documents only have one behind them, that one; the
    first token of a document without either is no target). Windows of at most `length` tokens follow each other; the
    first `overlap` tokens of a later window repeat the end of the one before, as context that is not scored. About
    `rows * length` tokens make a batch. `limit` ends after the document with which so many tokens are reached.
    """
    if not 0 <= overlap < length:
        raise ValueError(f"an overlap of {overlap} in windows of {length}")
    coding = shards.coding
    lead = () if coding.begin is not None or coding.end is None else (coding.end,)
    parts: list[_Window] = []
    size = waiting = done = 0
    for document in Stream(shards, split, sources).each():
        ids = np.concatenate([np.array(lead, dtype=np.int64), document.ids.astype(np.int64)])
        for window in _windows(ids, length, overlap):
            if parts and size + len(window.ids) - 1 > rows * length:
                yield HeldoutBatch(_packed(parts, device), waiting)
                parts, size, waiting = [], 0, 0
            parts.append(window)
            size += len(window.ids) - 1
        waiting += document.bytes
        done += len(ids)
        if limit is not None and done >= limit:
            break
    if parts:
        yield HeldoutBatch(_packed(parts, device), waiting)


@dataclass(frozen=True, slots=True)
class _Window:
    """Ids with the last target, and how many targets at the start are context only."""

    ids: np.ndarray[Any, Any]
    context: int


def _windows(ids: np.ndarray[Any, Any], length: int, overlap: int) -> Iterator[_Window]:
    done = 1  # the first token has no target of its own
    while done < len(ids):
        context = min(overlap, done - 1)
        end = min(done + length - context, len(ids))
        yield _Window(ids[done - 1 - context : end], context)
        done = end


def _packed(windows: list[_Window], device: str) -> TokenBatch:
    weights = [np.arange(len(one.ids) - 1) >= one.context for one in windows]
    flat = [
        np.concatenate([one.ids[:-1] for one in windows]),
        np.concatenate([one.ids[1:] for one in windows]),
        np.concatenate(weights).astype(np.float32),
    ]
    ids, targets, weight = (torch.from_numpy(one)[None].to(device) for one in flat)
    return TokenBatch(ids, targets, weight, Packed(tuple(len(one.ids) - 1 for one in windows)))
