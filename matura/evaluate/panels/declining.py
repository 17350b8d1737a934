"""Abstention: does a model say so when the text does not answer?"""

from __future__ import annotations

from collections.abc import Sequence

from matura.core.panel_settings import Abstention
from matura.evaluate import abstention
from matura.evaluate.abstention import Declining, Question
from matura.evaluate.asking import Write
from matura.evaluate.panels.figures import Figure
from matura.evaluate.panels.sheet import (
    Figures,
    Replies,
    Room,
    Sheet,
    choices,
    likeliest,
    likelihood,
    scored,
    written,
)


def sheet(settings: Abstention, room: Room) -> Sheet | None:
    """Pairs of questions, by the likeliest of four answers and by what is written."""
    if not settings.pairs:
        return None
    asked = list(abstention.questions(settings.pairs))

    def chosen(replies: Replies) -> list[int]:
        return [likeliest(scored(one), q.choices) for q, one in zip(asked, replies, strict=True)]

    return Sheet(
        "abstention",
        [one.id for one in asked],
        [[*choices(one.prompt, one.choices), Write(one.prompt, ("\n",), settings.tokens)] for one in asked],
        lambda replies: [
            *_apart(asked, replies),
            *_figures("chosen", abstention.chosen(asked, chosen(replies)), 1 / 4),
            *_certainty(asked, replies, chosen(replies)),
            *_figures("written", abstention.wrote(asked, [written(one)[0] for one in replies]), 0.0),
        ],
        lambda replies: [
            {"chosen": a, "gold": q.gold, "declined": abstention.declined(written(one)[0])}
            for q, a, one in zip(asked, chosen(replies), replies, strict=True)
        ],
    )


def _figures(part: str, found: Declining, chance: float) -> Figures:
    right = Figure("right with evidence", found.right, neutral=chance, part=part)
    without = Figure("declined without evidence", found.without, neutral=chance, part=part)
    needlessly = Figure("declined with evidence", found.needlessly, neutral=chance, part=part)
    gain = Figure("gain", found.gains, unit="difference", neutral=0.0, part=part)
    return [right, without, needlessly, gain]


def _apart(asked: Sequence[Question], replies: Replies) -> Figures:
    """What does not depend on how fond the model is of the sentence that declines."""
    margins, best = [], []
    for question, one in zip(asked, replies, strict=True):
        logprobs = [found.logprob for found in scored(one)]
        answers = {i: value for i, value in enumerate(logprobs) if i != question.declining}
        margins.append(logprobs[question.declining] - max(answers.values()))
        if question.answerable:
            best.append(float(max(answers, key=answers.__getitem__) == question.gold))
    apart = abstention.told_apart(margins[::2], margins[1::2])
    return [
        Figure("pairs told apart", apart, neutral=0.5, part="likelihood"),
        Figure("right among the answers, with evidence", best, neutral=1 / 3, part="likelihood"),
    ]


def _certainty(asked: Sequence[Question], replies: Replies, chosen: Sequence[int]) -> Figures:
    """Right answers among all, and among the half that the model is surest of."""
    sure = [
        abstention.certainty(likelihood(scored(one), q.choices))
        for q, one in zip(asked, replies, strict=True)
    ]
    right = [float(a == q.gold) for q, a in zip(asked, chosen, strict=True)]
    return [
        Figure("right", right, neutral=1 / 4, part="chosen"),
        Figure("right, surest half", abstention.surest(sure, right), neutral=1 / 4, part="chosen"),
    ]
