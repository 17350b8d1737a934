"""Quality rules of Gopher (arXiv:2112.11446, table A1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from matura.core.corpus_settings import Gopher
from matura.data.filters.layout import IS, Layout, Places, layouts, totals
from matura.data.filters.rules import Columns, Rule, RuleFilter, joined
from matura.data.filters.words import spaces

DOT = ord(".")


def make(**settings: Any) -> RuleFilter:
    """The step, from settings of `corpus_settings.Gopher`. Rules in this order; the first broken is the reason."""
    config = Gopher(**settings)
    rules = [
        Rule("words", config.min_words, config.max_words),
        Rule("mean_word", config.min_mean_word, config.max_mean_word),
        Rule("hashes", most=config.max_symbol_ratio),
        Rule("ellipses", most=config.max_symbol_ratio),
        Rule("bullet_lines", most=config.max_bullet_lines),
        Rule("ellipsis_lines", most=config.max_ellipsis_lines),
        Rule("alphabetic_words", least=config.min_alphabetic_words),
        Rule("stop_words", least=config.min_stop_words),
    ]
    # A setting with white space in it, or none at all, is no word of any text.
    wanted = [word for word in dict.fromkeys(config.stop_words) if word.split() == [word]]

    def measure(texts: Sequence[str]) -> tuple[Columns, Sequence[str]]:
        return joined([measures(group, wanted) for group in layouts(texts)]), texts

    return RuleFilter("gopher", rules, measure)


def measures(group: Layout, stop_words: Sequence[str]) -> Columns:
    """The numbers that the rules bound. Words are what white space separates; those of punctuation only count in the
    denominators but are no words of the document."""
    texts, total_D = group.texts, group.words_D
    length_W = group.end_W - group.start_W
    no_letter, symbols = _odd_words(group)
    real_D = total_D - _count(group, symbols)
    characters_D = totals(length_W, group.of_D) - _count(group, symbols, length_W[symbols])
    hashes = np.array([text.count("#") for text in texts], np.int64)
    ellipses = np.array([text.count("...") + text.count("…") for text in texts], np.int64)
    lines_D, bullets_D, cut_D = _lines(group)
    stop = [float(_contained(text, stop_words)) for text in texts]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {
            "mean_word": np.where(real_D > 0, characters_D / real_D, 0.0),
            "hashes": hashes / total_D,
            "ellipses": ellipses / total_D,
            "bullet_lines": bullets_D / lines_D,
            "ellipsis_lines": cut_D / lines_D,
            "alphabetic_words": (total_D - _count(group, no_letter)) / total_D,
            "stop_words": np.array(stop),
        }
    some = total_D > 0
    return {"words": real_D.astype(np.float64)} | {
        name: np.where(some, column, np.nan) for name, column in found.items()
    }


def _odd_words(group: Layout) -> tuple[Places, Places]:
    """The words without a letter, and those of them that are punctuation only."""
    # Most words begin with a letter; just the others are looked into.
    others = np.flatnonzero(~IS["letter"][group.kind_C[group.start_W]])
    if not len(others):
        return others, others
    bounds = np.column_stack([group.start_W[others], group.end_W[others]]).ravel()
    holds = IS["letter"] * np.uint8(1) + ~IS["punctuation"] * np.uint8(2)
    within = np.frombuffer(group.characters.translate(holds.tobytes()), np.uint8)
    held = np.bitwise_or.reduceat(within, bounds)[::2]
    return others[held & 1 == 0], others[held == 0]


def _count(group: Layout, words: Places, weights: Places | None = None) -> Places:
    """How many of the words each text has, or the sum of their weights."""
    of = np.searchsorted(group.of_D, words, side="right") - 1
    return np.bincount(of, weights, minlength=len(group.texts)).astype(np.int64)


def _lines(group: Layout) -> tuple[Places, Places, Places]:
    """By text: lines, lines that begin with a bullet, and lines that end with an ellipsis."""
    lines, kind_C = group.lines(), group.kind_C
    filled = np.flatnonzero(lines.first_L < lines.last_L)
    first, last = group.start_W[lines.first_L[filled]], group.end_W[lines.last_L[filled] - 1] - 1
    bullets = filled[IS["bullet"][kind_C[first]]]
    dots = np.flatnonzero(kind_C[last] == DOT)
    dots = dots[(kind_C[last[dots] - 1] == DOT) & (kind_C[last[dots] - 2] == DOT)]
    cut = np.concatenate([filled[dots], filled[IS["ellipsis"][kind_C[last]]]])
    of_L = np.repeat(np.arange(len(group.texts)), np.diff(lines.of_D))
    count = len(group.texts)
    return (
        np.diff(lines.of_D),
        np.bincount(of_L[bullets], minlength=count),
        np.bincount(of_L[cut], minlength=count),
    )


def _contained(text: str, words: Sequence[str]) -> int:
    """How many of the words the text has."""
    spaced = b" " + spaces(text) + b" "
    return sum(b" " + word.encode("utf-8", "surrogatepass") + b" " in spaced for word in words)
