import pytest

from matura.data.preferences.diversity import distinct, repeated


def test_distinct_runs_are_counted_over_all_sequences() -> None:
    assert distinct([[1, 2, 3], [2, 3, 4]]) == pytest.approx(3 / 4)  # 12 23 23 34
    assert distinct([[1, 2, 3], [2, 3, 4]], n=1) == pytest.approx(4 / 6)
    assert distinct([[1], []]) == 0.0
    assert distinct([[7] * 11]) == pytest.approx(1 / 10)


def test_repeated_answers_are_counted_within_their_prompt() -> None:
    assert repeated([["a", "a", "b"], ["a", "c"]]) == pytest.approx(1 / 5)
    assert repeated([]) == 0.0
