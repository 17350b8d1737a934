"""Text with parts taken away, for models that learn to put them back: masked tokens and corrupted spans.

What is taken from a sequence is decided by a hash of the seed and its tokens (see `train/draws.py`), so it does not
depend on the other rows, on the rank or on the step. A text that is read again is cut into rows at other places, so it
is corrupted anew in every epoch.

Shape suffixes: B rows, T tokens of a row, N tokens end to end (in a batch: targets), S sequences (in a pair: source
tokens), W words, K spans, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from matura.core.errors import ArtifactError, MaturaError
from matura.model.attention import Packed
from matura.tokenizer.tokenizer import Tokenizer
from matura.tokenizer.words import starts_word
from matura.train import draws
from matura.train.blocks import TokenBatch
from matura.train.draws import Keys, Numbers
from matura.train.mixture import Resumable
from matura.train.order import differences

SENTINEL = "<extra_id_{}>"
"""Names of the tokens that stand for a span that was taken out, counted from 0 (T5)."""

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class MaskedBatch:
    """Ids with some of them changed, where these are in the B*T tokens of all rows, and what stood there."""

    ids_BT: Tensor
    where_N: Tensor
    targets_N: Tensor
    weights_N: Tensor
    mask: Packed | Tensor | None = None

    @property
    def weight(self) -> float:
        """Sum of the loss weights."""
        return float(self.weights_N.sum())

    @property
    def tokens(self) -> int:
        """Tokens that run through the model."""
        return self.ids_BT.numel()


@dataclass(frozen=True)
class PairBatch:
    """What an encoder reads, and what a decoder reads (from its start token on) and is to say. Padding stands on the
    right: False in `source_mask_BS` (None: nothing is padded), weight 0 in `weights_BT`."""

    source_BS: Tensor
    source_mask_BS: Tensor | None
    ids_BT: Tensor
    targets_BT: Tensor
    weights_BT: Tensor

    @property
    def weight(self) -> float:
        """Sum of the loss weights."""
        return float(self.weights_BT.sum())

    @property
    def tokens(self) -> int:
        """Tokens that run through encoder and decoder, without padding."""
        source = self.source_BS.numel() if self.source_mask_BS is None else int(self.source_mask_BS.sum())
        return source + int((self.weights_BT > 0).sum())


@dataclass(frozen=True, eq=False)
class Masking:
    """Masked language modelling (BERT, arXiv:1810.04805, section 3.1).

    Of every sequence `share` of the tokens are targets, to within one word; where that falls between two whole numbers,
    the larger one is taken as often as makes the share exact in the mean. Of these, `masked` become `mask_id`, `random`
    one of `replacements`, and the rest stay. Tokens that are `special` are neither targets nor counted. With
    `starts_word_V`, words are taken as wholes, and each of their tokens gets its own fate.
    """

    mask_id: int
    special_V: Bools
    replacements: Numbers
    seed: int
    starts_word_V: Bools | None = None
    share: float = 0.15
    masked: float = 0.8
    random: float = 0.1

    def __call__(self, batch: TokenBatch) -> MaskedBatch:
        """The rows of `batch` with tokens masked; its targets and weights, which are the next tokens', play no part."""
        ids_N = batch.ids_BT.reshape(-1).cpu().numpy()
        lengths_S = _lengths(batch)
        keys_S = draws.keys(ids_N, lengths_S, self.seed)
        chosen_N = self._chosen(ids_N, lengths_S, keys_S)
        where_N = np.flatnonzero(chosen_N)
        keys_N = np.repeat(keys_S, lengths_S)[where_N]
        at_N = draws.positions(lengths_S)[where_N]
        fate_N = draws.uniform(keys_N, at_N, 2)
        drawn_N = (draws.uniform(keys_N, at_N, 3) * len(self.replacements)).astype(np.int64)
        targets_N = ids_N[where_N]
        seen_N = np.where(fate_N < self.masked + self.random, self.replacements[drawn_N], targets_N)
        seen_N = np.where(fate_N < self.masked, self.mask_id, seen_N)
        corrupted_N = ids_N.copy()
        corrupted_N[where_N] = seen_N
        ids, where, targets = (
            torch.from_numpy(x).to(batch.ids_BT.device) for x in (corrupted_N, where_N, targets_N)
        )
        weights = torch.ones(len(where), device=where.device)
        return MaskedBatch(ids.view(batch.ids_BT.shape), where, targets, weights, batch.mask)

    def _chosen(self, ids_N: Numbers, lengths_S: Numbers, keys_S: Keys) -> Bools:
        """The targets: each sequence's words in random order, as many as its budget allows."""
        row_N = np.repeat(np.arange(len(lengths_S)), lengths_S)
        at_N = draws.positions(lengths_S)
        open_N = ~self.special_V[ids_N]
        first_N = open_N.copy()
        if self.starts_word_V is not None:
            after_N = np.concatenate([[False], open_N[:-1]]) & (at_N > 0)  # a word may go on here
            first_N &= self.starts_word_V[ids_N] | ~after_N
        word_N = np.cumsum(first_N) - 1
        row_W, at_W = row_N[first_N], at_N[first_N]
        size_W = np.bincount(word_N[open_N], minlength=len(row_W))
        order_W = np.lexsort((draws.uniform(keys_S[row_W], at_W, 0), row_W))
        before_W = np.cumsum(size_W[order_W]) - size_W[order_W]
        tokens_S = np.bincount(row_N[open_N], minlength=len(lengths_S))
        before_W = before_W - np.repeat(
            np.cumsum(tokens_S) - tokens_S, np.bincount(row_W, minlength=len(lengths_S))
        )
        budget_S = self.share * tokens_S
        part_S = draws.uniform(keys_S, np.zeros(1, np.int64), 1)
        taken_W = np.zeros(len(row_W), dtype=bool)
        taken_W[order_W] = before_W + part_S[row_W] * size_W[order_W] < budget_S[row_W]
        return open_N & taken_W[word_N] if len(row_W) else open_N

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the masks, as JSON values."""
        return {
            "seed": self.seed,
            "share": self.share,
            "masked": self.masked,
            "random": self.random,
            "mask_id": self.mask_id,
            "whole_words": self.starts_word_V is not None,
        }


def masking(
    tokenizer: Tokenizer, vocabulary: int, seed: int, *, share: float = 0.15, whole_words: bool = False
) -> Masking:
    """Masking for a tokenizer and a model of `vocabulary` ids. Raises MaturaError without a mask token."""
    if tokenizer.mask_id is None:
        raise MaturaError(
            "this tokenizer has no mask token, so nothing can be masked: train one with a mask token, or choose "
            "another objective"
        )
    special_V = np.zeros(max(vocabulary, tokenizer.vocab_size), dtype=bool)
    special_V[list(tokenizer.special_ids)] = True
    known = [id for id in range(tokenizer.vocab_size) if tokenizer.token(id) is not None]
    replacements = np.array([id for id in known if not special_V[id]])
    words_V = None
    if whole_words:
        words_V = np.ones(len(special_V), dtype=bool)
        words_V[: tokenizer.vocab_size] = starts_word(tokenizer)
    return Masking(tokenizer.mask_id, special_V, replacements, seed, words_V, share)


@dataclass(frozen=True)
class Spans:
    """Span corruption (T5, arXiv:1910.10683, section 3.1.4).

    `density` of a row's tokens are taken out in spans of `mean` tokens in the mean. The source has a sentinel in place
    of each, the target every sentinel with what it stands for, and both an end token. All rows of one length give
    sources of one length, and targets too, so nothing is padded.
    """

    sentinels: tuple[int, ...]
    end_id: int
    start_id: int
    seed: int
    density: float = 0.15
    mean: float = 3.0

    def counts(self, length: int) -> tuple[int, int]:
        """(tokens taken out, spans) of a row. Raises MaturaError when it is too short or has too many spans."""
        noise = min(max(round(length * self.density), 1), length - 1)
        spans = min(max(round(noise / self.mean), 1), noise, length - noise)
        if spans < 1:
            raise MaturaError(f"a row of {length} tokens is too short to take a span out: use longer rows")
        if spans > len(self.sentinels):
            raise MaturaError(
                f"rows of {length} tokens have {spans} spans, and the tokenizer has {len(self.sentinels)} sentinels "
                f"({SENTINEL.format(0)}, ...): use shorter rows or longer spans, or a tokenizer with more of them"
            )
        return noise, spans

    def __call__(self, batch: TokenBatch) -> PairBatch:
        """Sources and targets of the rows of `batch`. Raises MaturaError for rows of several documents apart."""
        if batch.mask is not None:
            raise MaturaError(
                "span corruption wants rows of one length: join the documents (documents=joined)"
            )
        ids_BT = batch.ids_BT.cpu().numpy()
        B, T = ids_BT.shape
        noise, spans = self.counts(T)
        keys_B = draws.keys(ids_BT.reshape(-1), np.full(B, T), self.seed)
        gone_BT, begins_BT = _spans(keys_B, T, noise, spans)
        mark_BT = np.array(self.sentinels)[np.clip(np.cumsum(begins_BT, 1) - 1, 0, None)]
        source_BS = np.where(begins_BT, mark_BT, ids_BT)[~gone_BT | begins_BT].reshape(B, -1)
        # Each beginning twice: first as its sentinel, then as itself.
        twice_N = np.repeat(np.arange(B * T), (gone_BT.astype(int) + begins_BT).reshape(-1))
        sentinel_N = begins_BT.reshape(-1)[twice_N] & np.concatenate([[True], twice_N[1:] != twice_N[:-1]])
        target_BT = np.where(sentinel_N, mark_BT.reshape(-1)[twice_N], ids_BT.reshape(-1)[twice_N])
        end_B1 = np.full((B, 1), self.end_id)
        targets_BT = np.concatenate([target_BT.reshape(B, -1), end_B1], 1)
        start_B1 = np.full((B, 1), self.start_id)
        source, ids, targets = (
            torch.from_numpy(x).to(batch.ids_BT.device)
            for x in (
                np.concatenate([source_BS, end_B1], 1),
                np.concatenate([start_B1, targets_BT[:, :-1]], 1),
                targets_BT,
            )
        )
        return PairBatch(source, None, ids, targets, torch.ones(targets.shape, device=targets.device))

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the spans, as JSON values."""
        return {
            "seed": self.seed,
            "density": self.density,
            "mean": self.mean,
            "sentinels": list(self.sentinels),
        }


