"""Pairs of a ranking: who was preferred to whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations

from matura.core.preferences import Answer, Pair, Ranking

Value = Callable[[Answer], float | None]


def value_of(ranking: Ranking) -> Value | None:
    """What orders the answers, more is better: ranks where two answers have one, else scores, else thumbs."""
    for value in (_rank, _score, _thumb):
        if sum(value(one) is not None for one in ranking.answers) >= 2:
            return value
    return None


def compared(ranking: Ranking) -> Iterator[tuple[Answer, Answer, int]]:
    """Every two judged answers, in their order, with 1 when the first was preferred, -1 the second, 0 neither."""
    value = value_of(ranking)
    judged = [(one, value(one)) for one in ranking.answers] if value else []
    known = [(one, worth) for one, worth in judged if worth is not None]
    for (one, left), (other, right) in combinations(known, 2):
        yield one, other, (left > right) - (left < right)


def of(ranking: Ranking) -> list[Pair]:
    """All pairs in which one answer was preferred: K(K-1)/2 of K answers ranked without ties.

    Ties, answers that nobody judged and equal texts make no pair. Weights of the pairs of one ranking sum to 1
    (InstructGPT, section 3.5: they depend on one another). The margin is how far the scores lie apart, where both have
    one and it agrees.
    """
    wins = [
        (one, other) if sign > 0 else (other, one)
        for one, other, sign in compared(ranking)
        if sign and one.text != other.text
    ]
    return [Pair(ranking, one, other, _margin(one, other), 1 / len(wins)) for one, other in wins]


def _margin(chosen: Answer, rejected: Answer) -> float | None:
    if chosen.score is None or rejected.score is None or chosen.score <= rejected.score:
        return None
    return chosen.score - rejected.score


def _rank(answer: Answer) -> float | None:
    return None if answer.rank is None else -answer.rank


def _score(answer: Answer) -> float | None:
    return answer.score


def _thumb(answer: Answer) -> float | None:
    return None if answer.liked is None else float(answer.liked)
