"""Whether a place on the screen wins: answers are shuffled, so an annotator who reads prefers no position."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from matura.core.preferences import Ranking
from matura.evaluate import statistics


@dataclass(frozen=True, slots=True)
class PositionBias:
    """Of the pairs with a preference, the share in which the answer shown earlier was preferred; .5 is no bias.

    `share` is a mean over rankings (each counts once), `low` and `high` its 95% bootstrap interval over rankings.
    `best` has, for each position, how often the best answer stood there (ties share it).
    """

    rankings: int
    pairs: int
    share: float
    low: float
    high: float
    best: tuple[float, ...]

    @property
    def biased(self) -> bool:
        return not self.low <= 0.5 <= self.high


def position_bias(rows: Iterable[Ranking]) -> PositionBias | None:
    """Over rankings that say in which order they were shown (`provenance["shown"]`); None when there is no pair."""
    shares: list[float] = []
    pairs, best = 0, list[float]()
    for row in rows:
        ranks = _by_position(row)
        wins = [before < after for before, after in combinations(ranks, 2) if before != after]
        if not wins:
            continue
        pairs += len(wins)
        shares.append(sum(wins) / len(wins))
        best += [0.0] * (len(ranks) - len(best))
        first = [place for place, rank in enumerate(ranks) if rank == min(ranks)]
        for place in first:
            best[place] += 1 / len(first)
    if not shares:
        return None
    share, samples = statistics.mean(shares)
    low, high = statistics.interval(samples)
    return PositionBias(len(shares), pairs, share, low, high, tuple(best))


def _by_position(row: Ranking) -> Sequence[int]:
    """The ranks in the order shown, without answers that were not judged."""
    shown = row.provenance.get("shown", "").split()
    if sorted(shown, key=lambda one: (len(one), one)) != [str(i) for i in range(len(row.answers))]:
        return []
    ranks = (row.answers[int(index)].rank for index in shown)
    return [rank for rank in ranks if rank is not None]