def _spans(keys_B: Keys, length: int, noise: int, spans: int) -> tuple[Bools, Bools]:
    """Which tokens are taken out, and which of them begin a span, [B, T]. A row begins with what is kept, and every way
    to divide the tokens into so many spans is equally likely."""
    kept_BK = _parts(keys_B, length - noise, spans, 0)
    gone_BK = _parts(keys_B, noise, spans, 1)
    ends_BK = np.stack([kept_BK, gone_BK], 2).reshape(len(keys_B), -1).cumsum(1)
    gone_BT, begins_BT = (np.zeros((len(keys_B), length), dtype=bool) for _ in range(2))
    np.put_along_axis(begins_BT, ends_BK[:, ::2], True, 1)
    turns_BT = np.zeros((len(keys_B), length), dtype=int)
    np.put_along_axis(turns_BT, ends_BK[:, :-1], 1, 1)
    np.equal(turns_BT.cumsum(1) % 2, 1, out=gone_BT)
    return gone_BT, begins_BT


def _parts(keys_B: Keys, total: int, parts: int, stream: int) -> Numbers:
    """`total` as a sum of `parts` whole numbers, each at least 1, [B, K]: cuts between neighbours, drawn evenly."""
    order = draws.uniform(keys_B[:, None], np.arange(total - 1)[None], stream).argsort(1)
    cuts = np.sort(order[:, : parts - 1], 1) + 1
    edges = np.zeros((len(keys_B), 1), int), cuts, np.full((len(keys_B), 1), total)
    return np.diff(np.concatenate(edges, 1), axis=1)


