"""A filter of rules: measures of a text, and the first rule that one of them breaks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from matura.core.records import Document
from matura.data.steps import Outcome, drop

Measures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Rule:
    """A document is dropped when the measure of this name is below `least` or above `most`."""

    name: str
    least: float | None = None
    most: float | None = None

    def breaks(self, value: float) -> bool:
        """Whether the value is outside. Documents without the measure pass."""
        return (self.least is not None and value < self.least) or (
            self.most is not None and value > self.most
        )

    def told(self, value: float) -> str:
        """The value beside its bound, for people."""
        bound = (
            f"at least {self.least:g}"
            if self.least is not None and value < self.least
            else f"at most {self.most:g}"
        )
        return f"{self.name.replace('_', ' ')} is {value:.3g}; {bound}"


@dataclass(frozen=True)
class RuleFilter:
    """A step: `measure(texts)` gives the measures of every text (and the text as it goes on, where lines are cut)."""

    name: str
    rules: Sequence[Rule]
    measure: Callable[[Sequence[str]], list[tuple[Measures, str]]]

    def __call__(self, documents: Sequence[Document]) -> Outcome:
        outcome = Outcome()
        measured = self.measure([one.text for one in documents])
        for key in dict.fromkeys(key for found, _ in measured for key in found):
            outcome.measures[f"{self.name}.{key}"] = [found.get(key, math.nan) for found, _ in measured]
        for document, (found, text) in zip(documents, measured, strict=True):
            broken = next((r for r in self.rules if r.name in found and r.breaks(found[r.name])), None)
            if broken is not None:
                outcome.dropped.append(
                    drop(document, self.name, broken.name, broken.told(found[broken.name]))
                )
            else:
                outcome.kept.append(document if text is document.text else replace(document, text=text))
        return outcome
