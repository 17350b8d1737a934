"""The quality filter: learned from examples, a threshold on its score."""

import json
from pathlib import Path

import pytest

from matura.core.config import parse
from matura.core.corpus_settings import Quality
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


class Judge:
    """Scores by the length of a text."""

    @property
    def about(self) -> dict:
        return {"labels": ["long"]}

    def scores(self, texts: list[str]) -> list[float]:
        return [min(1.0, len(text) / 10) for text in texts]


def make_judge(folder: str, labels: tuple[str, ...]) -> Judge:
    assert (folder, tuple(labels)) == ("place", ("long",))
    return Judge()


def test_a_model_may_score_instead() -> None:
    settings = {"model": "place", "labels": ["long"], "scorer": f"{__name__}:make_judge", "use": "on"}
    step = quality.make(**settings)
    outcome = step([Document("a", "a long text", "a"), Document("b", "no", "b")])
    assert [one.id for one in outcome.kept] == ["a"]
    assert outcome.measures["quality.score"] == [1.0, 0.2]
    assert step.report() == {"labels": ["long"]}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "m", "labels": ["a"], "examples": "e"}, "`examples` or `model`, not both"),
        ({"model": "m"}, "belong together"),
        ({"labels": ["a"], "examples": "e"}, "belong together"),
    ],
)
def test_one_classifier_with_its_own_settings(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(Quality, {"use": "on", **settings}, "test")