def spans(
    tokenizer: Tokenizer, start_id: int, seed: int, *, density: float = 0.15, mean: float = 3.0
) -> Spans:
    """Span corruption for a tokenizer and a model whose decoder starts with `start_id`. Raises MaturaError without
    sentinels or an end token."""
    sentinels: list[int] = []
    while (id := tokenizer.backend.token_to_id(SENTINEL.format(len(sentinels)))) is not None:
        sentinels.append(id)
    if not sentinels or tokenizer.eos_id is None:
        raise MaturaError(
            f"span corruption needs an end token and sentinels ({SENTINEL.format(0)}, {SENTINEL.format(1)}, ...), and "
            "this tokenizer lacks them: train one that has them"
        )
    return Spans(tuple(sentinels), tokenizer.eos_id, start_id, seed, density, mean)


class Corrupted:
    """Batches of `rows` (such as `TokenBatches`), corrupted. `state()` and `restore()` carry the position."""

    def __init__(self, rows: Resumable, corruption: Masking | Spans) -> None:
        self.rows, self.corruption = rows, corruption

    def __iter__(self) -> Iterator[MaskedBatch | PairBatch]:
        return self

    def __next__(self) -> MaskedBatch | PairBatch:
        return self.corruption(next(self.rows))

    def state(self) -> dict[str, Any]:
        """The position, as JSON values."""
        return {**self.corruption.identity, "rows": self.rows.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to a position that `state` gave. Raises ArtifactError when the corruption was another one."""
        if changed := differences(state, self.corruption.identity):
            raise ArtifactError(f"the checkpoint was made with another objective: {'; '.join(changed)}")
        self.rows.restore(state["rows"])


def _lengths(batch: TokenBatch) -> Numbers:
    """Tokens of every sequence: the rows, or those that a packed row lists."""
    if batch.mask is not None:
        return np.array(batch.mask.lengths)
    return np.full(batch.ids_BT.shape[0], batch.ids_BT.shape[1])
