"""Made-up descriptions in a warm or a cold mood, and two disjoint vocabularies that tell it: one to prefer by, one that
is held out.

A description has a mood of its own, and each of its `tones.SLOTS` words follows it with a chance of `FOLLOWS`; so words
of one vocabulary say something about those of the other. What is preferred counts the words of `SEEN` only; what is
measured counts those of `UNSEEN` only, which no preference ever looked at.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from benchmarks import tones

FOLLOWS, WARM = 0.85, 0.5
"""Chances that a word follows the mood of its description, and that a mood is warm."""
SEEN, UNSEEN = (
    {word: value for value in (1, -1) for word in tones.WORDS[value].split()[half::2]} for half in (0, 1)
)


def described(animal: str, place: str, draw: random.Random) -> str:
    """A description in a mood."""
    mood = 1 if draw.random() < WARM else -1
    words = [
        draw.choice(tones.WORDS[mood if draw.random() < FOLLOWS else -mood].split())
        for _ in range(tones.SLOTS)
    ]
    return tones.written(animal, place, words)


def preferred(text: str) -> float:
    """Warm words minus cold ones of the vocabulary that is learned from."""
    return _counted(text, SEEN)


def heldout(text: str) -> float:
    """The same of the words that nobody learned from, as a mean: more words are not more reward."""
    found = [UNSEEN[word] for word in re.findall(r"\w+", text) if word in UNSEEN]
    return sum(found) / len(found) if found else 0.0


def _counted(text: str, words: dict[str, int]) -> float:
    return float(sum(words.get(word, 0) for word in re.findall(r"\w+", text)[:64]))


def wins(ours: Sequence[str], theirs: Sequence[str]) -> list[float]:
    """For each pair of answers to one prompt 1, a half or 0, by the held-out words."""
    pairs = zip(map(heldout, ours), map(heldout, theirs), strict=True)
    return [float(a > b) + 0.5 * (a == b) for a, b in pairs]
