"""How far annotators agree: by hand, against a plain formula, at chance, and whatever the order of answers."""

import random
from itertools import combinations

import pytest

from matura.core.preferences import Answer, Ranking
from matura.data.preferences import agreement
from tests.data.preferences.rows import said


def ranking(prompt: str, annotator: str, ranks: dict[str, int | None]) -> Ranking:
    answers = tuple(Answer(text, rank) for text, rank in ranks.items())
    return Ranking(f"{prompt}-{annotator}", (said("user", prompt),), answers, annotator=annotator)


def of(*rows: Ranking) -> agreement.Agreement:
    found = agreement.of(rows)
    assert found is not None
    return found


def test_by_hand() -> None:
    ann = ranking("p", "ann", {"a": 1, "b": 2, "c": 3})
    bob = ranking("p", "bob", {"c": 2, "a": 1, "b": 3})  # b and c the other way
    found = of(ann, bob)
    assert (found.prompts, found.annotators, found.judgements, found.strict) == (1, 2, 3, 3)
    assert found.share == pytest.approx(2 / 3)
    assert found.tau == pytest.approx(1 / 3)
    assert found.between == {("ann", "bob"): (2 / 3, 3)}


def test_perfect_opposite_and_chance() -> None:
    same = [ranking(str(n), who, {"a": 1, "b": 2}) for n in range(20) for who in ("ann", "bob")]
    assert (of(*same).share, of(*same).alpha, of(*same).tau) == (1, 1, 1)
    against = [
        ranking(str(n), who, {"a": 1 + i, "b": 2 - i}) for n in range(20) for i, who in enumerate(("x", "y"))
    ]
    assert of(*against).share == 0
    assert of(*against).alpha == pytest.approx(-1, abs=0.05)
    draw, rows = random.Random(0), []
    for n in range(400):
        for who in ("ann", "bob", "cid"):
            ranks = draw.sample([1, 2, 3, 4], 4)
            rows.append(ranking(str(n), who, dict(zip("abcd", ranks, strict=True))))
    found = of(*rows)
    assert found.share == pytest.approx(0.5, abs=0.02)
    assert found.alpha == pytest.approx(0, abs=0.04)
    assert found.tau == pytest.approx(0, abs=0.04)


def test_ties_are_half_way_and_no_strict_pair() -> None:
    found = of(ranking("p", "ann", {"a": 1, "b": 2}), ranking("p", "bob", {"a": 1, "b": 1}))
    assert (found.judgements, found.strict, found.share, found.tau) == (1, 0, None, None)
    assert found.between == {}
    tied = [ranking(str(n), who, {"a": 1, "b": 1}) for n in range(3) for who in ("ann", "bob")]
    assert of(*tied).alpha is None
    rows = [ranking(str(n), "ann", {"a": 1, "b": 2, "c": 3}) for n in range(9)]
    near = [ranking(str(n), "bob", {"a": 1, "b": 2, "c": 2}) for n in range(9)]
    far = [ranking(str(n), "bob", {"a": 1, "b": 3, "c": 2}) for n in range(9)]
    alphas = [of(*rows, *other).alpha for other in (rows_of(rows, "bob"), near, far)]
    same, close, apart = (one if one is not None else -9 for one in alphas)
    assert 1 == same > close > apart > -1


def rows_of(rows: list[Ranking], annotator: str) -> list[Ranking]:
    return [
        ranking(one.messages[0]["content"], annotator, {a.text: a.rank for a in one.answers}) for one in rows
    ]


def test_answers_are_matched_by_their_texts_whatever_their_order_and_number() -> None:
    draw, rows, moved = random.Random(1), [], []
    for n in range(30):
        for who in ("ann", "bob", "cid"):
            ranks = {text: draw.choice([1, 2, 3, None]) for text in draw.sample("abcde", draw.randint(2, 5))}
            rows.append(ranking(str(n), who, ranks))
            moved.append(ranking(str(n), who, dict(draw.sample(list(ranks.items()), len(ranks)))))
    assert of(*rows) == of(*moved)
    assert of(*rows).judgements == sum(
        len(ranked(one) & ranked(other)) * (len(ranked(one) & ranked(other)) - 1) // 2
        for n in range(30)
        for one, other in combinations(rows[3 * n : 3 * n + 3], 2)
    )


def ranked(row: Ranking) -> set[str]:
    return {one.text for one in row.answers if one.rank is not None}


def test_who_counts() -> None:
    rows = [ranking("p", "", {"a": 1, "b": 2}), ranking("p", "", {"a": 2, "b": 1})]
    assert agreement.of(rows) is None  # nobody knows whether these are two
    assert (
        agreement.of([ranking("p", "ann", {"a": 1, "b": 2}), ranking("q", "bob", {"a": 1, "b": 2})]) is None
    )
    again = [*rows, ranking("p", "ann", {"a": 2, "b": 1}), ranking("p", "ann", {"a": 1, "b": 2})]
    assert of(*again, ranking("p", "bob", {"a": 1, "b": 2})).share == 1  # ann's last word


def test_alpha_of_a_published_example() -> None:
    """Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section D: interval data, alpha = 0.849."""
    observers = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    ]
    units = [[one for one in unit if one is not None] for unit in zip(*observers, strict=True)]
    assert agreement.alpha(units) == pytest.approx(0.849, abs=0.0005)
    assert agreement.alpha([]) is None


def test_those_who_agree_least_are_named_first() -> None:
    rows = [ranking("p", who, {"a": 1, "b": 2}) for who in ("ann", "bob")]
    told = agreement.describe(of(*rows, ranking("p", "cid", {"a": 2, "b": 1})))
    assert told[0].startswith("3 annotators judged 1 prompts together: 33.3% of 3 pairs in the same order")
    assert told[1:] == ["ann and cid: 0.0% of 1", "bob and cid: 0.0% of 1", "ann and bob: 100.0% of 1"]
