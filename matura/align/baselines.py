"""What a reward model has to beat: the length of an answer, and a Bradley-Terry model of its words alone."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matura.core.preferences import Pair
from matura.data.regression import Rows, dot, logistic, minimise

Floats = NDArray[np.float64]
WORD = re.compile(r"\w+|[^\w\s]")
MIN_PAIRS = 2  # of the training pairs in which a word must occur, to be one that is known
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
FOLDS = 4


def longer(pairs: Sequence[Pair]) -> list[float]:
    """By how many characters the chosen answer is longer: margins of the rule that longer is better."""
    return [float(len(pair.chosen.text) - len(pair.rejected.text)) for pair in pairs]


def shorter(pairs: Sequence[Pair]) -> list[float]:
    """The same for the rule that shorter is better."""
    return [-one for one in longer(pairs)]


def words(text: str) -> dict[str, float]:
    """Words and signs of a text with log(1 + how often each occurs)."""
    return {word: math.log1p(count) for word, count in Counter(WORD.findall(text.lower())).items()}


@dataclass(frozen=True)
class WordModel:
    """A worth for each word: an answer's reward is the sum over its words, and pairs are Bradley-Terry."""

    worth: dict[str, float]
    penalty: float

    def margins(self, pairs: Sequence[Pair]) -> list[float]:
        """The reward of the chosen answer minus that of the rejected, for every pair."""
        return [self.reward(pair.chosen.text) - self.reward(pair.rejected.text) for pair in pairs]

    def reward(self, text: str) -> float:
        """Of an answer, whatever was asked."""
        return math.fsum(self.worth.get(word, 0.0) * much for word, much in words(text).items())


def fit(pairs: Sequence[Pair], groups: Sequence[str]) -> WordModel:
    """The word model of training pairs, regularised as suits them best: the penalty is that of `PENALTIES` with the
    lowest loss in cross-validation by `groups` (pairs of one conversation stay together). Deterministic."""
    differences = [_difference(pair) for pair in pairs]
    occurs = Counter(word for row in differences for word in row)
    known = {word: i for i, word in enumerate(sorted(w for w, n in occurs.items() if n >= MIN_PAIRS))}
    if not known:
        return WordModel({}, PENALTIES[-1])
    rows, weights = _rows(differences, known), np.array([pair.weight for pair in pairs])
    names = {name: i for i, name in enumerate(sorted(set(groups)))}
    fold_P = np.array([names[name] % FOLDS for name in groups])
    penalty = PENALTIES[-1]
    if len(names) >= FOLDS:
        penalty = min(PENALTIES, key=lambda one: _held_out_loss(rows, weights, fold_P, one))
    worth = _fitted(rows, weights, penalty)
    return WordModel({word: float(worth[i]) for word, i in known.items()}, penalty)


def _difference(pair: Pair) -> dict[str, float]:
    """Words of the chosen answer minus those of the rejected."""
    made = words(pair.chosen.text)
    for word, much in words(pair.rejected.text).items():
        made[word] = made.get(word, 0.0) - much
    return {word: much for word, much in made.items() if much}


def _rows(differences: Sequence[dict[str, float]], known: dict[str, int]) -> Rows:
    """As sparse rows. Their last column, which is there so that none is empty, is zero: an order has no bias."""
    index: list[int] = []
    values: list[float] = []
    starts: list[int] = []
    for row in differences:
        starts.append(len(index))
        mine = sorted((known[word], much) for word, much in row.items() if word in known)
        index += [*(i for i, _ in mine), len(known)]
        values += [*(much for _, much in mine), 0.0]
    return Rows(np.arange(len(known)), np.array(index), np.array(starts), np.array(values))


def _fitted(rows: Rows, weights: Floats, penalty: float) -> Floats:
    """The worths with the least -log sigmoid(margin), weighted, plus half the penalty times their squares."""

    def loss(worth: Floats) -> tuple[float, Floats]:
        margin = rows @ worth
        gradient = rows.transposed(weights * (logistic(margin) - 1)) + penalty * worth
        return dot(weights, np.logaddexp(0.0, -margin)) + 0.5 * penalty * dot(worth, worth), gradient

    return minimise(loss, np.zeros(len(rows.columns) + 1))


def _held_out_loss(rows: Rows, weights: Floats, fold_P: NDArray[np.int64], penalty: float) -> float:
    total = 0.0
    for fold in range(FOLDS):
        learned, out = np.flatnonzero(fold_P != fold), np.flatnonzero(fold_P == fold)
        worth = _fitted(rows.take(learned), weights[learned], penalty)
        total += dot(weights[out], np.logaddexp(0.0, -(rows.take(out) @ worth)))
    return total
