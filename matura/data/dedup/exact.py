"""Equal texts: the same letters and digits, whatever their case, punctuation and spacing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from matura.data.dedup.shingles import Hashes
from matura.data.split import fingerprint


def halves(text: str) -> tuple[int, int]:
    """The first 128 bits of the text's fingerprint (see matura.data.split), as two numbers."""
    digest = fingerprint(text)
    return int(digest[:16], 16), int(digest[16:32], 16)


def representatives(high: Hashes, low: Hashes) -> NDArray[np.int64]:
    """For each document the first one with the same hash; documents come in the order of preference."""
    order = np.lexsort((low, high))  # stable: documents with the same hash stay in order
    first = np.ones(len(order), bool)
    first[1:] = (high[order][1:] != high[order][:-1]) | (low[order][1:] != low[order][:-1])
    found = np.empty(len(order), np.int64)
    found[order] = order[np.flatnonzero(first)][np.cumsum(first) - 1]
    return found
