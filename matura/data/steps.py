"""What a curation step is: documents in; documents, drops with their reasons, counts and measures out.

A step knows nothing of engines or files: it gets a batch and gives an `Outcome`. It is made from plain settings, so
that a worker in another process or on another machine can make it again.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from matura.core.errors import ConfigError
from matura.core.records import Document

SAMPLE_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Dropped:
    """A document that goes no further: which rule of which step, what exactly, and how it begins."""

    id: str
    source: str
    step: str
    reason: str
    detail: str = ""
    sample: str = ""
    characters: int = 0


@dataclass(slots=True)
class Outcome:
    """`counts` are events (masked e-mails, documents by language); `measures` are numbers of every document that came
    in (also of the dropped ones; NaN where it has none), by name, for distributions and for what another threshold
    would have kept."""

    kept: list[Document] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    measures: dict[str, list[float]] = field(default_factory=dict)


class Step(Protocol):
    """A callable with a name; the same batch gives the same outcome, whatever else is in other batches."""

    @property
    def name(self) -> str:
        """What counts and reasons are filed under."""

    def __call__(self, documents: Sequence[Document]) -> Outcome: ...


def drop(document: Document, step: str, reason: str, detail: str = "") -> Dropped:
    """The record of a dropped document."""
    return Dropped(
        document.id,
        document.source,
        step,
        reason,
        detail,
        document.text[:SAMPLE_CHARACTERS],
        len(document.text),
    )


def build(factory: str, settings: Mapping[str, Any]) -> Step:
    """The step that `package.module:callable` makes from its settings. Raises ConfigError for a wrong path."""
    module, _, name = factory.partition(":")
    try:
        make = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{factory!r} leads to no function: {error}") from error
    step: Step = make(**settings)
    return step
