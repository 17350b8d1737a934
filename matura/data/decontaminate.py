"""Decontamination: find test items in documents by runs of words, then drop the documents or cut the runs.

A run of `words` words in a row that is also in a test item is a leak (13 words: arXiv:2005.14165, appendix C). Shorter
items, of at least `SHORTEST` words, must occur whole. Case, spacing and punctuation do not count.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matura.core.corpus_settings import Decontamination
from matura.core.errors import ConfigError
from matura.core.records import Document
from matura.data.problems import read_problems
from matura.data.steps import Dropped, Outcome, Step, drop

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHORTEST = 8
"""Items of fewer words are passed over: they are in too many texts that have nothing to do with the test."""
AROUND = 200
"""Characters that are cut on both sides of a leak; shorter pieces between two leaks go too (appendix C)."""
MOST_PIECES = 10
"""A document that would fall into more pieces is dropped (appendix C)."""
SHOWN_CHARACTERS = 300

_SINGLE = (
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # scripts without spaces
)
_WORD = re.compile(rf"[{_SINGLE}]|[^\W_{_SINGLE}]+")
_ASCII = "".join(chr(code).lower() if chr(code).isalnum() else " " for code in range(128))
_BASE = 0x9E3779B97F4A7C15  # odd, so that multiplying by it modulo 2^64 loses nothing


def make(**settings: Any) -> Step:
    """The step, from settings of `corpus_settings.Decontamination`; `problems` is a file or a folder.

    Raises ConfigError without problems or when all items are too short, FormatError for broken files of them.
    """
    config = Decontamination(**settings)
    if config.problems is None:
        raise ConfigError("decontaminate.problems: name a folder or file of test items")
    items = read_problems(Path(config.problems), config.columns)
    return Decontaminate(index(items, config.words), config.action)


def words(text: str) -> list[str]:
    """The words that count: runs of letters and digits in lower case; Chinese and Japanese characters one by one."""
    if text.isascii():
        return text.translate(_ASCII).split()
    return _WORD.findall(_plain(text).lower())


def _plain(text: str) -> str:
    """Compatibility forms composed; without the one letter whose lower case is longer (İ)."""
    return text if text.isascii() else unicodedata.normalize("NFKC", text).replace("\u0130", "I")


@dataclass(frozen=True, slots=True)
class Leak:
    """Words `start` to `end` of a document are those of an item of a file."""

    start: int
    end: int
    file: str
    item: str


@dataclass(frozen=True)
class Index:
    """The runs of all items as 64-bit hashes, sorted, for every length of run; each with the number of its item."""

    values: Mapping[str, int]  # every word of every item: its own 64 bits, never zero
    runs: Mapping[int, tuple[NDArray[np.uint64], NDArray[np.int64]]]
    names: Sequence[tuple[str, str]]  # file and name of every item

    def find(self, texts: Sequence[Sequence[str]]) -> list[list[Leak]]:
        """The leaks of many texts, given as `words`: in order, runs that overlap joined."""
        import numpy as np

        lengths = [len(one) for one in texts]
        total = sum(lengths) + len(texts)  # a zero after every text: no run goes on into the next
        flat = chain.from_iterable(chain(one, ("",)) for one in texts)
        values = np.fromiter(map(self.values.get, flat, repeat(0)), np.uint64, total)
        starts = np.cumsum([0, *(length + 1 for length in lengths)])
        unknown = np.concatenate(([0], np.cumsum(values == 0)))
        hits: list[tuple[int, int, int]] = []
        for length, (hashes, owners) in self.runs.items():
            if total <= length:
                continue
            places = np.flatnonzero(unknown[length:] == unknown[:-length])
            found = _hash_runs(values, places, length)
            nearest = np.minimum(np.searchsorted(hashes, found), len(hashes) - 1)
            same = hashes[nearest] == found
            hits += [
                (int(place), int(place) + length, int(owner))
                for place, owner in zip(places[same], owners[nearest[same]], strict=True)
            ]
        leaks: list[list[Leak]] = [[] for _ in texts]
        for start, end, owner in sorted(hits):
            text = int(np.searchsorted(starts, start, side="right")) - 1
            self._add(leaks[text], start - int(starts[text]), end - int(starts[text]), owner)
        return leaks

    def _add(self, leaks: list[Leak], start: int, end: int, owner: int) -> None:
        if leaks and start <= leaks[-1].end:
            leaks[-1] = replace(leaks[-1], end=max(end, leaks[-1].end))
        else:
            leaks.append(Leak(start, end, *self.names[owner]))


def index(items: Iterable[tuple[str, str, str]], length: int) -> Index:
    """The index of items (file, name, text). Raises ConfigError when none has enough words."""
    import numpy as np

    values: dict[str, int] = {}
    names: list[tuple[str, str]] = []
    hashes: dict[int, list[NDArray[np.uint64]]] = {}
    owners: dict[int, list[NDArray[np.int64]]] = {}
    short = 0
    for file, name, text in items:
        found = words(text)
        if len(found) < min(SHORTEST, length):
            short += 1
            continue
        for word in found:
            if word not in values:
                values[word] = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest()) or 1
        numbers = np.array([values[word] for word in found], np.uint64)
        run = min(length, len(found))
        places = np.arange(len(found) - run + 1)
        hashes.setdefault(run, []).append(_hash_runs(numbers, places, run))
        owners.setdefault(run, []).append(np.full(len(places), len(names)))
        names.append((file, name))
    if not names:
        raise ConfigError(
            f"decontaminate.problems: none of {short} test items has {min(SHORTEST, length)} words or more; "
            "are the items in other `columns`?"
        )
    runs = {}
    for run in sorted(hashes):
        distinct, first = np.unique(np.concatenate(hashes[run]), return_index=True)
        runs[run] = (distinct, np.concatenate(owners[run])[first])
    return Index(values, runs, names)


def _hash_runs(values: NDArray[np.uint64], places: NDArray[Any], length: int) -> NDArray[np.uint64]:
    """Polynomials modulo 2^64 over the values of each run."""
    import numpy as np

    found = np.zeros(len(places), np.uint64)
    base = np.uint64(_BASE)
    for offset in range(length):
        found = found * base + values[places + offset]
    return found


@dataclass(frozen=True)
class Decontaminate:
    """The step. Counts, by file of items: documents with a leak of it."""

    index: Index
    action: str
    name: str = "decontaminate"

    def __call__(self, documents: Sequence[Document]) -> Outcome:
        outcome = Outcome()
        for document, leaks in zip(
            documents, self.index.find([words(one.text) for one in documents]), strict=True
        ):
            outcome.counts.update({leak.file for leak in leaks})
            if not leaks:
                outcome.kept.append(document)
            elif self.action == "drop":
                outcome.dropped.append(self._drop(document, leaks, "test item"))
            else:
                pieces = list(_pieces(document.text, leaks))
                if 0 < len(pieces) <= MOST_PIECES:
                    outcome.counts["cut"] += len(leaks)
                    outcome.kept.append(replace(document, text="\n\n".join(pieces)))
                else:
                    reason = "too many test items" if pieces else "little but test items"
                    outcome.dropped.append(self._drop(document, leaks, reason))
        return outcome

    def _drop(self, document: Document, leaks: Sequence[Leak], reason: str) -> Dropped:
        first = leaks[0]
        run = _as_written(document.text, first)
        # The last words go with the cut: an address that it halves would no longer be masked as one.
        shown = run if len(run) <= SHOWN_CHARACTERS else run[:SHOWN_CHARACTERS].rsplit(" ", 8)[0] + "..."
        more = f", and {len(leaks) - 1} more" if len(leaks) > 1 else ""
        return drop(
            document,
            self.name,
            reason,
            f'{first.file} {first.item}: "{shown}" ({first.end - first.start} words{more})',
        )


def _as_written(text: str, leak: Leak) -> str:
    """The words of a leak with their punctuation and case (NFKC), spaces made one."""
    plain = _plain(text)
    spans = [match.span() for match in _WORD.finditer(plain.lower())]
    return " ".join(plain[spans[leak.start][0] : spans[leak.end - 1][1]].split())


def _pieces(text: str, leaks: Sequence[Leak]) -> Iterator[str]:
    """What is left between the leaks with `AROUND` characters on both sides, at least so long itself.

    A text whose normal form has another length comes out in that form (NFKC).
    """
    plain = _plain(text)
    source = text if len(plain) == len(text) else plain
    spans = [match.span() for match in _WORD.finditer(plain.lower())]
    at = 0
    for leak in leaks:
        piece = source[at : max(at, spans[leak.start][0] - AROUND)].strip()
        if len(piece) >= AROUND:
            yield piece
        at = min(len(source), spans[leak.end - 1][1] + AROUND)
    if len(piece := source[at:].strip()) >= AROUND:
        yield piece
