"""Orders without memory: bijections, evenness, exact shares."""

import itertools

import pytest

from matura.train.order import Permutation, Rota, drawn


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 16, 17, 255, 256, 257, 1000, 5000])
def test_every_place_once(n: int) -> None:
    order = Permutation(n, "seed")
    assert sorted(map(order, range(n))) == list(range(n))


def test_large_ones_cost_nothing() -> None:
    order = Permutation(10**13, "seed")
    seen = {order(i) for i in range(2000)}
    assert len(seen) == 2000
    assert all(0 <= one < 10**13 for one in seen)
    with pytest.raises(IndexError):
        order(10**13)


def test_seeds_differ_and_agree() -> None:
    one, same, other = (list(map(Permutation(500, seed), range(500))) for seed in ("a", "a", "b"))
    assert one == same != other
    assert one != list(range(500))
    assert sum(a == b for a, b in zip(one, other, strict=True)) < 20


def test_it_is_mixed_as_well_as_chance() -> None:
    """Every pair of (tenth of origin, tenth of goal) holds its share: chi-square with 81 degrees of freedom."""
    n = 10_000
    order = Permutation(n, "mixed")
    counts = [[0] * 10 for _ in range(10)]
    for i in range(n):
        counts[10 * i // n][10 * order(i) // n] += 1
    expected = n / 100
    chi = sum((count - expected) ** 2 / expected for row in counts for count in row)
    assert 40 < chi < 135  # the middle 99.99% or so of the distribution; the identity gives 90,000
    neighbours = sum(order(i + 1) - order(i) == 1 for i in range(n - 1))
    assert neighbours < 10


def test_shares_are_kept_at_every_turn() -> None:
    rota = Rota([0.5, 0.3, 0.2])
    for turn in range(1, 2000):
        rota.next()
        for had, share in zip(rota.had, (0.5, 0.3, 0.2), strict=True):
            assert abs(had - share * turn) <= 1
    with pytest.raises(ValueError, match="positive"):
        Rota([1.0, 0.0])


def test_drawn_numbers_are_even() -> None:
    found = [drawn(f"{i}", 10) for i in range(5000)]
    counts = [len(list(group)) for _, group in itertools.groupby(sorted(found))]
    assert len(counts) == 10
    assert min(counts) > 400
