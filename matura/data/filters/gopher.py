"""Quality rules of Gopher (arXiv:2112.11446, table A1)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import filterfalse
from typing import Any

from matura.core.corpus_settings import Gopher
from matura.data.filters.rules import Measures, Rule, RuleFilter
from matura.data.filters.words import PUNCTUATION

BULLETS = ("•", "-")
ELLIPSES = ("...", "…")


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
    wanted = frozenset(config.stop_words)

    def measure(texts: Sequence[str]) -> list[tuple[Measures, str]]:
        return [(measures(text, wanted), text) for text in texts]

    return RuleFilter("gopher", rules, measure)


def measures(text: str, stop_words: frozenset[str]) -> dict[str, float]:
    """The numbers that the rules bound. Words are what white space separates; those of punctuation only count in the
    denominators but are no words of the document."""
    words = text.split()
    total = len(words)
    if not total:
        return {"words": 0.0}
    # Most words are letters only, or begin with one; just the others are looked into, a character at a time.
    others = list(filterfalse(str.isalpha, words))
    no_letter = [word for word in others if not word[0].isalpha() and not any(map(str.isalpha, word))]
    symbols = [word for word in no_letter if not word.strip(PUNCTUATION)]
    real = total - len(symbols)
    lines = text.splitlines()
    bullets = [line for line in lines if line.lstrip().startswith(BULLETS)]
    ellipses = text.count("...") + text.count("…")
    cut = [line for line in lines if line.rstrip().endswith(ELLIPSES)] if ellipses else []
    return {
        "words": float(real),
        "mean_word": (len("".join(words)) - len("".join(symbols))) / real if real else 0.0,
        "hashes": text.count("#") / total,
        "ellipses": ellipses / total,
        "bullet_lines": len(bullets) / len(lines),
        "ellipsis_lines": len(cut) / len(lines),
        "alphabetic_words": (total - len(no_letter)) / total,
        "stop_words": float(len(stop_words.intersection(words))),
    }
