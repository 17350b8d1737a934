"""Numbers by seed and content: even, independent, and the same wherever a sequence stands."""

import numpy as np

from matura.train import draws


def some_ids(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1000, count)


def test_a_sequence_has_the_same_key_beside_any_others() -> None:
    ids = some_ids(30)
    together = draws.keys(ids, np.array([7, 13, 10]), seed=3)
    alone = [draws.keys(part, np.array([len(part)]), seed=3)[0] for part in np.split(ids, [7, 20])]
    assert together.tolist() == alone


def test_order_content_and_seed_change_the_key() -> None:
    ids = some_ids(20)
    whole = np.array([20])
    swapped = ids.copy()
    swapped[[3, 4]] = ids[[4, 3]]
    found = [draws.keys(x, whole, seed=s)[0] for x, s in ((ids, 0), (swapped, 0), (ids[::-1], 0), (ids, 1))]
    assert len(set(found)) == 4


def test_numbers_are_even_and_streams_independent() -> None:
    keys = draws.keys(some_ids(400), np.full(40, 10), seed=0)
    first, second = (draws.uniform(keys[:, None], np.arange(1000)[None], stream).ravel() for stream in (0, 1))
    counts = np.histogram(first, bins=20, range=(0, 1))[0]
    assert counts.sum() == 40_000
    assert ((counts - 2000) ** 2 / 2000).sum() < 43.8  # chi-square with 19 degrees of freedom, p = 0.001
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.02
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.02


def test_positions_start_anew_in_every_sequence() -> None:
    assert draws.positions(np.array([3, 1, 2])).tolist() == [0, 1, 2, 0, 0, 1]
