"""One annotator at one rankings file: keys in, what is shown out, judgements kept before anything else is shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from matura.align.ranking import items, session
from matura.align.ranking.bias import PositionBias, position_bias
from matura.align.ranking.journal import Journal, Judgement, now
from matura.core.preferences import Ranking


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts of prompts."""

    judged: int
    skipped: int
    left: int
    alike: int  # have fewer than two different answers, so there is nothing to rank

    @property
    def total(self) -> int:
        return self.judged + self.skipped + self.left


class Sitting:
    """A queue of prompts, the state of the keys, and the journal. `turn` counts the keys that were taken."""

    def __init__(
        self,
        journal: Journal,
        rows: Iterable[Ranking],
        annotator: str,
        seed: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        asked = list(rows)
        self.journal = journal
        self.annotator = annotator
        self.queue = items.queue(asked, annotator, seed)
        self.alike = len(asked) - len(self.queue)
        self.state = session.start(self.queue, frozenset(journal.judged_by(annotator)))
        self.turn = 0
        self._clock = clock
        self._opened = clock()

    @property
    def item(self) -> items.Item | None:
        """What is asked now; None when all is done."""
        return self.queue[self.state.at] if self.state.at < len(self.queue) else None

    @property
    def earlier(self) -> Judgement | None:
        """What this annotator said of the open item before: it stands until something else is saved."""
        return None if self.item is None else self.journal.judgements.get((self.item.row.id, self.annotator))

    def press(self, keys: Iterable[str]) -> None:
        """Take keys, one after another. Raises ArtifactError when a judgement cannot be kept: the state is then as
        it was before its key."""
        for key in keys:
            state, verdict = session.press(self.queue, self.state, key)
            if verdict is not None:
                self.journal.judge(self._judgement(verdict))
            if state.at != self.state.at:
                self._opened = self._clock()
            self.state = state
            self.turn += 1

    def progress(self) -> Progress:
        """How far this annotator is."""
        mine = self.journal.judged_by(self.annotator)
        done = [mine[one.row.id] for one in self.queue if one.row.id in mine]
        skipped = sum(one.skipped for one in done)
        return Progress(len(done) - skipped, skipped, len(self.queue) - len(done), self.alike)

    def bias(self) -> PositionBias | None:
        """Whether this annotator prefers positions."""
        return position_bias(row for row in self.journal.rows() if row.annotator == self.annotator)

    def _judgement(self, verdict: session.Verdict) -> Judgement:
        return Judgement(
            verdict.item.row.id,
            self.annotator,
            verdict.ranks,
            verdict.shown,
            round(max(0.0, self._clock() - self._opened), 1),
            now(),
        )
