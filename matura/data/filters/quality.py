"""Quality by a classifier: one that is learned from labelled examples (1: keep, 0: not), or a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from matura.core.corpus_settings import Quality
from matura.core.errors import ConfigError
from matura.core.records import Document
from matura.data.classifier import learned
from matura.data.steps import Outcome, build, drop


class Scorer(Protocol):
    """What gives texts scores from 0 to 1; `about` is its record for the report."""

    @property
    def about(self) -> dict[str, Any]: ...

    def scores(self, texts: Sequence[str]) -> list[float]: ...


def make(*, folder: str | None = None, scorer: str = "", **settings: Any) -> QualityStep:
    """The step, from settings of `corpus_settings.Quality`.

    What is learned from examples is kept in `folder`, if there is one; with a model `scorer`
    (`package.module:callable`) makes what scores texts from its folder and the labels to keep. Raises ConfigError
    without examples and model, FormatError for examples that cannot be learned from.
    """
    config = Quality(**settings)
    if config.model is not None:
        made: Any = build(scorer, {"folder": config.model, "labels": config.labels})
        return QualityStep(made, config.threshold)
    if config.examples is None:
        raise ConfigError(
            "quality: `examples` is missing, a JSON Lines file of {text, label: 0 or 1}; or give a `model`."
        )
    return QualityStep(learned(config.examples, folder), config.threshold)


@dataclass(frozen=True)
class QualityStep:
    """Drops documents that score below the threshold ("quality"); measures `quality.score`."""

    classifier: Scorer
    threshold: float
    name: str = field(default="quality")

    def __call__(self, documents: Sequence[Document]) -> Outcome:
        outcome = Outcome()
        scores = self.classifier.scores([document.text for document in documents])
        outcome.measures["quality.score"] = scores
        for document, score in zip(documents, scores, strict=True):
            if score >= self.threshold:
                outcome.kept.append(document)
            else:
                detail = f"score {score:.3f}; at least {self.threshold:g}"
                outcome.dropped.append(drop(document, self.name, "quality", detail))
        return outcome

    def report(self) -> dict[str, Any]:
        """Of examples how many of each label there were, and the area under the ROC curve on unseen ones; of a model
        its labels."""
        return dict(self.classifier.about)
