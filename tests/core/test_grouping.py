"""Items taken together in their order."""

import itertools
import random

from matura.core.grouping import filled, neighbours


def test_a_list_is_closed_by_what_fills_it_or_by_the_most_it_may_hold() -> None:
    assert list(filled([2, 3, 9, 1, 4, 1], 5, int)) == [[2, 3], [9], [1, 4], [1]]
    assert list(filled([2, 9, 1], 5, int)) == [[2, 9], [1]]
    assert list(filled([1, 1, 1, 7, 1], 5, int, 2)) == [[1, 1], [1, 7], [1]]
    assert list(filled([], 5, int)) == []


def test_neighbours_share_a_row_while_they_fit() -> None:
    assert list(neighbours([2, 3, 9, 1, 4, 1], 5, int)) == [[2, 3], [9], [1, 4], [1]]
    assert list(neighbours([], 5, int)) == []
    draw = random.Random(2)
    for _ in range(40):
        sizes = [draw.randrange(1, 20) for _ in range(50)]
        rows = list(neighbours(sizes, 12, int))
        assert [size for row in rows for size in row] == sizes
        assert all(sum(row) <= 12 or len(row) == 1 for row in rows)
        assert all(sum(row) + after[0] > 12 for row, after in itertools.pairwise(rows))


def test_neighbours_are_no_more_than_the_most_either() -> None:
    assert list(neighbours([1, 1, 1, 9, 1], 5, int, 2)) == [[1, 1], [1], [9], [1]]
