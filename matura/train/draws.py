"""Random numbers that depend on a seed and on the tokens they are for, never on when or on which rank they are drawn.

Every number is a hash of (seed, tokens of the sequence, position, stream), as in a counter-based generator. So a batch
of 8 rows and two of 4 draw the same for each row, and a resumed run draws again what it drew before.

Shape suffixes: N tokens end to end, S sequences.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

_STEP = 0x9E3779B97F4A7C15  # splitmix64's increment


def keys(ids_N: npt.NDArray[np.integer[Any]], lengths_S: Numbers, seed: int) -> Keys:
    """One key for each sequence, [S]: a hash of the seed and its tokens in their order. No sequence may be empty."""
    starts_S = np.cumsum(lengths_S) - lengths_S
    mixed_N = _mixed(ids_N.astype(np.uint64) + _mixed(positions(lengths_S).astype(np.uint64)))
    sums_S = np.add.reduceat(mixed_N, starts_S)
    return _mixed(sums_S ^ _mixed(np.array([seed], np.uint64)))


def positions(lengths_S: Numbers) -> Numbers:
    """The position of every token in its own sequence, [N]."""
    return np.arange(lengths_S.sum()) - np.repeat(np.cumsum(lengths_S) - lengths_S, lengths_S)


def uniform(keys: Keys, at: Numbers, stream: int) -> Floats:
    """Numbers in [0, 1), one for each pair of key and position `at` (they broadcast); streams are independent."""
    counters = at.astype(np.uint64) * np.uint64(_STEP)
    own = _mixed(keys + _mixed(np.array([stream + 1], np.uint64)))
    return (_mixed(own + counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(x: Keys) -> Keys:
    """The finalizer of splitmix64 (Steele, Lea and Flood, 2014): every bit of the input moves every bit of the output.

    Sums and products wrap around at 2^64."""
    x = x + np.uint64(_STEP)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
