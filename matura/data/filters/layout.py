"""Where the words and lines of many texts are, as arrays: one pass over the characters, then arithmetic.

Every character has a kind, a number below 256: an ASCII character is its own kind, any other one shares its kind with
those that are alike in all that the rules ask (`PROPERTIES`). So a property of characters is a table of 256 entries.

Shape suffixes: C characters of the batch, W words, L lines, D documents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from matura.data.filters.words import PUNCTUATION, TERMINAL
from matura.data.polynomials import BASE, INVERSE, Hashes, mixed, powers

AT_ONCE = 256
"""Documents that are laid out together: what is made of them stays in the cache of a core."""

Flags = NDArray[np.bool_]
Places = NDArray[np.int64]

_BREAKS = frozenset("\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")  # where str.splitlines ends a line
PROPERTIES: dict[str, Callable[[str], bool]] = {
    "space": str.isspace,
    "break": _BREAKS.__contains__,
    "letter": str.isalpha,
    "punctuation": frozenset(PUNCTUATION).__contains__,
    "terminal": TERMINAL.__contains__,
    "mark": frozenset(".!?。！？…").__contains__,
    "closer": frozenset("\"')]”’").__contains__,
    "bullet": frozenset("•-").__contains__,
    "ellipsis": "…".__eq__,
    "newline": "\n".__eq__,
    "ending": frozenset(".?!\"'").__contains__,
}
"""What the rules ask of a character."""

MARK = np.uint64(0xD6E8FEB86659FD93)
"""Times the number of a text: what tells its hashes from those of others."""
_UNSEEN = 255
_KIND = np.full(0x110000, _UNSEEN, np.uint8)  # by code point; filled in when a character is first seen
_KIND[:128] = np.arange(128)
_NEXT: dict[tuple[bool, ...], int] = {}


def _tables() -> dict[str, Flags]:
    made = {name: np.zeros(256, bool) for name in PROPERTIES}
    for code in range(128):
        for name, has in PROPERTIES.items():
            made[name][code] = has(chr(code))
    return made


IS = _tables()
"""By property: whether a kind has it."""


def _kinds(text: str) -> bytes:
    """The kind of every character."""
    if text.isascii():
        return text.encode()
    codes = _codes(text)
    kinds = _KIND[codes]
    unseen = kinds == _UNSEEN
    if unseen.any():
        for code in np.unique(codes[unseen]).tolist():
            _KIND[code] = _kind(chr(code))
        kinds = _KIND[codes]
    return kinds.tobytes()


def _kind(character: str) -> int:
    """The kind of a character outside of ASCII. There are far fewer than 127 ways to combine the properties."""
    has = tuple(test(character) for test in PROPERTIES.values())
    if has not in _NEXT:
        _NEXT[has] = 128 + len(_NEXT)
        for name, value in zip(PROPERTIES, has, strict=True):
            IS[name][_NEXT[has]] = value
    return _NEXT[has]


def _codes(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


@dataclass(frozen=True)
class Lines:
    """Lines with their characters `start_L` to `end_L` and words `first_L` to `last_L` (both ends excluded), and
    `of_D`: those of document d are `of_D[d]` to `of_D[d + 1]`."""

    start_L: Places
    end_L: Places
    first_L: Places
    last_L: Places
    of_D: Places


@dataclass(frozen=True)
class Layout:
    """The characters of all texts end to end, a space before, between and behind them; and their words, which are
    those of `str.split`.

    `start_W`, `end_W`: the characters of each word. `of_D`: the words of document d are `of_D[d]` to `of_D[d + 1]`.
    `start_D`, `end_D`: the characters of each document.
    """

    texts: Sequence[str]
    characters: bytes
    start_D: Places
    end_D: Places
    start_W: Places
    end_W: Places
    of_D: Places

    @cached_property
    def kind_C(self) -> NDArray[np.uint8]:
        return np.frombuffer(self.characters, np.uint8)

    @property
    def words_D(self) -> Places:
        """How many words each text has."""
        return np.diff(self.of_D)

    def has(self, name: str) -> Flags:
        """Whether each character has the property."""
        return _with(self.characters, IS[name])

    def hashes(self, start: Places, end: Places) -> Hashes:
        """A 64-bit hash of each of the stretches of characters: a polynomial, from sums over all characters before
        it, with its bits spread, so that sums of hashes meet in no pattern."""
        return mixed((self._sums[end] - self._sums[start]) * powers(INVERSE, len(self.characters))[start])

    @cached_property
    def _sums(self) -> Hashes:
        codes_C = self.kind_C.astype(np.uint64)
        for text, start, end in zip(self.texts, self.start_D.tolist(), self.end_D.tolist(), strict=True):
            if not text.isascii():
                codes_C[start:end] = _codes(text)
        codes_C *= powers(BASE, len(codes_C))
        sums = np.zeros(len(codes_C) + 1, np.uint64)
        np.cumsum(codes_C, out=sums[1:])
        return sums

    def again(self, start: Places, end: Places, document: Places) -> tuple[Places, Places]:
        """How many stretches of each text occurred in it before, and how many characters those have."""
        chosen, starts = repeats(self.hashes(start, end) ^ document.astype(np.uint64) * MARK)
        later = np.delete(chosen, starts)
        count, of = len(self.texts), document[later]
        characters = np.bincount(of, end[later] - start[later], count)
        return np.bincount(of, minlength=count), characters.astype(np.int64)

    def lines(self, name: str = "break") -> Lines:
        """Lines between characters with the property "break", as `str.splitlines` has them, or "newline". An empty
        line at the end of a text is none."""
        ends = self.has(name).copy()
        ends[self.end_D] = True
        ends[0] = True
        end_L = np.flatnonzero(ends)
        first_L = np.searchsorted(self.start_W, end_L)
        start_L, end_L = end_L[:-1] + 1, end_L[1:]
        closing = np.zeros(len(end_L), bool)
        closing[np.searchsorted(end_L, self.end_D)] = True
        kind_L = self.kind_C[end_L]
        inside = (kind_L == ord("\n")) & (self.kind_C[end_L - 1] == ord("\r"))  # of the one break \r\n
        real = (start_L < end_L) | ~(closing | inside)
        start_L, end_L = start_L[real], end_L[real]
        of_D = np.append(np.searchsorted(start_L, self.start_D), len(start_L))
        return Lines(start_L, end_L, first_L[:-1][real], first_L[1:][real], of_D)


def layout(texts: Sequence[str]) -> Layout:
    """Find the words of all texts."""
    kinds = [_kinds(text) for text in texts]
    characters = b" ".join([b"", *kinds, b""])
    sizes = np.array([0, *map(len, kinds)], np.int64)
    start_D = np.cumsum(sizes + 1)
    word_C = _with(characters, ~IS["space"])
    edges = np.flatnonzero(word_C[1:] != word_C[:-1]) + 1
    start_W, end_W = edges[::2].copy(), edges[1::2].copy()
    return Layout(
        texts,
        characters,
        start_D[:-1],
        start_D[1:] - 1,
        start_W,
        end_W,
        np.searchsorted(start_W, start_D),
    )


def layouts(texts: Sequence[str]) -> Iterator[Layout]:
    """The texts in groups of a size that is fast."""
    return (layout(texts[at : at + AT_ONCE]) for at in range(0, len(texts), AT_ONCE))


def repeats(key_P: Hashes) -> tuple[Places, Places]:
    """The places whose key others have too, equal keys side by side and in order of place, and where each key begins
    among them."""
    # One sort of numbers: the key's high bits, and below them the place.
    low = np.uint64((1 << len(key_P).bit_length()) - 1)
    sorted_P = (key_P & ~low) | np.arange(len(key_P), dtype=np.uint64)
    sorted_P.sort()
    same_P = np.zeros(len(key_P) + 1, bool)  # as the one before
    np.equal(sorted_P[1:] & ~low, sorted_P[:-1] & ~low, out=same_P[1:-1])
    order_P = (sorted_P[same_P[1:] | same_P[:-1]] & low).astype(np.int64)
    # Now the whole keys of these few.
    key_P = key_P[order_P]
    same_P = np.zeros(len(key_P) + 1, bool)
    np.equal(key_P[1:], key_P[:-1], out=same_P[1:-1])
    several = np.flatnonzero(same_P[1:] | same_P[:-1])
    return order_P[several], np.flatnonzero(~same_P[several])


def totals(values: NDArray[np.generic], bounds: Places) -> NDArray[np.int64]:
    """Sums of the values from each bound up to the next."""
    sums = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=sums[1:])
    return np.diff(sums[bounds])


def _with(characters: bytes, table: Flags) -> Flags:
    # A translation of bytes is faster than an array as an index.
    return np.frombuffer(characters.translate(table.tobytes()), bool)
