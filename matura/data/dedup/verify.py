"""The true Jaccard index of candidate pairs, from their sets of shingles on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from matura.core.errors import FormatError
from matura.data.dedup.bands import Ranks
from matura.data.dedup.shingles import Short

SHINGLES_AT_ONCE = 1 << 21

Shares = NDArray[np.float64]


class Shingles:
    """The shingles of all documents, by rank; files are mapped, so only what is compared takes memory."""

    def __init__(self, files: Sequence[Path], numbers: Ranks, offsets: Ranks, counts: Ranks) -> None:
        """`numbers`, `offsets`, `counts` tell by rank: which file, where in it, how many."""
        self._files = [_mapped(path) for path in files]
        self._numbers, self._offsets = numbers, offsets
        self.counts = counts

    def of(self, rank: int) -> Short:
        """The sorted shingles of one document."""
        start = self._offsets[rank]
        return self._files[self._numbers[rank]][start : start + self.counts[rank]]

    def jaccard(self, first: Ranks, second: Ranks, least: float = 0.0) -> Shares:
        """The index of each pair; 0 where the numbers of shingles alone say that it is below `least`."""
        found = np.zeros(len(first))
        small = np.minimum(self.counts[first], self.counts[second])
        large = np.maximum(self.counts[first], self.counts[second])
        open_ = np.flatnonzero((small > 0) & (small >= least * large))
        work = np.cumsum(self.counts[first[open_]] + self.counts[second[open_]])
        cuts = np.flatnonzero(np.diff(work // SHINGLES_AT_ONCE)) + 1
        for at in np.split(open_, cuts) if len(open_) else []:
            shared = self._shared(first[at], second[at])
            found[at] = shared / (self.counts[first[at]] + self.counts[second[at]] - shared)
        return found

    def _shared(self, first: Ranks, second: Ranks) -> Ranks:
        """How many shingles each pair has in common."""
        left, right = self._keyed(first), self._keyed(second)
        at = np.minimum(np.searchsorted(left, right), len(left) - 1)
        hits = right[left[at] == right] >> np.uint64(32)
        return np.bincount(hits.astype(np.int64), minlength=len(first))

    def _keyed(self, ranks: Ranks) -> NDArray[np.uint64]:
        """All their shingles, each behind the number of its pair: sorted, as both are."""
        numbers = np.repeat(np.arange(len(ranks), dtype=np.uint64), self.counts[ranks])
        values = np.concatenate([self.of(rank) for rank in ranks.tolist()])
        return numbers << np.uint64(32) | values.astype(np.uint64)


def _mapped(path: Path) -> Short:
    try:
        size = path.stat().st_size
        if size % 4:
            raise FormatError(f"{path} is cut off: {size} bytes are no whole number of shingles.")
        return np.asarray(np.memmap(path, "<u4", "r")) if size else np.empty(0, np.uint32)
    except OSError as error:
        raise FormatError(f"Cannot read shingles from {path}: {error.strerror}.") from error
