"""From replies of the candidates to marks, metrics of the two models, figures of each, and the line that sums up."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matura.evaluate import gates, grading, statistics
from matura.evaluate.asking import Score, Scored
from matura.evaluate.gates import Judged
from matura.evaluate.gates import Metric as Compared
from matura.evaluate.grading import Mark, Metric
from matura.evaluate.sitting import CHILD, PARENT, Paper, Replies, Scores, Section, bits

GENERAL, DOMAIN, CONTROL, TAUGHT = "general", "domain", "control", "answers"
GENERAL_METRICS = ("gold_bpb", "acc_norm")
"""What the tasks of the panel are summed up by."""


@dataclass(frozen=True)
class Margins:
    """The loss that is still acceptable: a share of the parent's bits per byte, and absolute accuracy."""

    bits: float = gates.BPB_MARGIN
    accuracy: float = gates.ACCURACY_MARGIN


def metric_names(sections: Sequence[Section]) -> list[str]:
    """Names of the metrics that models are compared by: what gates can be about."""
    texts = [one for one in sections if one.role in (DOMAIN, CONTROL)]
    names = [f"{one.name}.bpb" for one in texts]
    if any(one.role == "panel" for one in sections):
        names += [f"{GENERAL}.{name}" for name in GENERAL_METRICS]
    for one in sections:
        if one not in texts:
            names += [f"{one.name}.{metric.name}" for metric in _comparable(one)]
    return names


def _comparable(section: Section) -> list[Metric]:
    return [metric for metric in grading.metrics(section.task) if metric.unit != "perplexity"]


def marks(section: Section, metric: Metric, replies: Replies) -> list[Mark]:
    """What a metric makes of a model's replies, item by item."""
    return [metric.mark(section.task, item, one) for item, one in zip(section.items, replies, strict=True)]


def metrics(paper: Paper, scores: Scores, margins: Margins) -> list[Compared]:
    """All metrics by which the two models are compared, in the order of `metric_names`."""
    texts = [one for one in paper.sections if one.role in (DOMAIN, CONTROL)]
    panel = [one for one in paper.sections if one.role == "panel"]
    found = [_compared(f"{one.name}.bpb", [one], grading.METRICS["bpb"], scores, margins) for one in texts]
    for name in GENERAL_METRICS if panel else ():
        metric = grading.METRICS[name]
        found.append(_compared(f"{GENERAL}.{name}", panel, metric, scores, margins))
    for one in paper.sections:
        if one not in texts:
            found += [
                _compared(f"{one.name}.{metric.name}", [one], metric, scores, margins)
                for metric in _comparable(one)
            ]
    return found


def _compared(
    name: str, sections: Sequence[Section], metric: Metric, scores: Scores, margins: Margins
) -> Compared:
    both = [
        [mark for one in sections for mark in marks(one, metric, scores.replies[who][one.name])]
        for who in (PARENT, CHILD)
    ]
    parent, child = ([mark.value for mark in found] for found in both)
    if metric.unit == "bits":
        # One text on both sides: who is asked in a chat is not asked for the space before an answer.
        sizes = [int(min(mine.weight, other.weight)) for mine, other in zip(*both, strict=True)]
        return gates.bits_per_byte(name, parent, child, sizes, margins.bits)
    return gates.accuracy(name, parent, child, _chance(sections), margins.accuracy)


def _chance(sections: Sequence[Section]) -> float | None:
    """Of several tasks together, each by its number of items."""
    found = [(grading.chance(one.task, one.items), len(one.items)) for one in sections]
    if any(value is None for value, _ in found):
        return None
    return sum((value or 0.0) * count for value, count in found) / sum(count for _, count in found)


def standings(paper: Paper, scores: Scores, who: str, *, resamples: int, seed: int) -> list[dict[str, Any]]:
    """The figures of one model alone: a row for each task and metric, with its 95% interval over items.

    `detectable`: the change of a share that this many items can see, if one answer in ten differs between two models
    (see `statistics.detectable`). `published`: figures of others for that metric.
    """
    rows = []
    for section in paper.sections:
        for metric in grading.metrics(section.task):
            found = marks(section, metric, scores.replies[who][section.name])
            rows.append(_standing(section, metric, found, resamples, seed))
    return rows


def _standing(
    section: Section, metric: Metric, found: Sequence[Mark], resamples: int, seed: int
) -> dict[str, Any]:
    value, samples = statistics.mean(
        [mark.value for mark in found], [mark.weight for mark in found], resamples=resamples, seed=seed
    )
    shown = math.exp if metric.unit == "perplexity" else float
    low, high = statistics.interval(samples)
    share = metric.unit == "share"
    return {
        "task": section.name,
        "metric": metric.name,
        "unit": metric.unit,
        "better": metric.better,
        "value": shown(value),
        "low": shown(low),
        "high": shown(high),
        "stderr": float(samples.std()) if metric.unit != "perplexity" else None,
        "items": len(found),
        "split": section.task.split,
        "shots": section.task.shots.count,
        "chance": grading.chance(section.task, section.items) if share and metric.name != "mc2" else None,
        "detectable": statistics.detectable(0.1, len(found)) if share else None,
        "published": [
            one.model_dump() for one in section.task.published if one.metric == metric.name.partition(".")[0]
        ],
    }


