"""From rankings to what updates learn from: token ids, with what the reference makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matura.align import preferred, reference
from matura.align.preference_batches import Known, PreferenceBatches, mismatched, unpaired
from matura.align.preferred import ALONE, Preferred
from matura.align.sequences import Prompted
from matura.core.preferences import Ranking
from matura.data.preferences import pairs
from matura.model.transformer import Transformer
from matura.tokenizer.conversation import Format
from matura.train.examples import CUT_AWAY, LONG


def in_ids(config: Any, rankings: Sequence[Ranking], format: Format, length: int) -> preferred.Made:
    """Pairs in at most `length` token ids each; for KTO thumbs, where a ranking has any, and both sides of its pairs
    where it has none.

    Of `config` (the stage's) `loss` and `truncation` count.
    """
    kto = config.loss.kind == "kto"
    thumbs = [row for row in rankings if kto and any(one.liked is not None for one in row.answers)]
    apart = {id(row) for row in thumbs}
    found = [pairs.of(row) for row in rankings if id(row) not in apart]
    made = preferred.from_pairs(
        (pair for its in found for pair in its), format, length, truncation=config.truncation
    )
    if alone := sum(not its for its in found):
        made.dropped[ALONE] += alone
    if not kto:
        return made
    more = preferred.from_thumbs(thumbs, format, length, truncation=config.truncation)
    return preferred.Made([*more.preferred, *map(unpaired, made.preferred)], made.dropped + more.dropped)


def why_nothing(length: int, dropped: Mapping[str, int]) -> str:
    """Why there is nothing to learn from, and what can be done."""
    told = ", ".join(f"{count:,} {reason}" for reason, count in sorted(dropped.items())) or "no rows"
    if dropped.get(LONG):
        return f"{told}. sequence={length} may be too short, or take truncation=cut."
    if dropped.get(CUT_AWAY):
        return f"{told}. sequence={length} is too short for these prompts."
    if dropped.get(ALONE):
        return f"{told}. Answers that were judged by themselves are for loss.kind=kto."
    return f"{told}. Give other preferences."


def batches(config: Any, known: Sequence[Known], model: Transformer | None = None) -> PreferenceBatches:
    """The rows of all updates. `model` is whose divergence KTO estimates."""
    return PreferenceBatches(
        known,
        tokens=config.tokens_per_batch,
        seed=config.seed,
        accumulate=config.accumulate,
        model=model if config.loss.kind == "kto" else None,
    )


@dataclass(frozen=True)
class Reference:
    """The model that never changes; `identity` says which it is and how its weights are held, and what it makes of
    answers is kept in `folder`. It reads at most `length` tokens at once."""

    model: Transformer
    identity: str
    folder: Path
    length: int

    def knows(
        self, config: Any, made: Sequence[Preferred], held: Sequence[Preferred]
    ) -> tuple[list[Known], list[Known]]:
        """Preferences to learn and held-out ones with log p of their answers under the reference, where the loss asks
        for it; of those to learn only what the updates will reach."""
        sides = [[Known(one) for one in side] for side in (made, held)]
        if not config.loss.reference:
            return sides[0], sides[1]
        plan = batches(config, sides[0])
        reached = plan.reached(plan.updates(config.epochs))
        others = [[Prompted(one.prompt, ()) for one in side] for side in (made, held)]
        if config.loss.kind == "kto":
            others = [mismatched(side, self.length, config.seed) for side in (made, held)]
        asked = [
            (side, i)
            for side in (0, 1)
            for i, one in enumerate(sides[side])
            if side == 1 or id(one) in reached
        ]
        prompted = [
            Prompted(other.prompt, (*sides[side][i].preferred.answers, *other.answers))
            for side, i in asked
            for other in (others[side][i],)
        ]
        found = reference.logprobs(self.model, prompted, self.identity, self.folder)
        for (side, i), told in zip(asked, found, strict=True):
            its = sides[side][i].preferred
            own, more = told[: len(its.answers)], others[side][i].answers
            sides[side][i] = Known(its, own, more[0], told[-1]) if more else Known(its, own)
        return sides[0], sides[1]
