"""Rules of C4 (arXiv:1910.10683, section 2.2): lines that are no sentences go, then pages with too little left."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from matura.core.corpus_settings import C4
from matura.data.filters.rules import Measures, Rule, RuleFilter
from matura.data.filters.words import sentences

ENDS = (".", "?", "!", '"', "'")
LOREM, JAVASCRIPT = "lorem ipsum", "javascript"
POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")


def make(**settings: Any) -> RuleFilter:
    """The step, from settings of `corpus_settings.C4`. Kept documents hold only their kept lines.

    Measures: `sentences` and `kept_lines` (share) of pages that were read to the end; the rule that ended it as 1."""
    config = C4(**settings)
    rules = [
        Rule("lorem_ipsum", most=0.0 if config.drop_lorem_ipsum else None),
        Rule("curly_bracket", most=0.0 if config.drop_curly_bracket else None),
        Rule("sentences", least=config.min_sentences),
    ]

    def measure(texts: Sequence[str]) -> list[tuple[Measures, str]]:
        return [_read(text, config) for text in texts]

    return RuleFilter("c4", rules, measure)


def _read(text: str, config: C4) -> tuple[dict[str, float], str]:
    """Lines one by one; the first line that condemns the page ends the reading."""
    kept: list[str] = []
    total = 0
    small = text.lower()
    # What the whole text does not hold is not looked for in its lines.
    lorem = config.drop_lorem_ipsum and LOREM in small
    curly = config.drop_curly_bracket and "{" in text
    script = config.drop_javascript_lines and JAVASCRIPT in small
    policy = [words for words in POLICY if words in small] if config.drop_policy_lines else []
    lines = text.splitlines()
    for line in lines:
        line = _line(line.strip(), config)
        if not line:
            continue
        small = line.lower() if lorem or script or policy else ""
        if lorem and LOREM in small:
            return {"lorem_ipsum": 1.0}, text
        if script and JAVASCRIPT in small:
            continue
        if curly and "{" in line:
            return {"curly_bracket": 1.0}, text
        if any(words in small for words in policy):
            continue
        total += sentences(line)
        kept.append(line)
    share = len(kept) / len(lines) if lines else 0.0
    return {"sentences": float(total), "kept_lines": share}, "\n".join(kept).strip()


def _line(line: str, config: C4) -> str:
    """The line without marks of citations, or nothing when it is no sentence."""
    if "[" in line:
        line, whole = _CITATION.sub("", line), line
    else:
        whole = line
    if config.terminal_punctuation and (not line.endswith(ENDS) or line.endswith("...")):
        return ""
    words = whole.split()
    if len(words) < config.min_line_words:
        return ""
    longest = config.max_word_characters
    return line if len(whole) <= longest or max(map(len, words)) <= longest else ""
