"""What a person is asked: a prompt and its answers, in an order that says nothing about them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from matura.core.errors import MaturaError
from matura.core.preferences import Answer, Ranking

MOST = 9
"""Answers that are shown at once: each has a key."""

OF_A_JUDGEMENT = ("shown", "seconds", "judged")
"""Provenance that a judgement adds: the order in which answers were shown, how long it took, and when it was."""


@dataclass(frozen=True, slots=True)
class Item:
    """A prompt with its answers. `shown[p]` are the indexes, in `row.answers`, of what stands at position p: one, or
    several answers of one text, which are judged together."""

    row: Ranking
    shown: tuple[tuple[int, ...], ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts in the order of the positions."""
        return tuple(self.row.answers[same[0]].text for same in self.shown)

    def ranks(self, places: Sequence[int | None]) -> tuple[int | None, ...]:
        """Places by position as ranks by answer: 1, 2, ... without gaps, equal places are equal ranks."""
        used = sorted({place for place in places if place is not None})
        by_answer: list[int | None] = [None] * len(self.row.answers)
        for same, place in zip(self.shown, places, strict=True):
            for answer in same:
                by_answer[answer] = None if place is None else used.index(place) + 1
        return tuple(by_answer)


def unjudged(row: Ranking, most: int | None = None) -> Ranking:
    """A row without what anybody thought of its answers, and with the first `most` of them."""
    answers = tuple(Answer(one.text, end=one.end, source=one.source) for one in row.answers[:most])
    provenance = {name: value for name, value in row.provenance.items() if name not in OF_A_JUDGEMENT}
    return replace(row, answers=answers, annotator="", provenance=provenance)


def item(row: Ranking, annotator: str, seed: int) -> Item:
    """The row as this annotator sees it: positions are shuffled by a hash of seed, annotator, prompt and answer.

    Raises MaturaError for more texts than there are keys.
    """
    same: dict[str, list[int]] = {}
    for index, answer in enumerate(row.answers):
        same.setdefault(answer.text, []).append(index)
    if len(same) > MOST:
        raise MaturaError(
            f"{row.id}: {len(same)} answers, and a person ranks at most {MOST} at once; --answers {MOST} takes the "
            "first of each prompt."
        )
    groups = sorted(same.values(), key=lambda group: _draw(seed, annotator, row.id, group[0]))
    return Item(row, tuple(tuple(group) for group in groups))


def queue(rows: Iterable[Ranking], annotator: str, seed: int) -> tuple[Item, ...]:
    """All that can be ranked, in order: what has fewer than two different answers is left out."""
    items = (item(row, annotator, seed) for row in rows)
    return tuple(one for one in items if len(one.shown) > 1)


def _draw(seed: int, annotator: str, identity: str, answer: int) -> bytes:
    return hashlib.sha256(repr((seed, annotator, identity, answer)).encode("utf-8", "replace")).digest()
