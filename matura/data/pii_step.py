"""The step for personal data: masks it, replaces it, drops its documents, or only counts it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from matura.core.corpus_settings import Pii
from matura.core.errors import ConfigError
from matura.core.records import Document
from matura.data import pii
from matura.data.pii import identifiers
from matura.data.pii.spans import Span
from matura.data.steps import Outcome, Step, drop

Finder = Callable[[list[str]], Sequence[Iterable[tuple[int, int, str]]]]
"""Texts to spans (start, end, kind) of each, such as (0, 8, "NAME"); kinds are words in capitals."""

DESCRIPTIVE = ("title", "url")
"""What a document says of itself that can hold personal data too."""


@dataclass(frozen=True)
class _PersonalData:
    settings: Pii
    seed: int
    finder: Finder | None
    name: str = "pii"

    def __call__(self, documents: Sequence[Document]) -> Outcome:
        outcome = Outcome()
        brought = _brought(self.finder, self.settings.names or "", [one.text for one in documents])
        for document, more in zip(documents, brought, strict=True):
            spans = self._find(document.text, more)
            about = {
                key: found
                for key in DESCRIPTIVE
                if (value := document.meta.get(key)) and (found := self._find(value))
            }
            everything = [*spans, *(span for found in about.values() for span in found)]
            if not everything:
                outcome.kept.append(document)
                continue
            counted = pii.count(everything)
            outcome.counts.update(counted)
            outcome.counts["documents"] += 1
            if self.settings.action == "drop":
                told = ", ".join(f"{count} {kind}" for kind, count in counted.items())
                masked = replace(document, text=pii.mask(document.text, spans))
                outcome.dropped.append(drop(masked, self.name, "personal data", told))
            elif self.settings.action == "report":
                outcome.kept.append(document)
            else:
                meta = {key: self._write(document.meta[key], found) for key, found in about.items()}
                text = self._write(document.text, spans)
                outcome.kept.append(replace(document, text=text, meta={**document.meta, **meta}))
        return outcome

    def _find(self, text: str, more: Iterable[Span] = ()) -> list[Span]:
        return pii.find(text, ip=self.settings.ip, national_ids=self.settings.national_ids, more=more)

    def _write(self, text: str, spans: Sequence[Span]) -> str:
        if self.settings.action == "mask":
            return pii.mask(text, spans)
        return pii.pseudonymise(text, spans, self.seed)


def make(*, seed: int = 0, **settings: Any) -> Step:
    """The step, from settings of `corpus_settings.Pii`; `seed` is the key of pseudonyms.

    Counts are by kind, and "documents" that have any. Raises ConfigError for an unknown country or a finder of names
    that cannot be imported; the step itself for a finder that gives no spans of its texts.
    """
    config = Pii(**settings)
    identifiers.check(config.national_ids)
    return _PersonalData(config, seed, _finder(config.names) if config.names else None)


def hide(texts: Sequence[str], names: str | None) -> list[str]:
    """The texts with personal data of every kind and country masked, and what the user's finder of names finds."""
    brought = _brought(_finder(names) if names else None, names or "", list(texts))
    both = zip(texts, brought, strict=True)
    return [
        pii.mask(text, pii.find(text, ip=True, national_ids=identifiers.COUNTRIES, more=more))
        for text, more in both
    ]


def _finder(path: str) -> Finder:
    module, _, name = path.partition(":")
    try:
        found: Finder = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"pii.names: {path!r} leads to no function (expected module:callable): {error}"
        ) from error
    return found


def _brought(finder: Finder | None, path: str, texts: list[str]) -> list[list[Span]]:
    """What the user's finder found, checked: it is code from outside."""
    if finder is None:
        return [[] for _ in texts]
    found = [[Span(*span) for span in spans] for spans in finder(texts)]
    if len(found) != len(texts):
        raise ConfigError(f"pii.names: {path} gave {len(found)} lists of spans for {len(texts)} texts")
    for text, spans in zip(texts, found, strict=True):
        for span in spans:
            if not 0 <= span.start < span.end <= len(text) or not re.fullmatch(
                r"[A-Z][A-Z_]{0,29}", span.kind
            ):
                raise ConfigError(
                    f"pii.names: {path} gave a span {span.start}-{span.end} of kind {span.kind!r} for a text of "
                    f"{len(text)} characters; expected a part of it, and a kind in capitals such as NAME"
                )
    return found
