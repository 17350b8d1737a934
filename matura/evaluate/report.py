"""One self-contained HTML page about an exam: verdict, figures, plots, samples, where it all came from.

Nothing is loaded from anywhere, there is no script, and every text from outside is escaped: the page works
offline and is safe to pass on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matura.core import page
from matura.evaluate import plots

TEMPLATE = Path(__file__).with_name("report.html")
MAX_TEXT = 4000  # characters shown of one sample answer
MAX_ROWS = 60  # lines of a table of settings or counts


@dataclass(frozen=True)
class Context:
    """What a report tells besides the exam's results; everything may be missing.

    `model`, `parent`: their names for people. `training`: rows of the fine-tuning's metrics.jsonl.
    `curation`: the corpus's report.json. `lineage`: nested nodes as `core.lineage.tree` makes them. `costs`:
    a mapping for each stage, with `stage`, `name` and `seconds`.
    """

    model: str = "the model"
    parent: str = "its parent"
    training: Sequence[Mapping[str, Any]] = ()
    curation: Mapping[str, Any] | None = None
    lineage: Mapping[str, Any] | None = None
    costs: Sequence[Mapping[str, Any]] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)


def render(results: Mapping[str, Any], context: Context) -> str:
    """The page. `results` is what an evaluation writes to results.json."""
    metrics = [_row(one) for one in results["metrics"]]
    return page.render(
        TEMPLATE,
        filters={"seconds": page.seconds},
        results=results,
        model=context.model,
        parent=context.parent,
        gated=[row for row in metrics if row["gated"]],
        others=[row for row in metrics if not row["gated"]],
        plots=list(_plots(results, context.training)),
        samples=[{key: _cut(text) for key, text in sample.items()} for sample in results["samples"]],
        curation=table(context.curation or {}),
        lineage=context.lineage,
        costs=context.costs,
        total_seconds=sum(float(cost["seconds"]) for cost in context.costs),
        settings=table(context.settings),
        environment=table(context.environment),
    )


def _row(one: Mapping[str, Any]) -> dict[str, Any]:
    """One metric as text: figures in its own unit, the difference and its interval as child minus parent."""
    show = _unit(one["name"])
    low, high = one["low"], one["high"]
    if one["better"] == "lower":  # the interval is of the gain; the table shows the difference
        low, high = -high, -low
    return {
        "name": one["name"],
        "label": label(one["name"]),
        "parent": show(one["parent"]),
        "child": show(one["child"]),
        "difference": show(one["difference"], True),
        "relative": _relative(one),
        "interval": f"{show(low, True)} … {show(high, True)}",
        "level": f"{100 * one['level']:.3g}%",
        "margin": show(one["margin"]) if one["margin"] else "–",
        "verdict": one["verdict"],
        "why": one["why"],
        "count": one["items"],  # a template would take `items` for the method
        "better": one["better"],
        "gated": one["gated"],
        "chance": f"chance {one['chance']:.0%}" if one["chance"] is not None else "",
    }


def _relative(one: Mapping[str, Any]) -> str:
    """Bits also as a share of the parent's; accuracies are shares already."""
    if one["relative_gain"] is None or not _in_bits(one["name"]):
        return ""
    gain = one["relative_gain"]
    return f"{abs(gain):.1%} {'lower' if gain >= 0 else 'higher'}"


def _unit(name: str) -> Any:
    def bits(value: float, signed: bool = False) -> str:
        return f"{value:+.4f}" if signed else f"{value:.4f}"

    def share(value: float, signed: bool = False) -> str:
        return f"{100 * value:+.1f}%" if signed else f"{100 * value:.1f}%"

    return bits if _in_bits(name) else share


_LABELS = {
    "domain.bpb": "your documents, held out",
    "control.bpb": "unrelated prose (control)",
    "general.gold_bpb": "general ability: bits of the right answers",
    "general.acc_norm": "general ability: share of right answers",
}
LOSSES = {"loss": "trained", "heldout_loss": "held out"}  # names in metrics.jsonl, and for people
FORGETTING = {"general_bpb": "General text, bits per byte", "general_kl": "Divergence from the parent"}
_TASKS = {"hellaswag": "HellaSwag", "arc_easy": "ARC-Easy", "piqa": "PIQA"}


def label(name: str) -> str:
    """A metric's name for people."""
    if " > " in name:
        return "gain on your documents beyond the control's"
    task, _, figure = name.partition(".")
    words = {"acc": "right", "acc_norm": "right, by length", "gold_bpb": "bits of the right answers"}
    return _LABELS.get(name, f"{_TASKS.get(task, task)}: {words.get(figure, figure)}")


def _plots(results: Mapping[str, Any], training: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    """Title, what it says, and SVG of each plot there is data for."""
    bars = [_bar(one) for one in results["metrics"] if _in_bits(one["name"])]
    if bars:
        about = "How many percent fewer bits per byte the child needs. To the right is better."
        yield {"title": "What was learned, what was kept", "about": about, "svg": plots.gains(bars)}
    documents = [
        {"name": one["name"], "gain": 1 - one["child_bits"] / one["parent_bits"]}
        for one in results["documents"]
        if one["parent_bits"] > 0
    ]
    if documents:
        about = "Held-out documents: none of them was trained on."
        yield {"title": "Gain of each document", "about": about, "svg": plots.per_document(documents)}
    for name, about, series, smooth in _curves(training):
        yield {"title": name, "about": about, "svg": plots.curve(series, name.lower(), smooth)}


def _in_bits(name: str) -> bool:
    return name.endswith("bpb") and " > " not in name


def _bar(one: Mapping[str, Any]) -> dict[str, Any]:
    scale = one["parent"] or 1.0
    return {
        "name": label(one["name"]),
        "gain": one["gain"] / scale,
        "low": one["low"] / scale,
        "high": one["high"] / scale,
    }


Series = dict[str, list[tuple[float, float]]]


def _curves(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, Series, list[str]]]:
    """The training curves that a run logged: losses together, and each figure of the forgetting meter."""
    found: Series = {}
    for row in rows:
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float) and math.isfinite(value):
                found.setdefault(name, []).append((float(row["step"]), float(value)))
    losses = {words: found[name] for name, words in LOSSES.items() if name in found}
    if any(len(line) > 1 for line in losses.values()):
        about = "Nats per token; pale: each step of training, dark: its running mean."
        yield "Loss", about, losses, [LOSSES["loss"]]
    for name, words in FORGETTING.items():
        if len(found.get(name, ())) > 1:
            about = "The forgetting meter, on general text that was held out: a rise is forgetting."
            yield words, about, {"held out": found[name]}, []


def table(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings or counts as rows (a.b.c, text); long lists by their length and first entries."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            rows += table(value, f"{name}.")
        elif isinstance(value, list | tuple) and len(str(value)) > 120:
            shown = "; ".join(str(x) for x in value[:3])[:240]
            rows.append((name, f"{len(value)}: {shown} …"))
        else:
            rows.append((name, "–" if value is None or value in ("", [], (), {}) else str(value)[:400]))
    if len(rows) > MAX_ROWS and not prefix:
        return [*rows[:MAX_ROWS], ("…", f"{len(rows) - MAX_ROWS} more")]
    return rows


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + " …"
