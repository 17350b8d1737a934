"""A filter of rules: measures of texts, and the first rule that one of them breaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from matura.core.records import Document
from matura.data.steps import Outcome, drop

Measures = Mapping[str, float]
Column = NDArray[np.float64]
Columns = Mapping[str, Column]
"""By name of a measure its value for every text; NaN for a text that has none."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A document is dropped when the measure of this name is below `least` or above `most`."""

    name: str
    least: float | None = None
    most: float | None = None

    def breaks(self, value: float) -> bool:
        """Whether the value is outside. Documents without the measure pass."""
        return bool(self.broken(np.array([value]))[0])

    def broken(self, values: Column) -> NDArray[np.bool_]:
        """Whether each value is outside; NaN is not."""
        low = np.zeros(len(values), bool) if self.least is None else values < self.least
        return low if self.most is None else low | (values > self.most)

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
    """A step: `measure(texts)` gives the measures of all texts, and the texts as they go on, where lines are cut."""

    name: str
    rules: Sequence[Rule]
    measure: Callable[[Sequence[str]], tuple[Columns, Sequence[str]]]

    def __call__(self, documents: Sequence[Document]) -> Outcome:
        outcome = Outcome()
        columns, texts = self.measure([one.text for one in documents])
        for name, column in columns.items():
            outcome.measures[f"{self.name}.{name}"] = column.tolist()
        rules = [rule for rule in self.rules if rule.name in columns]
        first = np.full(len(documents), -1)  # the rule that is broken first
        for number in reversed(range(len(rules))):
            first[rules[number].broken(columns[rules[number].name])] = number
        for place, (document, text, number) in enumerate(zip(documents, texts, first.tolist(), strict=True)):
            if number >= 0:
                rule = rules[number]
                detail = rule.told(float(columns[rule.name][place]))
                outcome.dropped.append(drop(document, self.name, rule.name, detail))
            else:
                outcome.kept.append(document if text is document.text else replace(document, text=text))
        return outcome


def columns(found: Sequence[Measures]) -> Columns:
    """Measures of single texts as columns."""
    names = dict.fromkeys(name for one in found for name in one)
    return {name: np.array([one.get(name, np.nan) for one in found]) for name in names}


def joined(groups: Sequence[Columns]) -> Columns:
    """The columns of groups of texts one below the other; all have the same measures."""
    return {name: np.concatenate([one[name] for one in groups]) for name in groups[0]} if groups else {}
