"""Repetition rules of Gopher (arXiv:2112.11446, table A1): lines, paragraphs and runs of words that repeat.

Runs of words are found for many documents at once: equal words get equal 64-bit numbers, runs rolling sums of them. A
table of counts rules out most of the runs that do not repeat, and one sort per length brings the equal runs of a
document together.

Shape suffixes: W words of the batch, D documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matura.core.corpus_settings import Repetition
from matura.data.filters.rules import Measures, Rule, RuleFilter
from matura.data.filters.words import repeated

_BASE = np.uint64(0x9E3779B97F4A7C15)
_DOCUMENT = np.uint64(0xD6E8FEB86659FD93)
_SPACES = bytes.maketrans(
    b"\t\n\v\f\r\x1c\x1d\x1e\x1f", b" " * 9
)  # all that str.split takes for a space in ASCII
AT_ONCE = 64
"""Documents whose words are looked at together: their numbers stay in the cache of a core."""


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

    def measure(texts: Sequence[str]) -> list[tuple[Measures, str]]:
        lengths = tuple(config.top_ngrams), tuple(config.duplicate_ngrams)
        groups = (texts[at : at + AT_ONCE] for at in range(0, len(texts), AT_ONCE))
        runs = chain.from_iterable(run_shares(group, *lengths) for group in groups)
        return [({**_parts(text), **shares}, text) for text, shares in zip(texts, runs, strict=True)]

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


@dataclass(frozen=True)
class _Batch:
    """Words of all documents end to end: hash, document and place of each."""

    hash_W: NDArray[np.uint64]
    document_W: NDArray[np.int64]
    left_W: NDArray[np.int64]
    """Words from here to the end of the document, this one included."""
    before_W: NDArray[np.int64]
    """Characters of all words before this one; one entry more than words."""
    sizes_D: NDArray[np.int64]
    """Words of every document."""


def run_shares(
    texts: Sequence[str], top: tuple[int, ...], duplicate: tuple[int, ...]
) -> list[dict[str, float]]:
    """For every text the share of its characters in the most frequent run of n words (`top`), and in runs of n words
    that occurred before and do not overlap (`duplicate`)."""
    batch = _read(texts)
    shares = _alone(batch, texts, top, duplicate)
    run_W = np.zeros(len(batch.hash_W), np.uint64)
    places = np.arange(len(batch.hash_W))
    lengths = {*top, *duplicate}
    for n in range(1, max(lengths, default=0) + 1):
        # The run of n words from w on: the run of n - 1 words from w on, and word w + n - 1.
        run_W = run_W[: len(batch.hash_W) - n + 1] * _BASE + batch.hash_W[n - 1 :]
        if n not in lengths:
            continue
        # A run can only repeat where the shorter runs do.
        places = places[batch.left_W[places] >= n]
        places, starts = _repeats(
            run_W[places] ^ batch.document_W[places].astype(np.uint64) * _DOCUMENT, places
        )
        if not len(places):
            break
        first = np.minimum.reduceat(places, starts)
        counts = np.diff(np.append(starts, len(places)))
        if n in top:
            _top(batch, n, first, counts, texts, shares)
        if n in duplicate:
            _duplicates(batch, n, places, np.repeat(first, counts), texts, shares)
    return shares


def _repeats(
    key_P: NDArray[np.uint64], places_P: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The places whose key others have too, equal keys side by side, and where each key begins among them."""
    bits = max(10, len(key_P).bit_length() + 2)
    slot_P = (key_P >> np.uint64(64 - bits)).astype(np.int64)
    # Equal keys share a slot: whoever is alone in one needs no sorting.
    shared = np.flatnonzero((np.bincount(slot_P) > 1)[slot_P]) if len(key_P) else slot_P
    key_P, places_P = key_P[shared], places_P[shared]
    order = np.argsort(key_P)
    sorted_P = key_P[order]
    new_P = np.ones(len(key_P), bool)
    np.not_equal(sorted_P[1:], sorted_P[:-1], out=new_P[1:])
    several_P = ~new_P
    several_P[:-1] |= several_P[1:]
    return places_P[order[several_P]], np.flatnonzero(new_P[several_P])


