"""Words of a text, and hashes of the runs of words in it."""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from matura.data.polynomials import BASE, INVERSE, Hashes, mixed, powers

if TYPE_CHECKING:
    import pyarrow

# Scripts that are written without spaces (Thai, Lao, Burmese, Khmer, kana, Han): each letter counts as a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[^\W{_UNSPACED}]+|[{_UNSPACED}]")

_PLAIN_WORD = re.compile(rb"\w+")
_PLAIN = bytes(ord(chr(code).lower()) if chr(code).isalnum() or code == 95 else 32 for code in range(128))
_PLAIN += bytes(range(128, 256))  # parts of other letters
_SPACE = ord(" ")
_ASCII = frozenset(map(chr, range(128)))
_EACH = re.compile(f"[{_UNSPACED}]")
_FEW = 100  # different characters outside of ASCII

Short = NDArray[np.uint32]
Counts = NDArray[np.int64]
Flags = NDArray[np.bool_]


def words(text: str) -> list[bytes]:
    """The words of a text in comparable form: NFKC, case folded, punctuation and spacing gone; UTF-8."""
    return spaced(text).split()


def spaced(text: str) -> bytes:
    """The words with spaces between them, any number of them; none at the ends."""
    if text.isascii():  # the same result as below, several times faster
        return text.encode().translate(_PLAIN).strip()
    folded = unicodedata.normalize("NFKC", text).casefold()
    signs = set(folded) - _ASCII
    if len(signs) > _FEW or _EACH.search("".join(signs)):
        return " ".join(WORD.findall(folded)).encode()
    for sign in signs:  # a letter here and there, typographic marks: faster than a pattern
        if not sign.isalnum():
            folded = folded.replace(sign, " ")
    return folded.encode().translate(_PLAIN).strip()


@dataclass(frozen=True)
class Joined:
    """The words of many texts with single spaces: UTF-8 of all of them end to end, a space before, between and behind.

    Word w has the bytes `start_W[w]` to `end_W[w]`; text d has those from `after_D[d] + 1` to `after_D[d + 1]`, and
    `count_D[d]` words.
    """

    bytes_C: NDArray[np.uint8]
    start_W: Counts
    end_W: Counts
    after_D: Counts
    count_D: Counts

    def column(self) -> pyarrow.LargeStringArray:
        """The texts for Arrow."""
        import pyarrow

        offsets = self.after_D - np.arange(len(self.after_D))
        inner = np.ones(len(self.bytes_C), bool)
        inner[self.after_D] = False
        buffers = [None, pyarrow.py_buffer(offsets), pyarrow.py_buffer(self.bytes_C[inner])]
        return pyarrow.Array.from_buffers(pyarrow.large_string(), len(self.count_D), buffers)


def joined(texts: Sequence[bytes]) -> Joined:
    """`texts` are of `spaced`."""
    bytes_C = np.frombuffer(b" ".join([b"", *texts, b""]), np.uint8)
    after_D = np.cumsum([0, *(len(text) + 1 for text in texts)], dtype=np.int64)
    space_C = bytes_C == _SPACE
    extra_C = np.zeros(len(bytes_C), bool)
    np.logical_and(space_C[1:], space_C[:-1], out=extra_C[1:])
    extra_C[after_D] = False
    extra = np.flatnonzero(extra_C)
    if len(extra):
        bytes_C = bytes_C[~extra_C]
        after_D = after_D - np.searchsorted(extra, after_D)
        space_C = bytes_C == _SPACE
    spaces = np.flatnonzero(space_C)
    start_W, end_W = spaces[:-1] + 1, spaces[1:]
    if not (start_W < end_W).all():  # a text without words
        start_W, end_W = start_W[start_W < end_W], end_W[start_W < end_W]
    return Joined(bytes_C, start_W, end_W, after_D, np.diff(np.searchsorted(start_W, after_D)))


def words_in_place(text: str) -> list[bytes]:
    """The case-folded form of each match of WORD in the text, so that places can be found again."""
    if text.isascii():
        return _PLAIN_WORD.findall(text.lower().encode())
    return [word.casefold().encode() for word in WORD.findall(text)]


def word_hashes(texts: Sequence[Sequence[bytes]]) -> tuple[Short, Counts]:
    """CRC-32 of every word of all texts, one text after the other, and the number of words of each text."""
    counts = np.array([len(listed) for listed in texts], np.int64)
    return np.fromiter(map(zlib.crc32, chain.from_iterable(texts)), np.uint32, int(counts.sum())), counts


def runs(hashes: Short, length: int) -> Hashes:
    """A 64-bit hash of each run of `length` words, in order; empty if there are fewer words.

    A polynomial over mixed word hashes, taken from prefix sums: the time does not depend on `length`.
    """
    count = len(hashes)
    if count < length:
        return np.empty(0, np.uint64)
    sums = np.zeros(count + 1, np.uint64)
    np.cumsum(mixed(hashes.astype(np.uint64)) * powers(BASE, count), out=sums[1:])
    starts = count - length + 1
    return mixed((sums[length:] - sums[:starts]) * powers(INVERSE, starts))


def within(counts: Counts, length: int) -> Flags:
    """Of each place where `runs` has one: whether it lies in one text."""
    left = np.repeat(np.cumsum(counts), counts) - np.arange(counts.sum())
    return left[: max(len(left) - length + 1, 0)] >= length


def shingles(words: Joined, length: int) -> tuple[Short, Counts]:
    """The set of runs of `length` words of each text, sorted, one text after the other, and how many each has.

    A run has 32 bits here: between texts of n shingles each, n * n / 2**32 are taken for equal by chance, 0.0002 for
    a thousand. It is the hash of its bytes, a polynomial from sums over all bytes before.
    """
    inside = np.flatnonzero(within(words.count_D, length))
    start, end = words.start_W[inside], words.end_W[inside + length - 1]
    size = len(words.bytes_C)
    sums = np.zeros(size + 1, np.uint64)
    np.cumsum(words.bytes_C * powers(BASE, size), out=sums[1:])
    hashes = mixed((sums[end] - sums[start]) * powers(INVERSE, size)[start])
    text = np.repeat(np.arange(len(words.count_D), dtype=np.uint64), words.count_D)[inside]
    both = text << np.uint64(32) | hashes >> np.uint64(32)
    both.sort()
    new = np.ones(len(both), bool)
    new[1:] = both[1:] != both[:-1]
    both = both[new]
    found = np.bincount((both >> np.uint64(32)).astype(np.int64), minlength=len(words.count_D))
    return (both & np.uint64(0xFFFFFFFF)).astype(np.uint32), found
