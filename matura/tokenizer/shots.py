"""Which examples are shown before a question: orders of a pool, and whether two texts ask the same.

Likeness is the cosine of TF-IDF vectors of words (Manning, Raghavan, Schütze, *Introduction to Information
Retrieval*, section 6.4): nothing is learned, nothing is random, and a pool of 2,000 is searched in half a millisecond.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

RUN = 8
"""Words in a row that tell a question, or an answer, from others."""
LEAST = 5
"""Words of a whole question that another text may hold by chance no more."""
_SPACELESS = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"  # scripts without spaces: each sign is a word
_WORD = re.compile(rf"[{_SPACELESS}]|[^\W{_SPACELESS}]+")


def words(text: str) -> list[str]:
    """The words of a text in small letters, without anything between them."""
    return _WORD.findall(text.casefold())


class Index:
    """The words of a pool of texts, to tell which are most like another text."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.size = len(texts)
        counted = [Counter(words(text)) for text in texts]
        found = Counter(word for one in counted for word in one)
        self._weight = {word: float(np.log((1 + self.size) / (1 + n)) + 1) for word, n in found.items()}
        places: dict[str, tuple[list[int], list[float]]] = {word: ([], []) for word in found}
        for number, one in enumerate(counted):
            for word, value in self._vector(one).items():
                places[word][0].append(number)
                places[word][1].append(value)
        self._places = {
            word: (np.array(numbers), np.array(values)) for word, (numbers, values) in places.items()
        }

    def _vector(self, counted: Counter[str]) -> dict[str, float]:
        """A unit vector; words that the pool does not know are left out."""
        known = {
            word: (1 + np.log(n)) * self._weight[word] for word, n in counted.items() if word in self._weight
        }
        length = float(np.sqrt(sum(value * value for value in known.values()))) or 1.0
        return {word: float(value) / length for word, value in known.items()}

    def likeness(self, text: str) -> NDArray[np.float64]:
        """Cosine with every text of the pool, [N], between 0 and 1."""
        total = np.zeros(self.size)
        for word, value in sorted(self._vector(Counter(words(text))).items()):
            numbers, values = self._places[word]
            total[numbers] += value * values
        return total


def nearest(index: Index, text: str) -> list[int]:
    """Numbers of the pool, the most like `text` first; of equals the earlier one."""
    return [int(i) for i in np.argsort(-index.likeness(text).round(12), kind="stable")]


def drawn(ids: Sequence[str], seed: int) -> list[int]:
    """Numbers of the pool in an order that seed and ids fix, so a pool that grows keeps most of its order."""
    return sorted(
        range(len(ids)), key=lambda i: hashlib.sha256(f"shots {seed}\0{ids[i]}".encode()).hexdigest()
    )


def diverse(texts: Sequence[str], count: int) -> list[int]:
    """`count` numbers of the pool: first the one most like all others, then always the one least like those taken
    (farthest-first traversal, Gonzalez 1985)."""
    if not texts or not count:
        return []
    index = Index(texts)
    middle = index.likeness(" ".join(texts))
    taken = [int(np.argmax(middle.round(12)))]
    closest = index.likeness(texts[taken[0]])
    while len(taken) < min(count, len(texts)):
        closest[taken[-1]] = np.inf
        taken.append(int(np.argmin(closest.round(12))))
        closest = np.maximum(closest, index.likeness(texts[taken[-1]]))
    return taken


def same(one: str, other: str) -> bool:
    """Whether two texts ask the same: one holds the other, whose words are five or more, or half of all."""
    short, long = sorted((words(one), words(other)), key=len)
    if not short or not (len(short) >= LEAST or 2 * len(short) >= len(long)):
        return False
    return _run(short) in _run(long)


def quotes(text: str, other: str, least: int) -> bool:
    """Whether a text holds all words of another one, in a row; not for fewer than `least`, which say little."""
    found = words(other)
    return len(found) >= least and _run(found) in _known(text)


def runs(question: str) -> set[str]:
    """What gives a question away in another text: each `RUN` of its words in a row, or all of them where it has fewer;
    nothing for fewer than three."""
    asked = words(question)
    run = min(RUN, len(asked))
    return {_run(asked[i : i + run]) for i in range(len(asked) - run + 1)} if run >= 3 else set()


def holds(text: str, runs: Iterable[str]) -> bool:
    """Whether a text has one of these runs of words."""
    known = _known(text)
    return any(one in known for one in runs)


@functools.lru_cache(maxsize=1024)
def _known(text: str) -> str:
    return _run(words(text))


def _run(found: Sequence[str]) -> str:
    """Words with spaces around all of them, so that one text holds another only at whole words."""
    return f" {' '.join(found)} "