def _read(texts: Sequence[str]) -> _Batch:
    """The words are those of `str.split`; Arrow finds them and the different ones among them."""
    import pyarrow
    import pyarrow.compute

    spaced = [_spaced(text) for text in texts]
    ends = np.cumsum([0, *map(len, spaced)], dtype=np.int64)
    buffers = [None, pyarrow.py_buffer(ends), pyarrow.py_buffer(b"".join(spaced))]
    column = pyarrow.Array.from_buffers(pyarrow.large_string(), len(spaced), buffers)
    listed = pyarrow.compute.ascii_split_whitespace(column)
    words = listed.flatten().dictionary_encode()
    number_W = words.indices.to_numpy()
    # A text without words is one empty word to Arrow.
    sizes = np.diff(listed.offsets.to_numpy()).astype(np.int64)
    empty = np.diff(ends) == 0
    if empty.any():
        number_W = np.delete(number_W, (np.cumsum(sizes) - sizes)[empty])
        sizes[empty] = 0
    lengths = pyarrow.compute.utf8_length(words.dictionary).to_numpy()
    document_W = np.repeat(np.arange(len(texts)), sizes)
    return _Batch(
        _spread(len(lengths))[number_W],
        document_W,
        np.repeat(np.cumsum(sizes), sizes) - np.arange(len(number_W)),
        np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths[number_W])]),
        sizes,
    )


def _spread(count: int) -> NDArray[np.uint64]:
    """A 64-bit number for each of 1 to `count`, all different, with no pattern that sums of them could meet in."""
    values = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(31))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(29))


def _spaced(text: str) -> bytes:
    """The text with ASCII spaces between its words and none at its ends; UTF-8."""
    if text.isascii():
        return text.encode().translate(_SPACES).strip()
    return " ".join(text.split()).encode("utf-8", "surrogatepass")


def _alone(
    batch: _Batch, texts: Sequence[str], top: tuple[int, ...], duplicate: tuple[int, ...]
) -> list[dict[str, float]]:
    """The shares when nothing repeats: the first run is the most frequent one, once."""
    shares: list[dict[str, float]] = []
    start = 0
    for d, text in enumerate(texts):
        end = start + batch.sizes_D[d]
        one = {f"duplicate_{n}_grams": 0.0 for n in duplicate} if text else {}
        for n in top:
            if end - start >= n:
                one[f"top_{n}_gram"] = (batch.before_W[start + n] - batch.before_W[start] + n - 1) / len(text)
        shares.append(one)
        start = end
    return shares


def _top(
    batch: _Batch,
    n: int,
    first: NDArray[np.int64],
    counts: NDArray[np.int64],
    texts: Sequence[str],
    shares: list[dict[str, float]],
) -> None:
    """The most frequent run of every document; of several the one that comes first. Spaces between words count."""
    size = len(batch.hash_W) + 1
    best_D = np.full(len(texts), -1, np.int64)
    np.maximum.at(best_D, batch.document_W[first], counts * size + (size - 1 - first))
    for d in np.flatnonzero(best_D >= 0).tolist():
        count, back = divmod(int(best_D[d]), size)
        place = size - 1 - back
        characters = int(batch.before_W[place + n] - batch.before_W[place]) + n - 1
        shares[d][f"top_{n}_gram"] = characters * count / len(texts[d])


def _duplicates(
    batch: _Batch,
    n: int,
    places: NDArray[np.int64],
    first: NDArray[np.int64],
    texts: Sequence[str],
    shares: list[dict[str, float]],
) -> None:
    """From the left: a run read before counts with its characters, and reading goes on behind it. `first` is where
    the run of each place occurs first."""
    first_W = np.full(len(batch.hash_W), -1, np.int64)
    first_W[places] = first
    first_W[first] = -1  # a first occurrence is never counted
    again = np.flatnonzero(first_W >= 0)
    passed = bytearray(len(batch.hash_W))  # 1 inside of counted runs: no run is read from there
    inside = b"\x01" * (n - 1)
    late: set[int] = set()  # runs whose first occurrence was passed, but a later one was read
    free = 0
    counted: list[int] = []
    for place, start in zip(again.tolist(), first_W[again].tolist(), strict=True):
        if place < free:
            continue
        if passed[start] and start not in late:
            late.add(start)
            continue
        counted.append(place)
        free = place + n
        passed[place + 1 : free] = inside
    found = np.array(counted, np.int64)
    characters = batch.before_W[found + n] - batch.before_W[found]
    total_D = np.bincount(batch.document_W[found], weights=characters, minlength=len(texts))
    for d in np.flatnonzero(total_D).tolist():
        shares[d][f"duplicate_{n}_grams"] = float(total_D[d]) / len(texts[d])
