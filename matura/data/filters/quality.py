"""Quality by a classifier that is learned from labelled examples: 1 for texts to keep, 0 for others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from matura.core.corpus_settings import Quality
from matura.core.errors import ConfigError
from matura.core.records import Document
from matura.data.classifier import Classifier, learned
from matura.data.steps import Outcome, drop


def make(*, folder: str | None = None, **settings: Any) -> QualityStep:
    """The step, from settings of `corpus_settings.Quality`; the classifier is kept in `folder`, if there is one.

    Raises ConfigError without examples, FormatError for examples that cannot be learned from.
    """
    config = Quality(**settings)
    if config.examples is None:
        raise ConfigError("quality: `examples` is missing, a JSON Lines file of {text, label: 0 or 1}.")
    return QualityStep(learned(config.examples, folder), config.threshold)


@dataclass(frozen=True)
class QualityStep:
    """Drops documents that score below the threshold ("quality"); measures `quality.score`."""

    classifier: Classifier
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
        """How many examples of each label there were, and the area under the ROC curve on unseen ones."""
        return dict(self.classifier.about)
