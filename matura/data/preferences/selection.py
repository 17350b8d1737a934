"""Which of several answers to one prompt is learned: the rule of reward-ranked fine-tuning.

RAFT (arXiv:2304.06767, algorithm 1) learns, of the K answers that the model itself wrote to a prompt x, the one with
the highest reward:

    y*(x) = argmax_k r(x, y_k)        loss = - sum_x log p(y*(x) | x)

The choice is made within each prompt. Taking the best answers of all prompts together instead would choose easy
prompts, whose every answer is good, and teach nothing about the hard ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from matura.core.preferences import Answer, Ranking
from matura.core.records import CUT, Conversation
from matura.data.preferences.pairs import value_of

NOT_JUDGED, TOO_LOW, TOO_CLOSE = "not judged", "best too low", "best too close to worst"
"""Why nothing is learned from a prompt."""


def best(ranking: Ranking) -> Answer | None:
    """The answer that is judged best, of equals the first. None when nobody judged any, or all that is known is that
    people dislike them."""
    judged = [
        (value, -i) for i, one in enumerate(ranking.answers) if (value := _worth(ranking, one)) is not None
    ]
    if not judged:
        return None
    chosen = ranking.answers[-max(judged)[1]]
    return None if (chosen.rank, chosen.score, chosen.liked) == (None, None, False) else chosen


def _worth(ranking: Ranking, answer: Answer) -> float | None:
    """More is better: by rank where several have one, else by score, else by thumb (see `pairs.value_of`)."""
    if (value := value_of(ranking)) is not None:
        return value(answer)
    return answer.score if answer.liked is None else float(answer.liked)


def ranked(ranking: Ranking, scores: Sequence[float | None]) -> Ranking:
    """The same answers with scores, and the ranks that follow from them: equal scores are ties, and 1, 1 is followed by
    3. An answer without a score has no rank."""
    known = [score for score in scores if score is not None]
    answers = [
        replace(one, score=score, rank=None if score is None else 1 + sum(other > score for other in known))
        for one, score in zip(ranking.answers, scores, strict=True)
    ]
    return replace(ranking, answers=tuple(answers))


@dataclass(frozen=True, slots=True)
class Demands:
    """What a prompt must fulfil to be learned from. `least`: the score of its best answer; `above`: a score that the
    best must exceed; `margin`: how far its best and worst scores are apart."""

    least: float | None = None
    above: float | None = None
    margin: float = 0.0


def why_not(ranking: Ranking, demands: Demands) -> str:
    """Why nothing is to be learned from a prompt; "" when its best answer is good enough. Where only people ranked,
    there are no scores to demand."""
    chosen = best(ranking)
    if chosen is None:
        return NOT_JUDGED
    known = [one.score for one in ranking.answers if one.score is not None]
    if chosen.score is None or not known:
        return ""
    if demands.least is not None and chosen.score < demands.least:
        return TOO_LOW
    if demands.above is not None and chosen.score <= demands.above:
        return TOO_LOW
    return TOO_CLOSE if max(known) - min(known) < demands.margin else ""


def select(rows: Iterable[Ranking], demands: Demands) -> tuple[list[Ranking], Counter[str]]:
    """The prompts to learn from, in their order, and how many are left out for each reason."""
    kept: list[Ranking] = []
    dropped: Counter[str] = Counter()
    for row in rows:
        if reason := why_not(row, demands):
            dropped[reason] += 1
        else:
            kept.append(row)
    return kept, dropped


def lesson(ranking: Ranking) -> Conversation | None:
    """The prompt with its best answer as a conversation to learn; None when nobody judged any answer."""
    chosen = best(ranking)
    return None if chosen is None else answered(ranking, chosen, ranking.id)


def answered(ranking: Ranking, answer: Answer, name: str) -> Conversation:
    """The prompt with one of its answers as the conversation `name`. An answer that was cut off is marked, so that
    nobody learns to stop there."""
    said = {"role": "assistant", "content": answer.text} | (CUT if answer.end == "length" else {})
    return Conversation(name, (*ranking.messages, said), tools=ranking.tools)
