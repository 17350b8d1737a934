"""Rules of FineWeb (arXiv:2406.17557, section 3.3): lists, menus and repeated lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from matura.core.corpus_settings import FineWeb
from matura.data.filters.layout import IS, Layout, layouts, totals
from matura.data.filters.rules import Columns, Rule, RuleFilter, joined


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

    def measure(texts: Sequence[str]) -> tuple[Columns, Sequence[str]]:
        return joined([measures(group, config.short_line_characters) for group in layouts(texts)]), texts

    return RuleFilter("fineweb", rules, measure)


def measures(group: Layout, short: int) -> Columns:
    """The numbers that the rules bound; lines of white space only are none."""
    texts, lines = group.texts, group.lines("newline")
    filled = lines.first_L < lines.last_L
    lines_D = totals(filled, lines.of_D)
    ended_D = totals(filled & IS["terminal"][group.kind_C[lines.end_L - 1]], lines.of_D)
    short_D = totals(filled & (lines.end_L - lines.start_L <= short), lines.of_D)
    newlines = np.array([text.count("\n") for text in texts], np.int64)
    of_L = np.repeat(np.arange(len(texts)), np.diff(lines.of_D))[filled]
    _, again = group.again(lines.start_L[filled], lines.end_L[filled], of_L)
    characters = np.array([len(text) for text in texts], np.int64) - newlines
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {
            "lines_with_punctuation": ended_D / lines_D,
            "short_lines": short_D / lines_D,
            "duplicate_line_characters": again / characters,
            "newlines_per_word": newlines / group.words_D,
        }
    return {"lines": lines_D.astype(np.float64)} | {
        name: np.where(lines_D > 0, column, np.nan) for name, column in found.items()
    }
