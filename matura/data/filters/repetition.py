"""Repetition rules of Gopher (arXiv:2112.11446, table A1): lines, paragraphs and runs of words that repeat.

Runs of words are found for many documents at once: equal words get equal 64-bit numbers, runs rolling sums of them. A
table of counts rules out most of the runs that do not repeat, and one sort per length brings the equal runs of a
document together.

Shape suffixes: W words of the batch, D documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from matura.core.corpus_settings import Repetition
from matura.data.filters.layout import Layout, Places, layouts
from matura.data.filters.rules import Column, Columns, Rule, RuleFilter, columns, joined
from matura.data.filters.words import repeated
from matura.data.polynomials import BASE, INVERSE, Hashes, mixed, powers

_DOCUMENT = np.uint64(0xD6E8FEB86659FD93)
_RUN = np.uint64(0xBF58476D1CE4E5B9)


def make(**settings: Any) -> RuleFilter:
    """The step, from settings of `corpus_settings.Repetition`; the first rule that is broken is the reason."""
    config = Repetition(**settings)
    rules = [
        Rule("characters", least=1),
        Rule("duplicate_paragraphs", most=config.max_duplicate_paragraphs),
        Rule("duplicate_paragraph_characters", most=config.max_duplicate_paragraph_characters),
        Rule("duplicate_lines", most=config.max_duplicate_lines),
        Rule("duplicate_line_characters", most=config.max_duplicate_line_characters),
        *(Rule(f"top_{n}_gram", most=share) for n, share in config.top_ngrams.items()),
        *(Rule(f"duplicate_{n}_grams", most=share) for n, share in config.duplicate_ngrams.items()),
    ]

    lengths = tuple(config.top_ngrams), tuple(config.duplicate_ngrams)

    def measure(texts: Sequence[str]) -> tuple[Columns, Sequence[str]]:
        runs = joined([run_shares(group, *lengths) for group in layouts(texts)])
        return {**columns([_parts(text) for text in texts]), **runs}, texts

    return RuleFilter("repetition", rules, measure)


def _parts(text: str) -> dict[str, float]:
    """Shares of paragraphs and lines that occurred before, by number and by characters of the text."""
    if not text:
        return {"characters": 0.0}
    paragraphs, paragraph_characters = repeated(_paragraphs(text))
    lines, line_characters = repeated(_lines(text))
    return {
        "characters": float(len(text)),
        "duplicate_paragraphs": paragraphs,
        "duplicate_paragraph_characters": paragraph_characters / len(text),
        "duplicate_lines": lines,
        "duplicate_line_characters": line_characters / len(text),
    }


def _paragraphs(text: str) -> list[str]:
    """What two or more line ends separate."""
    parts = text.strip().split("\n\n")
    return [part for part in (part.lstrip("\n") for part in parts) if part] if "\n\n\n" in text else parts


def _lines(text: str) -> list[str]:
    """What line ends separate, empty lines left out; the text before a first and behind a last line end counts as a
    line, if empty too."""
    lines = list(filter(None, text.split("\n")))
    return lines + [""] * (text.startswith("\n") + text.endswith("\n"))


def run_shares(group: Layout, top: tuple[int, ...], duplicate: tuple[int, ...]) -> Columns:
    """For every text the share of its characters in the most frequent run of n words (`top`), and in runs of n words
    that occurred before and do not overlap (`duplicate`)."""
    hash_W, words_D = _hashes(group), group.words_D
    document_W = np.repeat(np.arange(len(words_D)), words_D)
    left_W = np.repeat(group.of_D[1:], words_D) - np.arange(len(hash_W))  # words to the end of the text, this included
    before_W = np.concatenate([np.zeros(1, np.int64), np.cumsum(group.end_W - group.start_W)])
    salt_W = document_W.astype(np.uint64) * _DOCUMENT
    found = {**{f"top_{n}_gram": _first(group, n, before_W) for n in top}}
    found |= {f"duplicate_{n}_grams": np.zeros(len(words_D)) for n in duplicate}
    run_W = np.zeros(len(hash_W), np.uint64)
    places = np.arange(len(hash_W))
    for n in range(1, max((*top, *duplicate), default=0) + 1):
        # The run of n words from w on: the run of n - 1 words from w on, and word w + n - 1.
        run_W = run_W[: len(hash_W) - n + 1] * _RUN + hash_W[n - 1 :]
        if n not in (*top, *duplicate):
            continue
        # A run can only repeat where the shorter runs do.
        places = places[left_W[places] >= n]
        places, starts = _repeats(run_W[places] ^ salt_W[places], places)
        if not len(places):
            break
        first, counts = places[starts], np.diff(starts, append=len(places))
        if n in top:
            _top(found[f"top_{n}_gram"], n, (first, counts, document_W[first]), before_W)
        if n in duplicate:
            again = _counted(n, places, np.repeat(first, counts), len(hash_W))
            weights = before_W[again + n] - before_W[again]
            found[f"duplicate_{n}_grams"] = np.bincount(document_W[again], weights, len(words_D))
    sizes = np.array([len(text) or np.nan for text in group.texts])
    return {name: column / sizes for name, column in found.items()}


def _hashes(group: Layout) -> Hashes:
    """A 64-bit hash of each word: a polynomial over its characters, from sums over all before it, with its bits
    spread, so that sums of words meet in no pattern."""
    codes_C = group.codes_C()
    sums = np.zeros(len(codes_C) + 1, np.uint64)
    np.cumsum(codes_C * powers(BASE, len(codes_C)), out=sums[1:])
    start_W = group.start_W
    return mixed((sums[group.end_W] - sums[start_W]) * powers(INVERSE, len(codes_C))[start_W])


def _repeats(key_P: Hashes, places_P: Places) -> tuple[Places, Places]:
    """The places whose key others have too, equal keys side by side and in order of place, and where each key begins
    among them."""
    # One sort of numbers: the key's high bits, and below them the place.
    bits = np.uint64(len(key_P).bit_length())
    low = (np.uint64(1) << bits) - np.uint64(1)
    sorted_P = (key_P & ~low) | np.arange(len(key_P), dtype=np.uint64)
    sorted_P.sort()
    order_P = (sorted_P & low).astype(np.int64)
    sorted_P = key_P[order_P]
    new_P = np.ones(len(key_P), bool)
    np.not_equal(sorted_P[1:], sorted_P[:-1], out=new_P[1:])
    several_P = ~new_P
    several_P[:-1] |= several_P[1:]
    return places_P[order_P[several_P]], np.flatnonzero(new_P[several_P])


def _first(group: Layout, n: int, before_W: Places) -> Column:
    """Characters of the first run of n words, which is the most frequent one where nothing repeats. Spaces between
    words count."""
    some = np.flatnonzero(group.words_D >= n)
    place = group.of_D[some]
    found = np.full(len(group.texts), np.nan)
    found[some] = before_W[place + n] - before_W[place] + n - 1
    return found


def _top(found: Column, n: int, runs: tuple[Places, Places, Places], before_W: Places) -> None:
    """The most frequent run of every text; of several the one that comes first. `runs`: place, number and text."""
    first, counts, document = runs
    order = np.lexsort((first, -counts, document))
    texts, at = np.unique(document[order], return_index=True)
    best = order[at]
    found[texts] = (before_W[first[best] + n] - before_W[first[best]] + n - 1) * counts[best]


def _counted(n: int, places: Places, first: Places, words: int) -> Places:
    """The runs that count: from the left, a run that was read before counts, and reading goes on behind it. `first` is
    where the run of each place occurs first."""
    first_W = np.full(words, -1, np.int64)
    first_W[places] = first
    first_W[first] = -1  # a first occurrence is never counted
    again = np.flatnonzero(first_W >= 0)
    passed = bytearray(words)  # 1 inside of counted runs: no run is read from there
    inside = b"\x01" * (n - 1)
    late: set[int] = set()  # runs whose first occurrence was passed, but a later one was read
    free = 0
    counted: list[int] = []
    for begin, end, back in _passages(again, first_W[again]):
        place = max(begin, free)
        if place < end and passed.find(1, place - back, end - back) < 0:
            times = -((place - end) // n)
            counted += range(place, end, n)
            free = place + times * n
            passed[place:free] = (b"\0" + inside) * times
            continue
        while place < end:
            if passed[place - back] and place - back not in late:
                late.add(place - back)
                place += 1
            else:
                counted.append(place)
                free = place + n
                passed[place + 1 : free] = inside
                place = free
    return np.array(counted, np.int64)


def _passages(again: Places, first: Places) -> Iterator[tuple[int, int, int]]:
    """Places that follow each other while their first occurrences do so too: begin, end, and how far back those are."""
    if len(again):
        cuts = np.flatnonzero((np.diff(again) != 1) | (np.diff(first) != 1)) + 1
        begin = again[np.append(0, cuts)]
        end = begin + np.diff(cuts, prepend=0, append=len(again))
        yield from zip(begin.tolist(), end.tolist(), (begin - first[np.append(0, cuts)]).tolist(), strict=True)
