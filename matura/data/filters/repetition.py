"""Repetition rules of Gopher (arXiv:2112.11446, table A1): lines, paragraphs and runs of words that repeat.

All is found for many documents at once. Lines, paragraphs and words get 64-bit hashes, runs of words rolling sums of
these, and one sort for each length brings the equal ones of a document together.

Shape suffixes: W words of the batch, P places of words where runs may repeat, L lines, D documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from matura.core.corpus_settings import Repetition
from matura.data.filters.layout import MARK, Layout, Places, layouts, repeats
from matura.data.filters.rules import Column, Columns, Rule, RuleFilter, joined

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
        return joined(
            [{**part_shares(group), **run_shares(group, *lengths)} for group in layouts(texts)]
        ), texts

    return RuleFilter("repetition", rules, measure)


def part_shares(group: Layout) -> Columns:
    """Shares of paragraphs and lines that occurred before, by number and by characters of the text."""
    sizes = np.array([len(text) for text in group.texts], np.int64)
    some = np.where(sizes > 0, sizes, np.nan)
    lines = group.lines("newline")
    filled = np.flatnonzero(lines.start_L < lines.end_L)
    of_L = np.repeat(np.arange(len(sizes)), np.diff(lines.of_D))[filled]
    start, end = lines.start_L[filled], lines.end_L[filled]
    # What line ends separate, empty lines left out; but the text before a first and behind a last line end counts as
    # a line, if empty too.
    outer = np.array([text.startswith("\n") + text.endswith("\n") for text in group.texts], np.int64)
    number, characters = group.again(start, end, of_L)
    lines_D = np.bincount(of_L, minlength=len(sizes)) + outer
    found = {
        "duplicate_lines": (number + (outer == 2)) / np.maximum(lines_D, 1),
        "duplicate_line_characters": characters / some,
    }
    start, end, of = _paragraphs(group, start, end, of_L)
    number, characters = group.again(start, end, of)
    found["duplicate_paragraphs"] = number / np.maximum(np.bincount(of, minlength=len(sizes)), 1)
    found["duplicate_paragraph_characters"] = characters / some
    return {"characters": sizes.astype(np.float64)} | {
        name: np.where(sizes > 0, column, np.nan) for name, column in found.items()
    }


def _paragraphs(group: Layout, start: Places, end: Places, of_L: Places) -> tuple[Places, Places, Places]:
    """What two or more line ends separate in a text without white space at its ends; from its lines, none empty."""
    texts = np.flatnonzero(group.words_D > 0)
    left, right = group.start_D.copy(), group.start_D.copy()
    left[texts], right[texts] = group.start_W[group.of_D[texts]], group.end_W[group.of_D[texts + 1] - 1]
    start, end = np.maximum(start, left[of_L]), np.minimum(end, right[of_L])
    some = start < end
    start, end, of_L = start[some], end[some], of_L[some]
    new = np.ones(len(start) + 1, bool)
    new[1:-1] = (start[1:] != end[:-1] + 1) | (of_L[1:] != of_L[:-1])
    if not len(start):
        return start, end, of_L
    return start[new[:-1]], end[new[1:]], of_L[new[:-1]]


def run_shares(group: Layout, top: tuple[int, ...], duplicate: tuple[int, ...]) -> Columns:
    """For every text the share of its characters in the most frequent run of n words (`top`), and in runs of n words
    that occurred before and do not overlap (`duplicate`)."""
    words_D = group.words_D
    document_W = np.repeat(np.arange(len(words_D)), words_D)
    hash_W = group.hashes(group.start_W, group.end_W)
    before_W = np.concatenate([np.zeros(1, np.int64), np.cumsum(group.end_W - group.start_W)])
    found = {f"top_{n}_gram": _first(group, n, before_W) for n in top}
    found |= {f"duplicate_{n}_grams": np.zeros(len(words_D)) for n in duplicate}
    # Runs of one word, marked with their text. A run of n words can only repeat where one of n - 1 words does.
    places, run_P = np.arange(len(hash_W)), hash_W ^ document_W.astype(np.uint64) * MARK
    last_P = np.repeat(group.of_D[1:], words_D)  # the end of the text's words
    for n in range(1, max((*top, *duplicate), default=0) + 1):
        if n > 1:
            inside = last_P - places >= n
            places, last_P = places[inside], last_P[inside]
            run_P = run_P[inside] * _RUN + hash_W[places + (n - 1)]
        if n not in (*top, *duplicate):
            continue
        chosen, starts = repeats(run_P)
        if not len(chosen):
            break
        places, last_P, run_P = places[chosen], last_P[chosen], run_P[chosen]
        first, counts = places[starts], np.diff(starts, append=len(places))
        if n in top:
            _top(found[f"top_{n}_gram"], n, (first, counts, document_W[first]), before_W)
        if n in duplicate:
            again = _counted(n, places, np.repeat(first, counts), len(hash_W))
            weights = before_W[again + n] - before_W[again]
            found[f"duplicate_{n}_grams"] = np.bincount(document_W[again], weights, len(words_D)).astype(
                float
            )
    sizes = np.array([len(text) or np.nan for text in group.texts])
    return {name: column / sizes for name, column in found.items()}


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
    size = len(before_W)  # more than there are places
    best_D = np.full(len(found), -1, np.int64)
    np.maximum.at(best_D, document, counts * size - first)
    some = np.flatnonzero(best_D >= 0)
    number = -(-best_D[some] // size)
    place = number * size - best_D[some]
    found[some] = (before_W[place + n] - before_W[place] + n - 1) * number


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
        yield from zip(
            begin.tolist(), end.tolist(), (begin - first[np.append(0, cuts)]).tolist(), strict=True
        )
