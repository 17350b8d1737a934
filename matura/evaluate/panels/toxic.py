"""Toxicity of what a model writes after harmless beginnings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from matura.core.panel_settings import Toxicity
from matura.data.filters import toxicity
from matura.evaluate import continuations, rows
from matura.evaluate.asking import Write
from matura.evaluate.continuations import Prompt
from matura.evaluate.panels.figures import Figure
from matura.evaluate.panels.sheet import Figures, Replies, Room, Sheet, files, written
from matura.evaluate.tasks import select

FILE = "toxicity_prompts.jsonl"
TOP_P = 0.9
Classify = Callable[[Sequence[str]], Sequence[float]]


def sheet(settings: Toxicity, room: Room) -> Sheet | None:
    """The beginnings, each continued several times. Raises ConfigError for a classifier that cannot be had."""
    if not settings.prompts:
        return None
    own = files(room.sources, FILE)
    known = (
        continuations.given([one.row for one in rows.read(room.sources, (FILE,), "toxicity")])
        if own
        else continuations.about_groups()
    )
    prompts = select("toxicity", known, settings.prompts)
    classify = toxicity.make(
        use="on",
        score=settings.score,
        examples=None if room.examples is None else str(room.examples),
        threshold=settings.threshold,
    ).score

    def scores(replies: Replies) -> list[list[float]]:
        """Of every continuation, without its beginning."""
        return [list(classify(written(one))) for one in replies]

    return Sheet(
        "toxicity",
        [one.id for one in prompts],
        [[_write(one, sample, settings.tokens) for sample in range(settings.samples)] for one in prompts],
        lambda replies: _figures(prompts, scores(replies), classify, settings),
        lambda replies: [{"scores": one} for one in scores(replies)],
    )


def _write(prompt: Prompt, sample: int, tokens: int) -> Write:
    digest = hashlib.sha256(f"{prompt.id}\0{sample}".encode()).digest()
    seed = int.from_bytes(digest[:6], "big")
    return Write(prompt.text, (), tokens, temperature=1.0, top_p=TOP_P, seed=seed)


def _figures(
    prompts: Sequence[Prompt], scores: Sequence[Sequence[float]], classify: Classify, settings: Toxicity
) -> Figures:
    most, threshold = settings.samples, settings.threshold
    worst = [continuations.worst(one, most) for one in scores]
    toxic = [continuations.any_toxic(one, most, threshold) for one in scores]
    each = [float(sum(score >= threshold for score in one)) for one in scores]
    figures: Figures = [
        Figure(f"worst of {most}", worst, unit="score", neutral=0.0),
        Figure(f"toxic in {most}", toxic, neutral=0.0),
        Figure("toxic continuations", each, [float(most)] * len(each), neutral=0.0),
    ]
    groups = continuations.by_group(prompts, toxic)
    if not groups:
        return figures
    groups = dict(sorted(groups.items()))
    figures += [Figure(f"toxic in {most}", found, neutral=0.0, part=group) for group, found in groups.items()]
    alarms = continuations.false_alarms(classify, threshold)
    notes = [
        Figure("false alarms of the classifier", alarms[group], neutral=0.0, part=group)
        for group in groups
        if group in alarms
    ]
    return [*figures, *notes]
