"""Equal texts: the same letters and digits, whatever their case, punctuation and spacing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from matura.data.polynomials import Hashes


def halves(texts: Sequence[str], words: Sequence[bytes]) -> tuple[Hashes, Hashes]:
    """The first 128 bits of each text's fingerprint (see matura.data.split), as two numbers.

    `words` are of `spaced`: the letters and digits are what is in them.
    """
    digests = [_letters(text, spaced) for text, spaced in zip(texts, words, strict=True)]
    both = np.frombuffer(b"".join(digests), ">u8").reshape(-1, 4).astype(np.uint64)
    return both[:, 0], both[:, 1]


def _letters(text: str, spaced: bytes) -> bytes:
    letters = spaced.translate(None, b" _")
    if not letters.isascii():
        # In scripts without spaces a sign is a word too, but no letter.
        whole = letters.decode()
        for sign in set(whole):
            if not sign.isalnum():
                whole = whole.replace(sign, "")
        letters = whole.encode()
    return hashlib.sha256(letters or text.encode("utf-8", "surrogatepass")).digest()


def representatives(high: Hashes, low: Hashes) -> NDArray[np.int64]:
    """For each document the first one with the same hash; documents come in the order of preference."""
    order = np.lexsort((low, high))  # stable: documents with the same hash stay in order
    first = np.ones(len(order), bool)
    first[1:] = (high[order][1:] != high[order][:-1]) | (low[order][1:] != low[order][:-1])
    found = np.empty(len(order), np.int64)
    found[order] = order[np.flatnonzero(first)][np.cumsum(first) - 1]
    return found
