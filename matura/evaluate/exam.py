"""From raw scores of two models to metrics, results and the line that sums them up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matura.evaluate import gates, statistics
from matura.evaluate.gates import Judged, Metric
from matura.evaluate.score import Answer, Bits, answer
from matura.evaluate.sitting import CHILD, PARENT, Paper, Scores
from matura.evaluate.tasks import Item

Choices = Sequence[Sequence[tuple[float, int]]]
GENERAL, DOMAIN, CONTROL = "general", "domain", "control"


@dataclass(frozen=True)
class Margins:
    """The loss that is still acceptable: a share of the parent's bits per byte, and absolute accuracy."""

    bits: float = gates.BPB_MARGIN
    accuracy: float = gates.ACCURACY_MARGIN


def metric_names(panel: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Names of the metrics of an exam with these tasks and kinds of text: what gates can be about."""
    names = [f"{kind}.bpb" for kind in texts]
    for task in [GENERAL, *panel] if panel else []:
        names += [f"{task}.gold_bpb", f"{task}.acc_norm", *([f"{task}.acc"] if task != GENERAL else [])]
    return names


def text_metric(kind: str, parent: Sequence[Bits], child: Sequence[Bits], margins: Margins) -> Metric:
    """Bits per byte of documents, an item each. Both models are charged for the same bytes."""
    return gates.bits_per_byte(
        f"{kind}.bpb",
        [one.bits for one in parent],
        [one.bits for one in child],
        [one.bytes for one in parent],
        margins.bits,
    )


def panel_metrics(
    items: Sequence[Item], parent: Choices, child: Choices, margins: Margins
) -> Iterator[Metric]:
    """Right answers and their bits, over all tasks together and for each task."""
    answers = [
        (item, answer(item, p), answer(item, c)) for item, p, c in zip(items, parent, child, strict=True)
    ]
    tasks = list(dict.fromkeys(item.task for item in items))
    for task in [GENERAL, *tasks] if tasks else []:
        chosen = [one for one in answers if task in (GENERAL, one[0].task)]
        yield from _task_metrics(task, chosen, margins)


def _task_metrics(
    task: str, answers: Sequence[tuple[Item, Answer, Answer]], margins: Margins
) -> Iterator[Metric]:
    items = [item for item, _, _ in answers]
    parent, child = [p for _, p, _ in answers], [c for _, _, c in answers]
    chance = sum(item.chance for item in items) / len(items)
    yield gates.bits_per_byte(
        f"{task}.gold_bpb",
        [one.gold_bits for one in parent],
        [one.gold_bits for one in child],
        [one.gold_bytes for one in parent],
        margins.bits,
    )
    kinds = ("right_norm", "right") if task != GENERAL else ("right_norm",)
    for kind in kinds:
        yield gates.accuracy(
            f"{task}.{'acc_norm' if kind == 'right_norm' else 'acc'}",
            [getattr(one, kind) for one in parent],
            [getattr(one, kind) for one in child],
            chance,
            margins.accuracy,
        )


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


def metrics(paper: Paper, scores: Scores, margins: Margins) -> list[Metric]:
    """All metrics of an exam, in the order of `metric_names`."""
    found = [text_metric(kind, who[PARENT], who[CHILD], margins) for kind, who in scores.texts.items()]
    return [*found, *panel_metrics(paper.items, scores.choices[PARENT], scores.choices[CHILD], margins)]


def lines(paper: Paper, scores: Scores) -> Iterator[dict[str, Any]]:
    """A row for each question, document and answer: ids and scores of both models, no texts."""
    pairs = zip(paper.items, scores.choices[PARENT], scores.choices[CHILD], strict=True)
    for item, parent, child in pairs:
        yield {
            "task": item.task,
            "id": item.id,
            "gold": item.gold,
            "bytes": [size for _, size in parent],
            "parent_logprobs": [value for value, _ in parent],
            "child_logprobs": [value for value, _ in child],
        }
    for kind in paper.texts:
        yield from document_lines(paper, scores, kind)
    for one, (total, tokens) in zip(paper.conversations, scores.kl, strict=True):
        yield {"task": "kl", "id": one.id, "nats": total, "tokens": tokens}


def document_lines(paper: Paper, scores: Scores, kind: str) -> list[dict[str, Any]]:
    """A row for each document of a kind: what both models paid for the same bytes."""
    if kind not in paper.texts:
        return []
    who = scores.texts[kind]
    return [
        {
            "task": kind,
            "id": document.id,
            "name": document.source if kind == DOMAIN else document.id,
            "bytes": p.bytes,
            "tokens": p.tokens,
            "parent_bits": p.bits,
            "child_bits": c.bits,
        }
        for document, p, c in zip(paper.texts[kind], who[PARENT], who[CHILD], strict=True)
    ]


def asked(paper: Paper) -> dict[str, list[str]]:
    """The ids of everything that was asked, by task."""
    ids: dict[str, list[str]] = {}
    for item in paper.items:
        ids.setdefault(item.task, []).append(item.id)
    ids |= {kind: [document.id for document in texts] for kind, texts in paper.texts.items()}
    return {**ids, "kl": [one.id for one in paper.conversations]} if paper.conversations else ids


def line(judged: Sequence[Judged]) -> str:
    """The exam in one line."""
    found: Mapping[str, Judged] = {one.name: one for one in judged}
    parts = []
    for name, words in ((f"{DOMAIN}.bpb", "documents"), (f"{CONTROL}.bpb", "control text")):
        if name in found:
            one = found[name]
            parts.append(f"{words} {one.parent:.3f} -> {one.child:.3f} bits per byte ({_change(one)})")
    bits, right = found.get(f"{GENERAL}.gold_bpb"), found.get(f"{GENERAL}.acc_norm")
    if bits:
        parts.append(f"general ability {bits.verdict} ({_change(bits)} on right answers)")
    if right:
        parts.append(f"{right.parent:.0%} -> {right.child:.0%} right of {right.items}: {right.verdict}")
    return "; ".join(parts)


def _change(one: Judged) -> str:
    gain = one.relative_gain or 0.0
    return f"{abs(gain):.1%} {'lower' if gain >= 0 else 'higher'}"
