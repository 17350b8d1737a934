"""Several objectives in turn: the shares of tokens, the same on all ranks, and a position that comes back."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from matura.core.errors import ArtifactError
from matura.train.mixture import Mixture, Part


class Counting:
    """Batches that are their name and number."""

    def __init__(self, name: str) -> None:
        self.name, self.at = name, 0

    def __next__(self) -> tuple[str, int]:
        self.at += 1
        return self.name, self.at

    def state(self) -> dict[str, Any]:
        return {"at": self.at}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.at = state["at"]


def mixture(**shares: float) -> Mixture:
    tokens = {"a": 100.0, "b": 50.0, "c": 25.0}
    return Mixture({name: Part(Counting(name), share, tokens[name]) for name, share in shares.items()})


def test_each_part_has_its_share_of_the_tokens_at_any_time() -> None:
    made = mixture(a=2, b=1, c=1)
    tokens: Counter[str] = Counter()
    for turn in range(1, 401):
        name, _ = next(made)
        tokens[name] += {"a": 100, "b": 50, "c": 25}[name]
        if turn % 40 == 0:
            total = tokens.total()
            assert tokens["a"] == pytest.approx(total / 2, abs=100)
            assert tokens["b"] == pytest.approx(total / 4, abs=75)
    assert tokens["c"] == pytest.approx(tokens["b"], abs=75)


def test_nothing_is_left_out_and_a_resumed_run_goes_on() -> None:
    made = mixture(a=3, b=1)
    first = [next(made) for _ in range(10)]
    assert [at for name, at in first if name == "a"] == list(range(1, 1 + sum(n == "a" for n, _ in first)))
    saved = json.loads(json.dumps(made.state()))
    expected = [next(made) for _ in range(20)]
    again = mixture(a=3, b=1)
    again.restore(saved)
    assert [next(again) for _ in range(20)] == expected
    for other in (mixture(a=1, b=1), mixture(a=3, c=1)):
        with pytest.raises(ArtifactError, match="another mixture"):
            other.restore(saved)


def test_a_mixture_of_nothing_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="parts"):
        Mixture({})
    with pytest.raises(ValueError, match="tokens"):
        Mixture({"a": Part(Counting("a"), 1.0, 0.0)})
    with pytest.raises(ValueError, match="positive"):
        mixture(a=-1)
