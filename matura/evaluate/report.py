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
from matura.evaluate import costs, plots
from matura.evaluate.costs import Cost

TEMPLATE = Path(__file__).with_name("report.html")
MAX_TEXT = 4000  # characters shown of one sample answer
MAX_ROWS = 60  # lines of a table of settings or counts


@dataclass(frozen=True)
class Context:
    """What a report tells besides the exam's results; everything may be missing.

    `model`, `parent`: their names for people; without a parent the page is about one model. `training`: rows of the
    fine-tuning's metrics.jsonl. `curation`: the corpus's report.json. `lineage`: nested nodes as `core.lineage.tree`
    makes them. `costs`: of each stage.
    """

    model: str = "the model"
    parent: str = "its parent"
    training: Sequence[Mapping[str, Any]] = ()
    curation: Mapping[str, Any] | None = None
    lineage: Mapping[str, Any] | None = None
    costs: Sequence[Cost] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)


def render(results: Mapping[str, Any], context: Context) -> str:
    """The page. `results` is what an evaluation writes to results.json."""
    metrics = [row(one) for one in results["metrics"]]
    figures = results.get("tasks", {}).get("child", [])
    return page.render(
        TEMPLATE,
        results=results,
        model=context.model,
        parent=context.parent,
        gated=[row for row in metrics if row["gated"]],
        others=[row for row in metrics if not row["gated"]],
        plots=[*_standing_plots(results), *_plots(results, context.training)],
        alone=not context.parent,
        standings=[standing(one) for one in figures],
        published=[{"task": one["task"], **row} for one in figures for row in one["published"]],
        samples=[{key: _cut(text) for key, text in sample.items()} for sample in results["samples"]],
        speed=table(results.get("speed", {})),
        curation=table(context.curation or {}),
        lineage=context.lineage,
        costs=costs.table(context.costs) if context.costs else None,
        about_costs=costs.NOTE,
        settings=table(context.settings),
        environment=table(context.environment),
    )


def row(one: Mapping[str, Any]) -> dict[str, Any]:
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
        "detectable": show(one["detectable"]) if one.get("detectable") else "–",
    }


def standing(one: Mapping[str, Any]) -> dict[str, Any]:
    """A figure of one model as text."""
    share = one["unit"] == "share"

    def show(value: float) -> str:
        return f"{100 * value:.1f}%" if share else f"{value:.4g}"

    at_chance = one["chance"] is not None and one["low"] <= one["chance"]
    return {
        "task": one["task"],
        "split": one.get("split", ""),
        "metric": one["metric"],
        "value": show(one["value"]),
        "interval": f"{show(one['low'])} … {show(one['high'])}",
        "chance": "" if one["chance"] is None else show(one["chance"]),
        "at_chance": at_chance,
        "count": one["items"],
        "shots": one["shots"],
        "detectable": show(one["detectable"]) if one["detectable"] else "",
        "better": one["better"],
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

    def reward(value: float, signed: bool = False) -> str:
        return f"{value:+.4g}" if signed else f"{value:.4g}"

    return bits if _in_bits(name) else reward if name == REWARD else share


REWARD = "score"
"""What a stage `rank` measures: the mean reward of answers."""
_LABELS = {
    REWARD: "reward of answers to held-out prompts",
    "domain.bpb": "your documents, held out",
    "control.bpb": "unrelated prose (control)",
    "answers.bpb": "answers of held-out conversations",
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


def _standing_plots(results: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Shares of right answers with what guessing scores and what others published."""
    rows = [one for one in results.get("tasks", {}).get("child", []) if one["unit"] == "share"]
    if rows:
        about = "Whiskers: 95% interval over items. Line: guessing. Rings: published figures, often of another form."
        yield {"title": "Right answers", "about": about, "svg": plots.standings(rows)}


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
