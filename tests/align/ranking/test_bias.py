"""The share of pairs that the answer shown earlier wins."""

import random
from dataclasses import replace

import pytest

from matura.align.ranking.bias import position_bias
from tests.align.ranking.made_rows import row


def judged(number, shown, ranks):
    made = row(number)
    answers = tuple(replace(one, rank=rank) for one, rank in zip(made.answers, ranks, strict=True))
    return replace(made, answers=answers, provenance={"shown": " ".join(map(str, shown))})


def test_one_who_always_takes_the_first_is_found():
    rows = [judged(0, (2, 0, 3, 1), (2, 4, 1, 3)) for _ in range(5)]
    found = position_bias(rows)
    assert (found.share, found.low, found.high, found.pairs) == (1, 1, 1, 30)
    assert found.best == (5, 0, 0, 0)
    assert found.biased


def test_ties_make_no_pair_and_share_the_best():
    found = position_bias([judged(0, (0, 1, 2, 3), (1, 1, 2, None))])
    assert found.pairs == 2
    assert found.best == (0.5, 0.5, 0)
    assert position_bias([judged(0, (0, 1, 2, 3), (1, 1, 1, 1))]) is None
    assert position_bias([row(0)]) is None


def test_one_who_reads_is_not_biased_and_the_interval_shrinks():
    draw, rows = random.Random(0), []
    for number in range(400):
        shown = draw.sample(range(4), 4)
        rows.append(judged(number, shown, (1, 2, 3, 4)))
    found = position_bias(rows)
    assert not found.biased
    assert found.high - found.low < 0.1
    assert found.share == pytest.approx(0.5, abs=0.05)
