"""Pairs of rankings: how many, which, and that a prompt counts once (T19)."""

import random

import pytest

from matura.core.preferences import Answer, Ranking
from matura.data.preferences import pairs


def ranking(*answers: Answer) -> Ranking:
    return Ranking("r", ({"role": "user", "content": "q"},), answers)


def told(row: Ranking) -> set[tuple[str, str]]:
    return {(one.chosen.text, one.rejected.text) for one in pairs.of(row)}


@pytest.mark.parametrize("size", [2, 3, 4, 9])
def test_four_ranks_make_six_pairs_whose_weights_sum_to_one(size: int) -> None:
    """T19: pairs of one prompt depend on each other and count once together."""
    answers = [Answer(str(n), rank=n) for n in range(1, size + 1)]
    random.Random(size).shuffle(answers)
    found = pairs.of(ranking(*answers))
    assert len(found) == size * (size - 1) // 2
    assert sum(one.weight for one in found) == pytest.approx(1)
    assert len({one.weight for one in found}) == 1
    assert all(int(one.chosen.text) < int(one.rejected.text) for one in found)
    assert len({(one.chosen.text, one.rejected.text) for one in found}) == len(found)


def test_ties_and_skipped_answers_make_no_pair() -> None:
    row = ranking(Answer("a", 1), Answer("b", 2), Answer("c", 2), Answer("d"))
    assert told(row) == {("a", "b"), ("a", "c")}
    assert [one.weight for one in pairs.of(row)] == [0.5, 0.5]
    assert pairs.of(ranking(Answer("a", 1), Answer("b", 1))) == []
    assert pairs.of(ranking(Answer("a", 1), Answer("b"))) == []
    assert pairs.of(ranking()) == []


def test_ranks_come_before_scores_and_scores_before_thumbs() -> None:
    row = ranking(Answer("a", 1, 0.0, False), Answer("b", 2, 9.0, True))
    assert told(row) == {("a", "b")}
    assert pairs.of(row)[0].margin is None  # the scores say otherwise
    row = ranking(Answer("a", 1, 1.0, True), Answer("b", None, 9.0, False))
    assert told(row) == {("b", "a")}
    assert pairs.of(row)[0].margin == 8.0
    row = ranking(Answer("a", None, 1.0, True), Answer("b", liked=False), Answer("c", liked=True))
    assert told(row) == {("a", "b"), ("c", "b")}


def test_equal_texts_make_no_pair() -> None:
    assert told(ranking(Answer("a", 1), Answer("a", 2), Answer("b", 3))) == {("a", "b")}
    assert [one.weight for one in pairs.of(ranking(Answer("a", 1), Answer("a", 2), Answer("b", 3)))] == [
        0.5,
        0.5,
    ]


def test_margins_are_how_far_scores_lie_apart() -> None:
    row = ranking(Answer("a", score=1.5), Answer("b", score=-1.0), Answer("c", score=1.5))
    assert {(one.chosen.text, one.margin) for one in pairs.of(row)} == {("a", 2.5), ("c", 2.5)}
