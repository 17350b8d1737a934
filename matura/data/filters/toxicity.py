"""Toxicity by lexicon, by a classifier learned from examples, or by any function of texts.

With `group_thresholds: equal-rates`, texts that mention a group of people get a threshold of their own, so that
harmless sentences about one group are not dropped more often than those about others (docs/balance.md).
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matura.core.corpus_settings import Toxicity
from matura.core.errors import ConfigError
from matura.core.records import Document
from matura.data.classifier import learned
from matura.data.filters import balance, lexicon
from matura.data.steps import Outcome, drop


def make(*, folder: str | None = None, **settings: Any) -> ToxicityStep:
    """The step, from settings of `corpus_settings.Toxicity`; a learned classifier is kept in `folder`, if given.

    Raises ConfigError for a score that cannot be had, FormatError for examples that cannot be learned from.
    """
    config = Toxicity(**settings)
    score = _score(config, folder)
    groups: dict[str, float] = {}
    if config.group_thresholds == "equal-rates":
        groups = balance.equal_rates(balance.template_scores(score), config.threshold)
    return ToxicityStep(score, config.threshold, groups)


def _score(config: Toxicity, folder: str | None) -> balance.Score:
    if config.examples is not None and config.score != "learned":
        raise ConfigError(f"toxicity: `examples` belong to score: learned, not to score: {config.score}.")
    if config.score == "lexicon":
        return lexicon.scores
    if config.score == "learned":
        if config.examples is None:
            raise ConfigError(
                "toxicity: score: learned needs `examples`, JSON Lines of {text, label: 0 or 1}."
            )
        return learned(config.examples, folder).scores
    module, colon, name = config.score.partition(":")
    if not colon:
        raise ConfigError(
            f"toxicity: score is {config.score!r}; there are lexicon, learned and module:callable."
        )
    try:
        function: balance.Score = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"toxicity: {config.score!r} leads to no function: {error}") from error
    return _checked(function, config.score)


def _checked(function: balance.Score, name: str) -> balance.Score:
    """The function, with its answers looked at: a number of 0 to 1 for each text."""

    def score(texts: Sequence[str]) -> list[float]:
        found = [float(one) for one in function(texts)]
        if len(found) != len(texts):
            raise ConfigError(f"toxicity: {name} gave {len(found)} scores for {len(texts)} texts.")
        for one in found:
            if not (math.isfinite(one) and 0 <= one <= 1):
                raise ConfigError(f"toxicity: {name} gave {one}; expected scores from 0 to 1.")
        return found

    return score


@dataclass(frozen=True)
class ToxicityStep:
    """Drops documents that score at least the threshold ("toxicity"); measures `toxicity.score`.

    `groups` are thresholds by group of people. A text gets the highest of the groups that it mentions. Counted:
    documents that only a group's threshold kept.
    """

    score: balance.Score
    threshold: float
    groups: Mapping[str, float] = field(default_factory=dict)
    name: str = field(default="toxicity")

    def __call__(self, documents: Sequence[Document]) -> Outcome:
        outcome = Outcome()
        scores = list(self.score([document.text for document in documents])) if documents else []
        outcome.measures["toxicity.score"] = scores
        for document, score in zip(documents, scores, strict=True):
            threshold = self.threshold_of(document.text) if score >= self.threshold else self.threshold
            if score >= threshold:
                detail = f"score {score:.3f}; below {threshold:.3g}"
                outcome.dropped.append(drop(document, self.name, "toxicity", detail))
            else:
                outcome.kept.append(document)
                if score >= self.threshold:
                    outcome.counts["kept by a group's threshold"] += 1
        return outcome

    def threshold_of(self, text: str) -> float:
        """The threshold for this text."""
        if not self.groups:
            return self.threshold
        return max((self.groups[group] for group in balance.mentions([text])), default=self.threshold)

    def report(self) -> dict[str, Any]:
        """False-positive rates of the template sentences by group, with one threshold for all ("same") and as the
        step decides ("used")."""
        same, used = {}, {}
        for group, texts in balance.sentences().items():
            scores = self.score(texts)
            same[group] = sum(one >= self.threshold for one in scores) / len(texts)
            bounds = map(self.threshold_of, texts)
            used[group] = sum(one >= bound for one, bound in zip(scores, bounds, strict=True)) / len(texts)
        return {
            "same": same,
            "used": used,
            "gap": {"same": balance.gap(same), "used": balance.gap(used)},
            "thresholds": dict(self.groups),
        }
