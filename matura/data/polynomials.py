"""Hashes of runs of any length, from prefix sums of a polynomial modulo 2**64 (Karp and Rabin 1987)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

BASE = 0x9E3779B97F4A7C15  # odd, so that its powers have inverses modulo 2**64
INVERSE = pow(BASE, -1, 1 << 64)
_KEPT = 1 << 20  # powers of a base that are kept

Hashes = NDArray[np.uint64]


def mixed(values: Hashes) -> Hashes:
    """Each value with its bits spread over all 64 (the finaliser of SplitMix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def powers(base: int, count: int) -> Hashes:
    return _kept_powers(base)[:count] if count <= _KEPT else _made_powers(base, count)


@lru_cache
def _kept_powers(base: int) -> Hashes:
    return _made_powers(base, _KEPT)


def _made_powers(base: int, count: int) -> Hashes:
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    return np.multiply.accumulate(factors)
