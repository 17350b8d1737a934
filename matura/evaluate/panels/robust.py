"""Robustness: the same questions as they are and changed, and what of the answers stands."""

from __future__ import annotations

from collections.abc import Sequence

from matura.core.errors import ConfigError
from matura.core.panel_settings import Robustness
from matura.evaluate import grading, spec, tasks
from matura.evaluate.asking import Reply
from matura.evaluate.grading import Metric
from matura.evaluate.panels.figures import Figure
from matura.evaluate.panels.sheet import Figures, Replies, Room, Sheet
from matura.evaluate.spec import Task
from matura.evaluate.tasks import Item, Version


def sheets(settings: Robustness, room: Room) -> list[Sheet]:
    """A sheet for each task. Raises ConfigError for a task that there is not, or that has no right answers to count."""
    return [_sheet(spec.find(name, room.sources.folder), settings, room) for name in settings.tasks]


def _sheet(task: Task, settings: Robustness, room: Room) -> Sheet:
    metric = next((one for one in grading.metrics(task) if one.unit == "share"), None)
    if metric is None:
        raise ConfigError(f"robustness: {task.name} has no right answers to count; take a task that has")
    names = ["", *settings.changes]
    versions = [
        tasks.load(task, room.sources, Version(settings.items, perturbation=name or None, seed=settings.seed))
        for name in names
    ]
    items = [tuple(found) for found in zip(*versions, strict=True)]
    asked = [[grading.requests(task, one) for one in found] for found in items]
    cuts = [[len(one) for one in found] for found in asked]

    def marks(replies: Replies) -> list[list[float]]:
        return [
            _marks(task, metric, found, _cut(one, sizes))
            for found, one, sizes in zip(items, replies, cuts, strict=True)
        ]

    return Sheet(
        f"robustness {task.name}",
        [found[0].id for found in items],
        [[request for one in found for request in one] for found in asked],
        lambda replies: _figures(names, metric, grading.chance(task, versions[0]), marks(replies)),
        lambda replies: [dict(zip(["as it is", *names[1:]], one, strict=True)) for one in marks(replies)],
    )


def _cut(replies: Sequence[Reply], sizes: Sequence[int]) -> list[Sequence[Reply]]:
    """The replies to each version of a question."""
    found, start = [], 0
    for size in sizes:
        found.append(replies[start : start + size])
        start += size
    return found


def _marks(
    task: Task, metric: Metric, versions: Sequence[Item], replies: Sequence[Sequence[Reply]]
) -> list[float]:
    return [metric.mark(task, item, one).value for item, one in zip(versions, replies, strict=True)]


def _figures(
    names: Sequence[str], metric: Metric, chance: float | None, marks: Sequence[Sequence[float]]
) -> Figures:
    """Right as it is and with each change, their difference, and the share of questions whose mark turned."""
    plain = [one[0] for one in marks]
    figures: Figures = [Figure(f"{metric.name}, as it is", plain, neutral=chance)]
    for place, name in enumerate(names[1:], start=1):
        other = [one[place] for one in marks]
        lost = [b - a for a, b in zip(plain, other, strict=True)]
        turned = [float(a != b) for a, b in zip(plain, other, strict=True)]
        figures += [
            Figure(metric.name, other, neutral=chance, part=name),
            Figure("change", lost, unit="difference", neutral=0.0, part=name),
            Figure("turned", turned, neutral=0.0, part=name),
        ]
    always = [float(all(one)) for one in marks]
    return [*figures, Figure("right in every form", always)]
