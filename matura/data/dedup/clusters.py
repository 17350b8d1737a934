"""Which document of similar ones stays.

Documents are ranks here, the one to keep first. Going through them in that order, a document is dropped if it is
similar to one that stays. So every dropped document has a kept one that is truly similar: joining everything that hangs
together (connected components) would also drop the far end of a chain of small changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Literal

import numpy as np

from matura.data.dedup.bands import Ranks, unpack
from matura.data.dedup.verify import Shares
from matura.data.polynomials import Hashes

Kind = Literal["exact", "near"]
OTHERS = 16
"""Kept documents with which one is compared that is similar to dropped ones only."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Why a document is dropped: the document kept in its place, and their true Jaccard index.

    "exact" means the same letters (the Jaccard index is then given as 1). `reference` tells that the kept document
    belongs to the reference and not to the corpus at hand.
    """

    kept: str
    jaccard: float
    kind: Kind
    reference: bool = False


@dataclass(slots=True)
class Duplicates:
    """`drop`: id of a document to drop -> why. `clusters`: how many documents a kept one stands for, itself included
    -> how often that is so; documents without duplicates are not counted."""

    drop: dict[str, Pair] = field(default_factory=dict)
    clusters: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Edges:
    """Verified pairs, sorted by `pack`: rank `first` < rank `second`, and their Jaccard index."""

    pairs: Hashes
    jaccard: Shares

    def joined(self, pairs: Hashes, jaccard: Shares) -> Edges:
        """With more of them, which are new."""
        both = np.concatenate([self.pairs, pairs])
        order = np.argsort(both)
        return Edges(both[order], np.concatenate([self.jaccard, jaccard])[order])


def no_edges() -> Edges:
    return Edges(np.empty(0, np.uint64), np.empty(0))


def keepers(
    edges: Edges, count: int, compare: Callable[[Ranks, Ranks], Shares], least: float
) -> tuple[Ranks, Shares]:
    """By rank: the kept document that a document goes for (itself if it stays), and their Jaccard index.

    Of several the most similar one, then the better one. A document that is similar to dropped ones only is compared
    with those that stay for them: banding had no reason to. Ranks of a reference have no edges among each other, so
    they all stay.
    """
    keeper, share = list(range(count)), np.ones(count)
    first, second = unpack(edges.pairs)
    order = np.lexsort((first, -edges.jaccard, second))
    rows = zip(first[order].tolist(), second[order].tolist(), edges.jaccard[order].tolist(), strict=True)
    # In this order every better document is decided before it is asked for.
    for worse, found in groupby(rows, key=itemgetter(1)):
        pairs = [(better, jaccard) for better, _, jaccard in found]
        stays = [(better, jaccard) for better, jaccard in pairs if keeper[better] == better]
        if not stays:
            others = np.array(sorted({keeper[better] for better, _ in pairs})[:OTHERS])
            shares = compare(others, np.full(len(others), worse))
            best = int(np.argmax(shares))
            stays = [(int(others[best]), float(shares[best]))] if shares[best] >= least else []
        if stays:
            keeper[worse], share[worse] = stays[0]
    return np.array(keeper, np.int64), share
