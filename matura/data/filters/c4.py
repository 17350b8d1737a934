"""Rules of C4 (arXiv:1910.10683, section 2.2): lines that are no sentences go, then pages with too little left."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from matura.core.corpus_settings import C4
from matura.data.filters.layout import IS, Layout, Lines, Places, layouts
from matura.data.filters.rules import Columns, Measures, Rule, RuleFilter, columns
from matura.data.filters.words import sentences

DOT = ord(".")
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

    def measure(texts: Sequence[str]) -> tuple[Columns, Sequence[str]]:
        found = [one for group in layouts(texts) for one in _measured(group, config)]
        return columns([one for one, _ in found]), [text for _, text in found]

    return RuleFilter("c4", rules, measure)


def _measured(group: Layout, config: C4) -> Iterator[tuple[Measures, str]]:
    """Lines of all texts at once; a text with something to cut out of lines or to look for in them is read by lines."""
    lines = group.lines()
    good = _good(group, lines, config)
    counts = np.maximum(_sentences(group, lines, config)[good], 1)
    bounds = np.searchsorted(good, lines.of_D)
    sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])[bounds]
    braces = np.flatnonzero(group.kind_C == ord("{")) if config.drop_curly_bracket else np.empty(0, np.int64)
    start_L, end_L = group.start_W[lines.first_L[good]], group.end_W[lines.last_L[good] - 1]
    curly_L = np.diff(np.searchsorted(braces, np.column_stack([start_L, end_L]))).ravel() > 0
    offset_L = np.repeat(group.start_D, np.diff(bounds))
    cuts = list(zip((start_L - offset_L).tolist(), (end_L - offset_L).tolist(), strict=True))
    bounds, sums, all_D = bounds.tolist(), np.diff(sums).tolist(), np.diff(lines.of_D).tolist()
    for d, text in enumerate(group.texts):
        mine = slice(bounds[d], bounds[d + 1])
        if _special(text, config):
            yield _read(text, config)
        elif curly_L[mine].any():
            yield {"curly_bracket": 1.0}, text
        else:
            kept = "\n".join([text[start:end] for start, end in cuts[mine]])
            share = (mine.stop - mine.start) / all_D[d] if all_D[d] else 0.0
            yield {"sentences": float(sums[d]), "kept_lines": share}, kept


def _special(text: str, config: C4) -> bool:
    """Whether lines must be read one by one."""
    if "[" in text and _CITATION.search(text):
        return True
    small = text.lower()
    wanted = [LOREM] * config.drop_lorem_ipsum + [JAVASCRIPT] * config.drop_javascript_lines
    return any(words in small for words in (*wanted, *(POLICY if config.drop_policy_lines else ())))


def _good(group: Layout, lines: Lines, config: C4) -> Places:
    """The lines that have words enough, end as a sentence does, and have no word that is too long."""
    good = np.flatnonzero(lines.last_L - lines.first_L >= max(1, config.min_line_words))
    if config.terminal_punctuation:
        kind_C, last = group.kind_C, group.end_W[lines.last_L[good] - 1] - 1
        dots = (kind_C[last] == DOT) & (kind_C[last - 1] == DOT) & (kind_C[last - 2] == DOT)
        good = good[IS["ending"][kind_C[last]] & ~dots]
    long = np.flatnonzero(group.end_W - group.start_W > config.max_word_characters)
    if len(long):
        good = np.setdiff1d(good, np.searchsorted(lines.start_L, group.start_W[long], side="right") - 1)
    return good


def _sentences(group: Layout, lines: Lines, config: C4) -> Places:
    """By line, how many of its words end a sentence: with a mark, and behind it quotes or brackets that close."""
    kind_C = group.kind_C
    last = group.end_W - 1
    ends = IS["mark"][kind_C[last]]
    closed = np.flatnonzero(IS["closer"][kind_C[last]])
    for _ in range(config.max_word_characters):  # lines with a longer word do not count
        if not len(closed):
            break
        last[closed] -= 1
        kinds = kind_C[last[closed]]
        ends[closed] = IS["mark"][kinds]
        closed = closed[IS["closer"][kinds]]
    sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(ends)])
    return sums[lines.last_L] - sums[lines.first_L]


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
