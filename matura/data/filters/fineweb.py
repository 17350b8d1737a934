"""Rules of FineWeb (arXiv:2406.17557, section 3.3): lists, menus and repeated lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matura.core.corpus_settings import FineWeb
from matura.data.filters.rules import Measures, Rule, RuleFilter
from matura.data.filters.words import TERMINAL, repeated


def make(**settings: Any) -> RuleFilter:
    """The step, from settings of `corpus_settings.FineWeb`; the first rule that is broken is the reason."""
    config = FineWeb(**settings)
    rules = [
        Rule("lines", least=1),
        Rule("lines_with_punctuation", least=config.min_lines_with_punctuation),
        Rule("short_lines", most=config.max_short_lines),
        Rule("duplicate_line_characters", most=config.max_duplicate_line_characters),
        Rule("newlines_per_word", most=config.max_newlines_per_word),
    ]

    def measure(texts: Sequence[str]) -> list[tuple[Measures, str]]:
        return [(measures(text, config.short_line_characters), text) for text in texts]

    return RuleFilter("fineweb", rules, measure)


def measures(text: str, short: int) -> dict[str, float]:
    """The numbers that the rules bound; lines of white space only are none."""
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        return {"lines": 0.0}
    _, characters = repeated(lines)
    newlines = text.count("\n")
    return {
        "lines": float(len(lines)),
        "lines_with_punctuation": len([line for line in lines if line[-1] in TERMINAL]) / len(lines),
        "short_lines": len([line for line in lines if len(line) <= short]) / len(lines),
        "duplicate_line_characters": characters / (len(text) - newlines),
        "newlines_per_word": newlines / len(text.split()),
    }
