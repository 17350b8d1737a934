"""People's rankings put beside the samples they are about: by prompt and by the text of the answer."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from matura.core.preferences import Answer, Ranking
from matura.data.preferences.selection import worth

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
    known = {asked(row.messages) for row in rows}
    by_prompt: dict[str, list[Ranking]] = defaultdict(list)
    unknown: list[str] = []
    for one in people:
        if (key := asked(one.messages)) in known:
            by_prompt[key].append(one)
        else:
            unknown.append(one.id)
    lost = 0
    made, names = [], set[str]()
    for row in rows:
        views = by_prompt.get(asked(row.messages), [])
        texts = {one.text for one in row.answers}
        lost += sum(answer.text not in texts for view in views for answer in view.answers)
        merged = _merged(row, views)
        made.append(merged)
        if any(one.rank is not None for one in merged.answers):
            names |= {view.annotator for view in views if view.annotator}
    ranked = sum(any(one.rank is not None for one in row.answers) for row in made)
    return Matched(tuple(made), ranked, tuple(unknown), lost, tuple(sorted(names)))


def asked(messages: Sequence[Mapping[str, Any]]) -> str:
    """What is equal for equal prompts: roles and contents, and tool calls where there are any."""
    return json.dumps([{k: v for k, v in one.items() if k != "weight"} for one in messages], sort_keys=True)


def _merged(row: Ranking, views: Sequence[Ranking]) -> Ranking:
    """A sampled prompt with one rank from all who ranked it; old ranks are gone."""
    shares: dict[str, list[float]] = defaultdict(list)
    for view in views:
        for text, share in _shares(view.answers).items():
            shares[text].append(share)
    mean = {text: sum(one) / len(one) for text, one in shares.items()}
    present = [mean[one.text] for one in row.answers if one.text in mean]
    answers = tuple(
        replace(one, rank=1 + sum(other > mean[one.text] + SAME for other in present) if one.text in mean else None)
        for one in row.answers
    )
    names = sorted({view.annotator for view in views if view.annotator})
    return replace(row, answers=answers, annotator=", ".join(names))


def _shares(answers: Sequence[Answer]) -> dict[str, float]:
    """Text -> the share of the other answers that it beats, of one person's view; an answer alone says nothing."""
    judged = [(one.text, value) for one, value in zip(answers, worth(answers), strict=True) if value is not None]
    if len(judged) < 2:
        return {}
    return {
        text: (sum(value > other for _, other in judged) + 0.5 * (sum(value == other for _, other in judged) - 1))
        / (len(judged) - 1)
        for text, value in judged
    }
