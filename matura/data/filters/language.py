"""Language identification with eldc (offline, n-grams of bytes, 60 languages), thresholds by language, routing.

The detector reads 1,000 bytes. Of a longer text, pieces spread evenly over it are read and their scores averaged, so a
translated licence at the top or English options in a manual do not decide alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from matura.core.corpus_settings import Languages
from matura.core.errors import ConfigError
from matura.core.records import Document
from matura.data.steps import Outcome, drop

UNDETERMINED = "und"
"""ISO 639-2 code of what was not told: too few letters, or a score below the threshold."""
PIECE = 1000  # bytes the detector reads; no text has more characters than bytes
PIECES = 5
LETTER_BYTES = 24  # least letters, in bytes of UTF-8: 24 of Latin, 12 of Cyrillic, 8 of Chinese script
ALTERNATIVES = 5  # languages whose scores are taken from each piece

Detect = Callable[[str], dict[str, float]]


def make(**settings: Any) -> LanguageStep:
    """The step, from settings of `corpus_settings.Languages`. Raises ConfigError for a code that is not known."""
    config = Languages(**settings)
    detect, known = detector()
    for code in (*config.keep, *config.thresholds, *config.filters):
        if code not in known and code != UNDETERMINED:
            raise ConfigError(
                f"languages: {code!r} is no language that can be told; there are {', '.join(sorted(known))}, and "
                f"{UNDETERMINED} for what cannot be told."
            )
    return LanguageStep(frozenset(config.keep), config.threshold, config.thresholds, detect)


@dataclass(frozen=True)
class LanguageStep:
    """Writes meta["language"] and drops what is not to be kept ("language"), or cannot be told ("undetermined").

    A language that the source named stays where none can be told. Source code (kind "code") passes as it is: its
    language is no language of people. Counts by language; measures `language.score` (0 where too few letters).
    """

    keep: frozenset[str]
    threshold: float
    thresholds: dict[str, float]
    detect: Detect
    name: str = field(default="language")

    def __call__(self, documents: Sequence[Document]) -> Outcome:
        outcome = Outcome()
        scores = outcome.measures.setdefault("language.score", [])
        for document in documents:
            if document.meta.get("kind") == "code":
                outcome.counts["language.code"] += 1
                outcome.kept.append(document)
                scores.append(math.nan)
                continue
            best, score = identify(document.text, self.detect)
            scores.append(score)
            code = best if score >= self.thresholds.get(best, self.threshold) else UNDETERMINED
            if code == UNDETERMINED:
                code = document.meta.get("language") or UNDETERMINED
            outcome.counts[f"language.{code}"] += 1
            if not self.keep or code in self.keep:
                outcome.kept.append(replace(document, meta={**document.meta, "language": code}))
            else:
                reason = "undetermined" if code == UNDETERMINED else "language"
                outcome.dropped.append(drop(document, self.name, reason, f"{best}, score {score:.2f}"))
        return outcome


def identify(text: str, detect: Detect) -> tuple[str, float]:
    """(language, mean score over the pieces, 0 to 1); ("und", 0) for a text of too few letters."""
    pieces = _pieces(text)
    if not _enough_letters(pieces):
        return UNDETERMINED, 0.0
    total: Counter[str] = Counter()
    for piece in pieces:
        total.update(detect(piece))
    if not total:
        return UNDETERMINED, 0.0
    # Of equal ones the first in the alphabet, so that the order of pieces never decides.
    best = min(total, key=lambda code: (-total[code], code))
    return best, total[best] / len(pieces)


def _pieces(text: str) -> list[str]:
    if len(text) <= PIECE:
        return [text]
    count = min(PIECES, -(-len(text) // PIECE))
    step = (len(text) - PIECE) / (count - 1)
    return [text[round(n * step) : round(n * step) + PIECE] for n in range(count)]


def _enough_letters(pieces: Sequence[str]) -> bool:
    found = 0
    for piece in pieces:
        for word in piece.split():
            found += len(
                (word if word.isalpha() else "".join(filter(str.isalpha, word))).encode(errors="replace")
            )
            if found >= LETTER_BYTES:
                return True
    return False


def detector() -> tuple[Detect, frozenset[str]]:
    """The detector of this process and the codes it knows."""
    import eldc

    eldc.init()
    one = eldc.instance()
    one.set_scores(ALTERNATIVES)

    def detect(text: str) -> dict[str, float]:
        # The detector ends at a zero and takes valid Unicode only.
        scores: dict[str, float] = one.detect_details(
            text.replace("\0", " ").encode(errors="replace").decode()
        ).scores
        return scores

    return detect, frozenset(eldc.LANGUAGES)
