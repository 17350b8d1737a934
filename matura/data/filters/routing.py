"""A filter by the language of a document: other thresholds for some languages, or no such filter at all.

The language is meta["language"], written by the language step or named by the source. Rules for prose do not look at
source code (kind "code"), which has rules of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matura.core.corpus_settings import Gopher
from matura.core.records import Document
from matura.data.filters.stop_words import STOP_WORDS, WITHOUT
from matura.data.steps import Outcome, Step, build

PROSE = ("gopher", "repetition", "c4", "fineweb")
"""Filters that source code passes unseen."""


def make(*, filter: str, languages: Mapping[str, Mapping[str, Any]], **settings: Any) -> Routed:
    """The step of this filter from its settings; `languages` has by ISO 639-1 code those that differ there."""
    chosen: dict[str, Mapping[str, Any]] = dict(languages)
    if filter == "gopher":
        chosen = _with_stop_words(chosen, settings)
    return Routed(
        filter,
        _step(filter, settings),
        {code: _step(filter, {**settings, **given}) for code, given in chosen.items()},
    )


def _step(name: str, settings: Mapping[str, Any]) -> Step | None:
    return build(f"matura.data.filters.{name}:make", settings) if settings["use"] == "on" else None


def _with_stop_words(
    languages: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]
) -> dict[str, Mapping[str, Any]]:
    """English stop words say nothing of other languages: theirs take their place, unless the user named some."""
    named = tuple(settings.get("stop_words", Gopher().stop_words))
    if named != Gopher().stop_words:
        return dict(languages)
    own: dict[str, dict[str, Any]] = {code: {"min_stop_words": 0} for code in WITHOUT}
    own |= {code: {"stop_words": list(words)} for code, words in STOP_WORDS.items()}
    return {code: {**own.get(code, {}), **languages.get(code, {})} for code in {**own, **languages}}


@dataclass(frozen=True)
class Routed:
    """A step that hands each document to the step of its language, else to `rest`; None lets it pass.

    Documents come out by language, not in the order in which they came.
    """

    name: str
    rest: Step | None
    languages: Mapping[str, Step | None]

    def __call__(self, documents: Sequence[Document]) -> Outcome:
        groups: dict[str | None, list[int]] = {}
        for place, document in enumerate(documents):
            groups.setdefault(self._route(document), []).append(place)
        whole = Outcome()
        for route, places in groups.items():
            group = [documents[place] for place in places]
            step = None if route is None else self.languages.get(route, self.rest)
            outcome = Outcome(kept=group) if step is None else step(group)
            whole.kept += outcome.kept
            whole.dropped += outcome.dropped
            whole.counts.update(outcome.counts)
            for measure, values in outcome.measures.items():
                # A number for every document: NaN for those that another step, or none, looked at.
                column = whole.measures.setdefault(measure, [math.nan] * len(documents))
                for place, value in zip(places, values, strict=True):
                    column[place] = value
        return whole

    def _route(self, document: Document) -> str | None:
        """A language with a step of its own, "" for the rest, None for what passes unseen."""
        if self.name in PROSE and document.meta.get("kind") == "code":
            return None
        code = document.meta.get("language", "").lower().partition("-")[0]
        return code if code in self.languages else ""

    def report(self) -> dict[str, Any]:
        """What the filter says of itself, if it does; of the first that is on, when it is off for the rest."""
        steps: list[Any] = [one for one in (self.rest, *self.languages.values()) if one is not None]
        return dict(steps[0].report()) if steps and hasattr(steps[0], "report") else {}
