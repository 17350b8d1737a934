"""Pairs of source and target (translation, any task from text to text) to batches of similar lengths.

Shape suffixes: B pairs, S source tokens, T target tokens.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from matura.core.errors import ArtifactError, MaturaError
from matura.core.records import CUT, Conversation
from matura.tokenizer.tokenizer import Tokenizer
from matura.train.corrupt import PairBatch
from matura.train.order import differences


@dataclass(frozen=True, slots=True)
class Pair:
    """Token ids of what is read and of what is to be said, each with its end token."""

    source: tuple[int, ...]
    target: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """Pairs, and how many sources were cut, targets were too long, and rows were no question with an answer."""

    pairs: tuple[Pair, ...]
    cut: int = 0
    long: int = 0
    others: int = 0


def from_conversations(
    conversations: Iterable[Conversation], tokenizer: Tokenizer, *, source: int, target: int
) -> Reading:
    """The first message of a user and the assistant's answer to it, each followed by the end token.

    A source of more than `source` tokens is cut to its beginning; a pair whose target has more than `target` is left
    out, since a half answer would teach to stop too early. An answer marked as cut (`records.CUT`) has no end token.
    Raises MaturaError when the tokenizer has no end token or no pair is left.
    """
    end = tokenizer.eos_id
    if end is None:
        raise MaturaError(
            "this tokenizer has no end token, so a decoder would never stop: train one that has"
        )
    found = [_exchange(row) for row in conversations]
    exchanges = [one for one in found if one is not None]
    sources = tokenizer.encode_batch([one[0] for one in exchanges])
    targets = tokenizer.encode_batch([one[1] for one in exchanges])
    pairs, cut, long = [], 0, 0
    for ids, said, (_, _, whole) in zip(sources, targets, exchanges, strict=True):
        said = [*said, end] if whole else said
        if not said or len(said) > target:
            long += 1
            continue
        cut += len(ids) >= source
        pairs.append(Pair((*ids[: source - 1], end), tuple(said)))
    if not pairs:
        raise MaturaError(
            f"no pairs to learn from: {len(found)} rows, of which {len(found) - len(exchanges)} are no question with "
            f"an answer and {long} have an answer of more than {target} tokens"
        )
    return Reading(tuple(pairs), cut, long, len(found) - len(exchanges))


def _exchange(row: Conversation) -> tuple[str, str, bool] | None:
    """(question, answer, whether it is whole) of the first exchange in a conversation."""
    asked: str | None = None
    for message in row.messages:
        if message["role"] == "user" and asked is None:
            asked = message["content"]
        elif message["role"] == "assistant" and asked is not None:
            return asked, message["content"], not CUT.items() <= message.items()
    return None


def pad(
    pairs: Sequence[Pair], *, start: int, padding: int, real: int | None = None, device: str = "cpu"
) -> PairBatch:
    """A batch of pairs, padded on the right; only the first `real` of them count (None: all)."""
    sources = [torch.tensor(pair.source) for pair in pairs]
    targets = [torch.tensor(pair.target) for pair in pairs]
    source_BS, targets_BT = (
        torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding)
        for rows in (sources, targets)
    )
    source_mask_BS = _real(sources, source_BS.shape[1])
    weights_BT = _real(targets, targets_BT.shape[1]).float()
    weights_BT[len(pairs) if real is None else real :] = 0.0
    ids_BT = torch.cat([torch.full((len(pairs), 1), start), targets_BT[:, :-1]], 1)
    mask = None if bool(source_mask_BS.all()) else source_mask_BS.to(device)
    return PairBatch(source_BS.to(device), mask, *(x.to(device) for x in (ids_BT, targets_BT, weights_BT)))


def _real(rows: Sequence[Tensor], longest: int) -> Tensor:
    lengths_B = torch.tensor([len(row) for row in rows])
    return torch.arange(longest)[None] < lengths_B[:, None]


class PairBatches:
    """An endless iterator of batches for rank `rank` of `world`, every epoch shuffled anew.

    Pairs are planned in groups of similar lengths, of at most `tokens` padded tokens (a longer pair is a group of its
    own). A group is dealt into `shares` batches; the ranks take the next ones in turn. So where an update takes whole
    groups, any number of ranks and batches sees the same pairs in it. A share without a pair counts nothing.

    `start` is the first token that the decoder reads, `padding` any id (it is never seen).
    """

    WINDOW = 4096
    """Pairs sorted by length at a time: enough for batches of similar lengths, few enough to keep the order random."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        tokens: int,
        start: int,
        seed: int,
        padding: int = 0,
        shares: int = 1,
        rank: int = 0,
        world: int = 1,
        device: str = "cpu",
    ) -> None:
        """Raises ValueError for no pairs, and for a rank outside of the world."""
        if not pairs or not 0 <= rank < world:
            raise ValueError(f"{len(pairs)} pairs for rank {rank} of {world}")
        self.pairs, self.tokens, self.seed = pairs, tokens, seed
        self._start, self._padding, self._device = start, padding, device
        self._shares, self._rank, self._world = shares, rank, world
        self._identity = {"pairs": _fingerprint(pairs), "tokens": tokens, "seed": seed}
        self._epoch, self._next, self._dealt = 0, 0, 0
        self._plan = self._planned(0)

    def __iter__(self) -> Iterator[PairBatch]:
        return self

    def __next__(self) -> PairBatch:
        group, mine = [self._share() for _ in range(self._world)][self._rank]
        chosen = [self.pairs[i] for i in mine or group[:1]]
        return pad(chosen, start=self._start, padding=self._padding, real=len(mine), device=self._device)

    def _share(self) -> tuple[list[int], list[int]]:
        """The group whose turn it is, and its next share."""
        if self._next == len(self._plan):
            self._epoch, self._next = self._epoch + 1, 0
            self._plan = self._planned(self._epoch)
        group = self._plan[self._next]
        share = group[self._dealt :: self._shares]
        done, self._dealt = divmod(self._dealt + 1, self._shares)
        self._next += done
        return group, share

    @property
    def mean_tokens(self) -> float:
        """Tokens of an average group, without padding."""
        total = sum(len(pair.source) + len(pair.target) for pair in self.pairs)
        return total / len(self._planned(0))

    @property
    def epochs(self) -> float:
        """How often the pairs have been seen, as a fraction."""
        return self._epoch + self._next / len(self._plan)

    def state(self) -> dict[str, Any]:
        """The position, as JSON values; the same on every rank, and it fits any number of ranks and shares. (A group
        of which some shares are dealt, as may be where objectives take turns, is dealt again in other shares.)"""
        dealt = [self._dealt, self._shares] if self._dealt else []
        return {**self._identity, "epoch": self._epoch, "next": self._next, "dealt": dealt}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to a position that `state` gave. Raises ArtifactError for other pairs, tokens or seed."""
        if changed := differences(state, self._identity):
            raise ArtifactError(f"the checkpoint was made with other data: {'; '.join(changed)}")
        self._epoch, self._next = state["epoch"], state["next"]
        done, shares = state.get("dealt") or (0, 0)
        self._dealt = done if shares == self._shares else 0
        self._plan = self._planned(self._epoch)

    def _planned(self, epoch: int) -> list[list[int]]:
        order = list(range(len(self.pairs)))
        shuffler = random.Random(f"{self.seed}/{epoch}")
        shuffler.shuffle(order)
        groups: list[list[int]] = []
        for start in range(0, len(order), self.WINDOW):
            groups += self._groups(order[start : start + self.WINDOW])
        shuffler.shuffle(groups)
        return groups

    def _groups(self, window: list[int]) -> list[list[int]]:
        """Neighbours in length, as many as fit into `tokens` when they are padded to the longest."""
        groups: list[list[int]] = []
        longest = (0, 0)
        for i in sorted(window, key=lambda i: (len(self.pairs[i].source), len(self.pairs[i].target))):
            pair = self.pairs[i]
            wider = max(longest[0], len(pair.source)), max(longest[1], len(pair.target))
            if groups and sum(wider) * (len(groups[-1]) + 1) <= self.tokens:
                groups[-1].append(i)
                longest = wider
            else:
                groups.append([i])
                longest = len(pair.source), len(pair.target)
        return groups


def _fingerprint(pairs: Sequence[Pair]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for pair in pairs:
        digest.update(repr((pair.source, pair.target)).encode())
    return digest.hexdigest()
