"""People's rankings put beside the samples they are about: by prompt and by the text of the answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from matura.core.preferences import Ranking
from matura.data.preferences.pairs import compared
from matura.data.preferences.sides import prompt_id

SAME = 1e-9
"""Means nearer than this are a tie: sums of the same fractions in another order."""


@dataclass(frozen=True)
class Matched:
    """The samples, each with the ranks that people gave (None for an answer that nobody ranked), and what of the
    people's work found no place."""

    rows: tuple[Ranking, ...]
    ranked: int
    unknown_prompts: tuple[str, ...] = ()
    unknown_answers: int = 0
    annotators: tuple[str, ...] = ()


def match(samples: Iterable[Ranking], people: Iterable[Ranking]) -> Matched:
    """Give every sampled answer the rank that people gave it.

    Several people's ranks of one prompt become one by Borda's count: an answer gets, from everybody who ranked it, the
    share of the other answers that it beat there (a tie beats half), and the means of these shares are ranked. So
    people count alike, however many answers each of them ranked.
    """
    rows = list(samples)
    known = {prompt_id(row) for row in rows}
    by_prompt: dict[str, list[Ranking]] = defaultdict(list)
    unknown: list[str] = []
    for one in people:
        if (key := prompt_id(one)) in known:
            by_prompt[key].append(one)
        else:
            unknown.append(one.id)
    lost = 0
    made, names = [], set[str]()
    for row in rows:
        views = by_prompt.get(prompt_id(row), [])
        texts = {one.text for one in row.answers}
        lost += sum(answer.text not in texts for view in views for answer in view.answers)
        merged = _merged(row, views)
        made.append(merged)
        if any(one.rank is not None for one in merged.answers):
            names |= {view.annotator for view in views if view.annotator}
    ranked = sum(any(one.rank is not None for one in row.answers) for row in made)
    return Matched(tuple(made), ranked, tuple(unknown), lost, tuple(sorted(names)))


def _merged(row: Ranking, views: Sequence[Ranking]) -> Ranking:
    """A sampled prompt with one rank from all who ranked it; old ranks are gone."""
    shares: dict[str, list[float]] = defaultdict(list)
    for view in views:
        for text, share in _shares(view).items():
            shares[text].append(share)
    mean = {text: sum(one) / len(one) for text, one in shares.items()}
    present = [mean[one.text] for one in row.answers if one.text in mean]
    answers = tuple(
        replace(
            one,
            rank=1 + sum(other > mean[one.text] + SAME for other in present) if one.text in mean else None,
        )
        for one in row.answers
    )
    names = sorted({view.annotator for view in views if view.annotator})
    return replace(row, answers=answers, annotator=", ".join(names))


def _shares(view: Ranking) -> dict[str, float]:
    """Text -> the share of the other answers that it beats, of one person's view; an answer alone says nothing."""
    points: dict[str, list[float]] = defaultdict(list)
    for one, other, sign in compared(view):
        points[one.text].append(0.5 + 0.5 * sign)
        points[other.text].append(0.5 - 0.5 * sign)
    return {text: sum(found) / len(found) for text, found in points.items()}
