"""The documents of some sources as one endless row of tokens, read in pieces from mapped shards."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from matura.core.errors import MaturaError
from matura.data.shards import Ids, Numbers, Shard, TokenShards


@dataclass(frozen=True, slots=True)
class _Run:
    """Neighbouring documents of a shard: documents [first, last), tokens [begin, end)."""

    shard: Shard
    first: int
    last: int
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """One document: its ids with the tokens around it, and its bytes of text."""

    ids: Ids
    bytes: int


class Stream:
    """Documents of a split end to end, in the order of the corpus; after the last comes the first again.

    `sources` names those that belong to it (None: all). Raises MaturaError for a source that is not there. Only where
    sources alternate within a shard does it hold more than a few numbers for each shard.
    """

    def __init__(self, shards: TokenShards, split: str, sources: Collection[str] | None = None) -> None:
        known = shards.sources(split)
        if sources is not None and (unknown := sorted(set(sources) - set(known))):
            raise MaturaError(
                f"{shards.folder} has no source {unknown[0]!r} in {split!r} (it has: {', '.join(known) or 'none'})."
            )
        self._shards = shards
        wanted = set(known) if sources is None else set(sources)
        self._runs = [run for shard in shards.shards(split) for run in _runs(shards, shard, wanted)]
        self._starts = np.cumsum([0, *(run.end - run.begin for run in self._runs)])
        self.tokens = int(self._starts[-1])
        self.documents = sum(run.last - run.first for run in self._runs)

    def read(self, start: int, count: int) -> Ids:
        """Tokens [start, start + count), counted around the end; a copy."""
        ids = np.empty(count, self._shards.coding.dtype)
        at = 0
        for run, begin, end in self._pieces(start, count):
            ids[at : at + end - begin] = self._shards.open(run.shard).ids_N[begin:end]
            at += end - begin
        return ids

    def starts(self, start: int, count: int) -> Numbers:
        """Where documents begin in `read(start, count)`: positions in it, rising."""
        found = []
        at = 0
        for run, begin, end in self._pieces(start, count):
            ends_D = self._shards.open(run.shard).ends_D[
                run.first : run.last - 1
            ]  # where the next one begins
            # As uint64: another type of number would make numpy convert the whole column.
            first, last = np.searchsorted(ends_D, np.array([begin, end], np.uint64))
            if begin == run.begin:
                found.append(np.array([at]))
            found.append(ends_D[first:last].astype(np.int64) - begin + at)
            at += end - begin
        return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)

    def each(self) -> Iterator[StoredDocument]:
        """Every document once, in order."""
        for run in self._runs:
            mapped, begin = self._shards.open(run.shard), run.begin
            for i in range(run.first, run.last):
                end = int(mapped.ends_D[i])
                yield StoredDocument(np.array(mapped.ids_N[begin:end]), int(mapped.bytes_D[i]))
                begin = end

    def _pieces(self, start: int, count: int) -> Iterator[tuple[_Run, int, int]]:
        """(run, begin, end) in tokens of its shard, until `count` are covered."""
        at = start % self.tokens
        number = int(np.searchsorted(self._starts, at, side="right")) - 1
        while count:
            run = self._runs[number]
            begin = run.begin + at - int(self._starts[number])
            end = min(run.end, begin + count)
            if end > begin:
                yield run, begin, end
            count -= end - begin
            number = (number + 1) % len(self._runs)
            at = int(self._starts[number])


def _runs(shards: TokenShards, shard: Shard, wanted: set[str]) -> Iterator[_Run]:
    """The stretches of a shard that belong to the wanted sources."""
    names = list(shard.sources)
    if wanted.isdisjoint(names):
        return
    if wanted.issuperset(names):
        yield _Run(shard, 0, shard.documents, 0, shard.tokens)
        return
    mapped = shards.open(shard)
    chosen = np.isin(mapped.sources_D, [i for i, name in enumerate(names) if name in wanted])
    edges = np.flatnonzero(np.diff(chosen.astype(np.int8), prepend=0, append=0))
    for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        begin = int(mapped.ends_D[first - 1]) if first else 0
        yield _Run(shard, first, last, begin, int(mapped.ends_D[last - 1]))
