"""Candidate pairs: documents that share a band of their MinHash signatures (Broder 1997; Leskovec et al., 3.4)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from matura.data.polynomials import Hashes

SMALL = 32
"""Documents in a bucket up to which every pair is a candidate."""
NEAR = 8
"""In a larger bucket each document is compared with the first NEAR of the bucket and with the NEAR before it."""

Ranks = NDArray[np.int64]
Flags = NDArray[np.bool_]


def candidates(keys: Hashes, ranks: Ranks, settled: Flags, references: int) -> Hashes:
    """Pairs of ranks as first << 32 | second, first < second, sorted, each once.

    `keys` are the documents' keys of one band, `ranks` their place in the order of preference. `settled` tells by
    rank which documents already go for a better one: these leave the large buckets, so that thousands of copies of
    one form do not cost thousands of comparisons in every band. Pairs within the first `references` ranks are left
    out. The number of pairs is at most 16 or so for each document.
    """
    order = np.lexsort((ranks, keys))
    keys, ranks = keys[order], ranks[order]
    starts, sizes = _buckets(keys)
    place = np.arange(len(keys)) - starts
    stays = (sizes > 1) & ((sizes <= SMALL) | ~settled[ranks] | (place < NEAR))
    keys, ranks = keys[stays], ranks[stays]
    small = sizes[stays] <= SMALL
    starts, _ = _buckets(keys)
    firsts, seconds = [], []
    for distance in range(1, SMALL):
        at = np.flatnonzero(keys[distance:] == keys[:-distance])
        if distance > NEAR:
            at = at[small[at]]
        firsts.append(ranks[at])
        seconds.append(ranks[at + distance])
    for place_of_first in range(NEAR):
        first = starts + place_of_first
        at = np.flatnonzero(~small & (first < np.arange(len(keys))))
        firsts.append(ranks[first[at]])
        seconds.append(ranks[at])
    first, second = np.concatenate(firsts), np.concatenate(seconds)
    new = second >= references
    return np.unique(pack(first[new], second[new]))


def pack(first: Ranks, second: Ranks) -> Hashes:
    """Two ranks as one number, which sorts as the pair does."""
    return first.astype(np.uint64) << np.uint64(32) | second.astype(np.uint64)


def unpack(pairs: Hashes) -> tuple[Ranks, Ranks]:
    """The ranks of `pack`."""
    return (pairs >> np.uint64(32)).astype(np.int64), (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)


def _buckets(keys: Hashes) -> tuple[Ranks, Ranks]:
    """Of each of the sorted keys: where its bucket starts, and how many are in it."""
    changes = np.ones(len(keys), bool)
    changes[1:] = keys[1:] != keys[:-1]
    starts = np.flatnonzero(changes)
    number = np.cumsum(changes) - 1
    sizes = np.diff(np.append(starts, len(keys)))
    return starts[number], sizes[number]
