"""Insults, slurs and obscene words by lexicon.

The words are stored as hashes (`lexicon.json`), so that no list of slurs lies in the source. Only whole words count, so
Scunthorpe passes. Hidden spellings are undone first: digits and signs for letters, letters with dots between them,
letters drawn out; stars in place of letters are looked up as they are. Words with a harmless use of their own (names,
animals, tools, parts of the body in medicine) are not in it: it is short on purpose, and English only.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

WEIGHTS = {"obscene": 1.0, "insults": 1.0, "slurs": 2.0}
LEAST_WORDS = (
    50  # shorter texts count as this long, so that one word alone does not decide in a long sentence
)
FULL = 0.04  # weighted share of words that scores 1
MAX_WORD = 40  # characters; longer ones are no words
MAX_KNOWN = 1 << 20  # words whose weights are remembered
DIGITS = 16  # of the SHA-256 that are stored

EDGES = "\"'`.,;:?()[]{}<>«»“”‘’…~|/\\=+"
LETTERS = str.maketrans(
    {"0": "o", "1": "i", "!": "i", "3": "e", "4": "a", "@": "a", "5": "s", "$": "s", "7": "t"}
)
DOTTED = re.compile(r"[a-z](?:[.\-_][a-z]){2,}")
DRAWN_OUT = re.compile(r"(.)\1{2,}")
STARS = re.compile(r"[*#%]")


def scores(texts: Sequence[str]) -> list[float]:
    """0 to 1 for each text: the weighted share of listed words, 0.04 and more giving 1. One insult in up to 50 words
    scores 0.5, a slur 1; in long texts two insults in a hundred words score 0.5."""
    weigh = _known().__getitem__
    found = []
    for text in texts:
        words = text.lower().split()
        weight = sum(map(weigh, words))
        found.append(min(1.0, weight / max(len(words), LEAST_WORDS) / FULL))
    return found


def hashed(word: str) -> str:
    """How a word (lower case) is written in the file."""
    return hashlib.sha256(f"matura lexicon\n{word}".encode()).hexdigest()[:DIGITS]


def spellings(word: str) -> Iterator[str]:
    """Plain words that a written one may stand for, in lower case."""
    plain = unicodedata.normalize("NFKC", word.lower()).strip(EDGES)
    if not plain or len(plain) > MAX_WORD:
        return
    yield plain.rstrip("!*#%-_").removesuffix("'s").removesuffix("’s")
    if "*" in plain or "#" in plain or "%" in plain:
        yield STARS.sub("*", plain.rstrip("!"))
    joined = re.sub(r"[.\-_]", "", plain) if DOTTED.fullmatch(plain) else plain
    if any(letter.isalpha() for letter in joined):
        whole = joined.rstrip("!").translate(LETTERS)
        yield whole
        # Drawn-out letters stand for one, or for two as in "hello".
        yield DRAWN_OUT.sub(r"\1", whole)
        yield DRAWN_OUT.sub(r"\1\1", whole)


@cache
def _listed() -> dict[str, float]:
    groups = json.loads((Path(__file__).parent / "lexicon.json").read_text("ascii"))["words"]
    return {one: WEIGHTS[name] for name, hashes in groups.items() for one in hashes}


class _Weights(dict[str, float]):
    """The weight of a word as it is written; 0 for most. Remembered, for hashing is slow."""

    def __missing__(self, word: str) -> float:
        listed = _listed()
        value = max((listed.get(hashed(one), 0.0) for one in {*spellings(word)}), default=0.0)
        if len(self) < MAX_KNOWN:
            self[word] = value
        return value


@cache
def _known() -> _Weights:
    return _Weights()
