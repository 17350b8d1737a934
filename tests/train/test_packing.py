"""Packing: every example once, rows that are full, and the same plan for the same seed."""

import random

from matura.train.packing import best_fit, plan_epoch


def slow_best_fit(sizes: list[int], capacity: int, order: list[int]) -> list[list[int]]:
    """The rule as it is said: look at every open row."""
    rows: list[list[int]] = []
    free: list[int] = []
    for i in order:
        fitting = [(room, r) for r, room in enumerate(free) if sizes[i] <= room]
        room, r = min(fitting, default=(capacity, len(rows)))
        if not fitting:
            rows.append([])
            free.append(0)
        rows[r].append(i)
        free[r] = room - sizes[i]
    return rows


def test_the_fullest_row_with_room_takes_the_next_one() -> None:
    assert best_fit([20, 25, 5, 10], 30, [0, 1, 2, 3]) == [[0, 3], [1, 2]]
    assert best_fit([30, 1], 30, [0, 1]) == [[0], [1]]
    assert best_fit([], 30, []) == []
    draw = random.Random(0)
    for _ in range(60):
        sizes = [draw.randrange(1, 40) for _ in range(60)]  # some are longer than a row
        order = draw.sample(range(60), 60)
        assert best_fit(sizes, 30, order) == slow_best_fit(sizes, 30, order)


def test_every_epoch_holds_every_example_once_however_long_it_is() -> None:
    """T11: what is longer than a row gets one of its own, instead of waiting for a fit that never comes."""
    draw = random.Random(1)
    sizes = [draw.randrange(1, 90) for _ in range(700)]
    for epoch in range(3):
        rows = plan_epoch(sizes, 60, f"7/{epoch}")
        assert sorted(i for row in rows for i in row) == list(range(700))
        for row in rows:
            assert len(row) == 1 or sum(sizes[i] for i in row) <= 60
    assert plan_epoch(sizes, 60, "7/0") == plan_epoch(sizes, 60, "7/0")
    assert plan_epoch(sizes, 60, "7/0") != plan_epoch(sizes, 60, "8/0")


def test_rows_are_nearly_full_and_in_no_order_of_length() -> None:
    draw = random.Random(2)
    sizes = [draw.randrange(10, 120) for _ in range(2000)]
    rows = plan_epoch(sizes, 256, "0/0")
    assert sum(sizes) / (len(rows) * 256) > 0.97
    longest = [max(sizes[i] for i in row) for row in rows]
    half = len(rows) // 2
    assert abs(sum(longest[:half]) / half - sum(longest[half:]) / (len(rows) - half)) < 6
    first = [i for row in rows[: len(rows) // 4] for i in row]
    assert max(first) - min(first) > 1900  # windows lie all over the data
