"""Words of a text, and hashes of the runs of words in it."""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

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
_ASCII = frozenset(map(chr, range(128)))
_EACH = re.compile(f"[{_UNSPACED}]")
_FEW = 100  # different characters outside of ASCII

Short = NDArray[np.uint32]
Counts = NDArray[np.int64]
Flags = NDArray[np.bool_]


def words(text: str) -> list[bytes]:
    """The words of a text in comparable form: NFKC, case folded, punctuation and spacing gone; UTF-8."""
    return _spaced(text).split()


def _spaced(text: str) -> bytes:
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


def arrow_words(texts: Sequence[str]) -> pyarrow.ListArray:
    """`words` of each text as strings, found by Arrow; a text without words has one empty string."""
    import pyarrow
    import pyarrow.compute

    spaced = [_spaced(text) for text in texts]
    ends = np.cumsum([0, *map(len, spaced)], dtype=np.int64)
    buffers = [None, pyarrow.py_buffer(ends), pyarrow.py_buffer(b"".join(spaced))]
    column = pyarrow.Array.from_buffers(pyarrow.large_string(), len(spaced), buffers)
    return pyarrow.compute.ascii_split_whitespace(column)


def arrow_hashes(listed: Any) -> tuple[Short, Counts]:
    """`word_hashes` of `arrow_words`; each word is hashed once, however often it occurs."""
    import pyarrow

    coded = listed.flatten().dictionary_encode()
    different = coded.dictionary.cast(pyarrow.large_binary()).to_pylist()
    hashes = np.fromiter(map(zlib.crc32, different), np.uint32, len(different))[coded.indices.to_numpy()]
    counts = np.diff(listed.offsets.to_numpy()).astype(np.int64)
    if b"" in different:
        empty = coded.indices.to_numpy() == different.index(b"")
        hashes = hashes[~empty]
        counts[np.repeat(np.arange(len(counts)), counts)[empty]] = 0
    return hashes, counts


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


def shingles(hashes: Short, counts: Counts, length: int) -> tuple[Short, Counts]:
    """The set of runs of `length` words of each text, sorted, one text after the other, and how many each has.

    A run has 32 bits here: between texts of n shingles each, n * n / 2**32 are taken for equal by chance, 0.0002 for
    a thousand.
    """
    inside = within(counts, length)
    text = np.repeat(np.arange(len(counts), dtype=np.uint64), counts)[: len(inside)][inside]
    both = text << np.uint64(32) | runs(hashes, length)[inside] >> np.uint64(32)
    both.sort()
    new = np.ones(len(both), bool)
    new[1:] = both[1:] != both[:-1]
    both = both[new]
    found = np.bincount((both >> np.uint64(32)).astype(np.int64), minlength=len(counts))
    return (both & np.uint64(0xFFFFFFFF)).astype(np.uint32), found
