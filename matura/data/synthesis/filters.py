"""What is kept of a teacher's outputs: neither too long, nor copied, nor said before."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np

from matura.data.dedup.shingles import Hashes, Short, runs, word_hashes, words
from matura.data.split import fingerprint

SHINGLE = 3  # words


def _hashes(text: str) -> Short:
    return word_hashes([words(text)])[0]


def copied_share(text: str, document: str, length: int = 8) -> float:
    """Share of a text's words that stand in runs of at least `length` words which the document has too (0 to 1)."""
    ours = _hashes(text)
    hits = np.isin(runs(ours, length), runs(_hashes(document), length))
    covered = np.zeros(len(ours), bool)
    for start in np.flatnonzero(hits):
        covered[start : start + length] = True
    return float(covered.mean()) if len(ours) else 0.0


def longest_run(text: str, document: str) -> int:
    """Words of the longest run that both have. A run of n contains one of n - 1, so n is found by bisection."""
    ours, theirs = _hashes(text), _hashes(document)
    low, high = 0, min(len(ours), len(theirs))
    while low < high:
        middle = (low + high + 1) // 2
        if np.isin(runs(ours, middle), runs(theirs, middle)).any():
            low = middle
        else:
            high = middle - 1
    return low


def overlap(first: str, second: str) -> float:
    """F1 of the words of two answers, counted with repeats; 1 when they are equal but for case and punctuation."""
    if fingerprint(first) == fingerprint(second):
        return 1.0
    ours, theirs = Counter(words(first)), Counter(words(second))
    shared = (ours & theirs).total()
    return 2 * shared / (ours.total() + theirs.total()) if shared else 0.0


class Seen:
    """Outputs so far; tells of a new one whether it is a copy, exact or near.

    Near means a Jaccard similarity of the sets of 3-word runs of at least `near`. Two sets that similar share an
    element among the first n - ceil(near * n) + 1 of each in a common order (prefix filtering, Chaudhuri et al. 2006),
    so only texts with such an element are compared, and no pair is missed.
    """

    def __init__(self, near: float) -> None:
        self.near = near
        self._exact: dict[str, str] = {}
        self._sets: list[tuple[str, Hashes]] = []
        self._first: defaultdict[int, list[int]] = defaultdict(list)

    def copy_of(self, identity: str, text: str) -> tuple[str, str] | None:
        """("exact" or "near", id of the earlier output), or None: then it is remembered."""
        exact = fingerprint(text)
        if exact in self._exact:
            return "exact", self._exact[exact]
        mine = np.unique(runs(_hashes(text), SHINGLE))
        prefix = mine[: len(mine) - math.ceil(self.near * len(mine) - 1e-9) + 1].tolist()
        for number in sorted({n for value in prefix for n in self._first[value]}):
            other, theirs = self._sets[number]
            shared = len(np.intersect1d(mine, theirs, assume_unique=True))
            if shared >= self.near * (len(mine) + len(theirs) - shared):
                return "near", other
        self._exact[exact] = identity
        for value in prefix:
            self._first[value].append(len(self._sets))
        self._sets.append((identity, mine))
        return None
