"""Several answers of one row with what is thought of each."""

from typing import Any

import pytest

from matura.core.errors import FormatError
from matura.core.preferences import MAX_ANSWERS, Answer
from matura.data.preferences import candidates

GOOD: list[tuple[dict[str, Any], list[Answer]]] = [
    ({"completions": [{"model": "m", "response": "a", "overall_score": 7.5, "annotations": {}}, {"response": ""}]},
     [Answer("a", score=7.5, source="m"), Answer("")]),
    ({"answers": [{"answer": "a", "rank": 1.0}, {"answer": "b", "rank": 2, "score": 3}]},
     [Answer("a", 1), Answer("b", 2, 3.0)]),
    ({"responses": ["a", "b"], "scores": [1, None]}, [Answer("a", score=1.0), Answer("b")]),
    ({"responses": ["a", "b"], "ranks": [2, 1], "labels": [True, False]},
     [Answer("a", 2, liked=True), Answer("b", 1, liked=False)]),
    ({"question": "q", "small": {"solution": "a", "is_correct": True}, "large": {"text": "b", "liked": False}, "n": {}},
     [Answer("a", liked=True, source="small"), Answer("b", liked=False, source="large")]),
]  # fmt: skip


@pytest.mark.parametrize(("row", "wanted"), GOOD)
def test_answers_in_every_shape(row: dict[str, Any], wanted: list[Answer]) -> None:
    assert candidates.has(row)
    assert list(candidates.answers(row)) == wanted


BAD: list[tuple[dict[str, Any], str]] = [
    ({"completions": []}, "completions: expected a list of answers"),
    ({"completions": ["a", "b"]}, "nothing says which answer is better; known are overall_score"),
    (
        {"completions": [{"response": "a", "score": "8"}]},
        r"completions\[0\].score: expected a number, found '8'",
    ),
    ({"completions": [{"response": "a", "score": float("nan")}]}, "expected a finite number"),
    ({"completions": [{"response": "a", "score": 10**400}]}, "expected a finite number"),
    ({"completions": [{"response": "a", "rank": 0}]}, r"rank: expected 1 \(the best\)"),
    ({"completions": [{"response": "a", "rank": 1.5}]}, "rank: expected 1"),
    ({"completions": [{"response": "a", "rank": float("inf")}]}, "rank: expected 1"),
    ({"completions": [{"response": "a", "is_correct": 1}]}, "is_correct: expected true or false"),
    ({"completions": [{"score": 1}]}, "has no text"),
    ({"completions": [{"response": "a", "score": 1}, "b"]}, r"completions\[1\]: expected an object"),
    ({"responses": ["a", "b"], "scores": [1]}, "scores: expected 2 values, one for each of responses"),
    ({"responses": ["a"], "scores": "1"}, "scores: expected 1 values"),
    ({"responses": ["a"] * (MAX_ANSWERS + 1), "scores": [1] * (MAX_ANSWERS + 1)}, "the limit is 1,024"),
    ({"responses": [3], "scores": [1]}, r"responses\[0\]"),
]


@pytest.mark.parametrize(("row", "why"), BAD)
def test_what_is_wrong_is_said(row: dict[str, Any], why: str) -> None:
    with pytest.raises(FormatError, match=why):
        candidates.answers(row)


def test_a_row_without_answers_has_none() -> None:
    assert not candidates.has({"prompt": "q", "meta": {"solution": "a"}, "other": {"is_correct": True}})