def divergence(values: Sequence[tuple[float, int]], *, resamples: int, seed: int) -> dict[str, Any] | None:
    """Mean KL per token with its 95% interval over conversations; None when no token was scored."""
    scored = [(total, tokens) for total, tokens in values if tokens]
    if not scored:
        return None
    mean, samples = statistics.mean(
        [total for total, _ in scored], [n for _, n in scored], resamples=resamples, seed=seed
    )
    low, high = statistics.interval(samples)
    tokens = sum(n for _, n in scored)
    return {"mean": mean, "low": low, "high": high, "conversations": len(scored), "tokens": tokens}


def lines(paper: Paper, scores: Scores) -> Iterator[dict[str, Any]]:
    """A row for each item and answer: ids, marks and scores of the models, no texts."""
    for section in paper.sections:
        if section.role in (DOMAIN, CONTROL) and PARENT in scores.replies:
            yield from document_lines(paper, scores, section.name)
        else:
            yield from _item_lines(section, scores)
    for one, (total, tokens) in zip(paper.conversations, scores.kl, strict=True):
        yield {"task": "kl", "id": one.id, "nats": total, "tokens": tokens}


def _item_lines(section: Section, scores: Scores) -> Iterator[dict[str, Any]]:
    known = grading.metrics(section.task)
    for i, item in enumerate(section.items):
        row: dict[str, Any] = {"task": section.name, "id": item.id}
        if section.task.kind == "choices":
            row["gold"] = item.gold
            asked = grading.requests(section.task, item)
            row["bytes"] = [len(one.continuation.encode()) for one in asked if isinstance(one, Score)]
        for who in scores.replies:
            replies = scores.replies[who][section.name][i]
            logprobs = [one.logprob for one in replies if isinstance(one, Scored)]
            if logprobs:
                row[f"{who}_logprobs"] = logprobs
            row[who] = {metric.name: metric.mark(section.task, item, replies).value for metric in known}
        yield row


def document_lines(paper: Paper, scores: Scores, name: str) -> list[dict[str, Any]]:
    """A row for each document of a section: what both models paid for the same bytes."""
    section = next((one for one in paper.sections if one.name == name), None)
    if section is None or PARENT not in scores.replies:
        return []
    parent, child = (bits(scores.replies[who][name]) for who in (PARENT, CHILD))
    return [
        {
            "task": name,
            "id": item.id,
            "name": item.group or item.id,
            "bytes": p.bytes,
            "tokens": p.tokens,
            "parent_bits": p.bits,
            "child_bits": c.bits,
        }
        for item, p, c in zip(section.items, parent, child, strict=True)
    ]


def asked(paper: Paper) -> dict[str, list[str]]:
    """The ids of everything that was asked, by section."""
    ids = {section.name: [item.id for item in section.items] for section in paper.sections}
    return {**ids, "kl": [one.id for one in paper.conversations]} if paper.conversations else ids


def line(judged: Sequence[Judged]) -> str:
    """The exam in one line."""
    found: Mapping[str, Judged] = {one.name: one for one in judged}
    parts = []
    texts = ((DOMAIN, "documents"), (CONTROL, "control text"), (TAUGHT, "held-out answers"))
    for name, words in ((f"{one}.bpb", words) for one, words in texts):
        if name in found:
            one = found[name]
            parts.append(f"{words} {one.parent:.3f} -> {one.child:.3f} bits per byte ({_change(one)})")
    gold, right = found.get(f"{GENERAL}.gold_bpb"), found.get(f"{GENERAL}.acc_norm")
    if gold:
        parts.append(f"general ability {gold.verdict} ({_change(gold)} on right answers)")
    if right:
        parts.append(f"{right.parent:.0%} -> {right.child:.0%} right of {right.items}: {right.verdict}")
    if not parts:
        parts = [f"{one.name} {one.parent:.3f} -> {one.child:.3f}: {one.verdict}" for one in judged[:3]]
    return "; ".join(parts)


def line_of_one(rows: Sequence[Mapping[str, Any]]) -> str:
    """The figures of one model alone in one line: the first metric of each of the first tasks, texts last."""
    firsts: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        firsts.setdefault(row["task"], row)
    tasks = sorted(firsts, key=lambda name: name in (DOMAIN, CONTROL))
    parts = [f"{name} {firsts[name]['metric']} {firsts[name]['value']:.3f}" for name in tasks[:4]]
    return "; ".join(parts) + (f"; {len(tasks) - 4} more" if len(tasks) > 4 else "")


def _change(one: Judged) -> str:
    gain = one.relative_gain or 0.0
    return f"{abs(gain):.1%} {'lower' if gain >= 0 else 'higher'}"
