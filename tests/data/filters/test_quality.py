"""The quality filter: learned from examples, a threshold on its score."""

import json
from pathlib import Path

import pytest

from matura.core.errors import ConfigError
from matura.core.records import Document
from matura.data.filters import quality


def written(folder: Path) -> str:
    path = folder / "examples.jsonl"
    rows = [
        {"text": f"{'the valley describes' if i % 2 else 'click casino'} number {i}", "label": i % 2}
        for i in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_low_scores_are_dropped_with_their_score(tmp_path: Path) -> None:
    step = quality.make(examples=written(tmp_path), threshold=0.5, use="on", folder=str(tmp_path / "kept"))
    outcome = step([Document("a", "the valley describes", "a"), Document("b", "click casino", "b")])
    assert [one.id for one in outcome.kept] == ["a"]
    assert [(one.id, one.reason) for one in outcome.dropped] == [("b", "quality")]
    assert "at least 0.5" in outcome.dropped[0].detail
    good, bad = outcome.measures["quality.score"]
    assert good > 0.5 > bad
    assert step.report() == {"examples": {"0": 20, "1": 20}, "auc": 1.0}


def test_a_threshold_of_zero_keeps_all(tmp_path: Path) -> None:
    outcome = quality.make(examples=written(tmp_path), threshold=0.0)([Document("b", "click casino", "b")])
    assert [one.id for one in outcome.kept] == ["b"]


def test_examples_are_needed() -> None:
    with pytest.raises(ConfigError, match="`examples` is missing"):
        quality.make(use="on")
