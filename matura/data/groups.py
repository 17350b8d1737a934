"""The part of a report about groups of people: who is mentioned before and after every step, and how often the
toxicity filter is wrong about harmless sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matura.data import plots
from matura.data.figures import figure, percent, table

FEW = 50  # mentions below which a share says little


def figures(funnel: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What `balance` and the toxicity filter counted; nothing when neither was on."""
    counted = [step for step in funnel["steps"] if step["mentions"]]
    if counted:
        yield _mentions(counted)
    rates = funnel.get("filters", {}).get("toxicity")
    if rates:
        yield _false_alarms(rates, funnel["settings"]["toxicity"]["threshold"])


def _mentions(steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first, last = steps[0], steps[-1]
    names = {key.partition(".")[2] for step in steps for key in step["mentions"]}
    came = {name: first["mentions"].get(f"in.{name}", 0) for name in names}
    left = {name: last["mentions"].get(f"out.{name}", 0) for name in names}
    ordered = sorted(names, key=lambda name: (name.partition(".")[0], -came[name], name))
    rows = [
        (
            name,
            f"{came[name]:,}",
            *(f"{step['mentions'].get(f'out.{name}', 0):,}" for step in steps),
            percent(left[name], came[name]),
        )
        for name in ordered
    ]
    text = 100 * last["bytes_out"] / max(1, first["bytes_in"])
    bars = [(name, 100 * left[name] / came[name]) for name in ordered if came[name] >= FEW]
    label = "mentions kept, % (dashed: text kept)"
    picture = plots.by_group(bars, label, "Mentions kept by group", line=text) if bars else ""
    note = (
        f"Mentions of groups of people before the first step and after every step. Of all text, {text:.1f}% was kept: "
        f"a group far below was cut more than others. Groups with fewer than {FEW} mentions are only in the table."
    )
    heads = ["group", "before", *(step["name"] for step in steps), "kept"]
    return figure("Balance: mentions of groups", picture, table(heads, rows), note)


def _false_alarms(rates: Mapping[str, Any], threshold: float) -> dict[str, Any]:
    same, used, raised = rates["same"], rates["used"], rates["thresholds"]
    names = sorted(same, key=lambda name: (-same[name], name))
    gaps = rates["gap"]
    note = (
        "How often the filter would drop neutral or kind sentences about each group, which is always wrong. "
    )
    if raised and any(same.values()):
        title = "Rates of false alarms before and after thresholds by group"
        bars = [(name, 100 * same[name], 100 * used[name]) for name in names]
        label = "sentences dropped, %, with one threshold (pale) and as used (dark)"
        picture = plots.before_after(bars, label, title)
        note += (
            f"With one threshold the highest and the lowest rate are {100 * gaps['same']:.1f} points apart; with a "
            f"threshold for each group, as used, {100 * gaps['used']:.1f}."
        )
    else:
        title = "Rates of false alarms by group"
        plain = [(name, 100 * same[name]) for name in names]
        picture = plots.by_group(plain, "sentences dropped, %", title) if any(same.values()) else ""
        note += (
            f"The highest and the lowest rate are {100 * gaps['same']:.1f} points apart. All groups have one "
            "threshold; toxicity.group_thresholds: equal-rates would even the rates out."
            if any(same.values())
            else "It drops none of them."
        )
    rows = [
        (name, f"{same[name]:.1%}", f"{used[name]:.1%}", f"{raised.get(name, threshold):.3g}")
        for name in names
    ]
    heads = ["group", "with one threshold", "as used", "threshold used"]
    return figure("Balance: false alarms of the toxicity filter", picture, table(heads, rows), note)
