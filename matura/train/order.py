"""Orders that need no memory: a shuffle of any number of things as a function, and a fair rota of sources."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

ROUNDS = 6
_MASK = (1 << 64) - 1


class Permutation:
    """A bijection of range(n), seeded: element i of a shuffled range(n) without the other n - 1.

    A balanced Feistel network over the smallest 2^(2h) >= n, walked until the value is below n again (Black and
    Rogaway, "Ciphers with arbitrary finite domains", 2002, methods 2 and 3); fewer than four steps on average.
    """

    def __init__(self, n: int, seed: str) -> None:
        if n < 1:
            raise ValueError(f"a permutation of {n} things")
        self.n = n
        self._half = max(1, ((n - 1).bit_length() + 1) // 2)
        self._low = (1 << self._half) - 1
        digest = hashlib.blake2b(seed.encode(), digest_size=8 * ROUNDS).digest()
        self._keys = [int.from_bytes(digest[8 * i : 8 * i + 8], "little") for i in range(ROUNDS)]

    def __call__(self, i: int) -> int:
        """Where i goes. Raises IndexError outside range(n)."""
        if not 0 <= i < self.n:
            raise IndexError(i)
        while (i := self._network(i)) >= self.n:
            pass
        return i

    def _network(self, i: int) -> int:
        left, right = i >> self._half, i & self._low
        for key in self._keys:
            left, right = right, left ^ (_mix(right + key) & self._low)
        return left << self._half | right


def _mix(x: int) -> int:
    """The finalizer of splitmix64 (Steele, Lea and Flood, 2014): each bit of x moves each bit of the result."""
    x &= _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def drawn(seed: str, below: int) -> int:
    """A number in range(below) that depends on the seed alone."""
    return int.from_bytes(hashlib.blake2b(seed.encode(), digest_size=8).digest(), "little") % below


class Rota:
    """Whose turn it is: after any number of turns, each has had its share of them to within one.

    The next turn goes to the one that is furthest behind its share. Whole numbers only, so every machine agrees.
    """

    SCALE = 1 << 32

    def __init__(self, shares: Sequence[float]) -> None:
        total = sum(shares)
        if not shares or min(shares) <= 0:
            raise ValueError(f"shares must be positive: {list(shares)}")
        self.shares = [max(1, round(share / total * self.SCALE)) for share in shares]
        self.had = [0] * len(shares)

    def next(self) -> int:
        """The index of the one whose turn it is."""
        turn, total = sum(self.had) + 1, sum(self.shares)
        behind = [share * turn - had * total for share, had in zip(self.shares, self.had, strict=True)]
        chosen = behind.index(max(behind))
        self.had[chosen] += 1
        return chosen


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What changed between two records with the same keys, for a message."""
    return [
        f"{key} was {old.get(key)!r} and is {value!r}" for key, value in new.items() if old.get(key) != value
    ]
