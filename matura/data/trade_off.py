"""Scale against cleanliness: what every threshold keeps of documents and text, and what others would keep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matura.core.files import size_text
from matura.data import plots
from matura.data.figures import Table, percent, table
from matura.data.tally import BYTES_PER_TOKEN
from matura.data.thresholds import Threshold, curve, keeping, kept, quantiles

MAX_PLOTS = 48  # distributions drawn
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
SHARES = (0.99, 0.95, 0.9)  # of the text, for which the overview names a threshold

Histogram = Mapping[str, Any]
Steps = Sequence[Mapping[str, Any]]


def overview(steps: Steps, bounds: Sequence[Threshold]) -> Table:
    """One row for each threshold: what this rule alone keeps of what came to its step, the strictest first, and which
    values would keep more."""
    found = _measured(steps)
    rows = []
    for one in bounds:
        if one.measure in found:
            histogram = found[one.measure]
            documents, size = (_kept(histogram, one, one.value, of) for of in ("counts", "bytes"))
            others = [f"{keeping(histogram, one.least, share):g}" for share in SHARES]
            cells = (
                one.measure,
                f"{side(one)} {one.value:g}",
                percent(documents, sum(histogram["counts"])),
                *_text(size, sum(histogram["bytes"])),
                *others,
            )
            rows.append((size / max(1, sum(histogram["bytes"])), cells))
    heads = ["rule", "in use", "documents kept", "text kept", "share", "tokens (about)"]
    heads += [f"{share:.0%} of the text with" for share in SHARES]
    return table(heads, [cells for _, cells in sorted(rows)], 100)


def measures(steps: Steps, bounds: Sequence[Threshold]) -> Iterator[dict[str, Any]]:
    """A distribution and its trade-off for every measure, those with a threshold first."""
    found = _measured(steps)
    limits = {name: [one for one in bounds if one.measure == name] for name in found}
    for number, name in enumerate(sorted(found, key=lambda one: (not limits[one], one))):
        histogram = _shares(found[name])
        spread = zip(QUANTILES, quantiles(histogram, QUANTILES), strict=True)
        yield {
            "name": name,
            "svg": plots.distribution(name, histogram, limits[name]) if number < MAX_PLOTS else "",
            "spread": ", ".join(f"{share:.0%} below about {value:g}" for share, value in spread),
            "tables": [_trade_off(histogram, one) for one in limits[name]],
        }


def side(bound: Threshold) -> str:
    """Which values pass, in words."""
    return "at least" if bound.least else "at most"


def _measured(steps: Steps) -> dict[str, Histogram]:
    found = {name: one for step in steps for name, one in step["measures"].items()}
    return {name: one for name, one in found.items() if sum(one["counts"])}


def _shares(histogram: Histogram) -> Histogram:
    """Of a measure that never exceeds 1: the last bin holds the ones alone and is drawn as narrow as the others."""
    edges = histogram["edges"]
    return {**histogram, "edges": [*edges[:-1], 1.01]} if len(edges) > 1 and edges[-2] == 1 else histogram


def _trade_off(histogram: Histogram, bound: Threshold) -> Table:
    """What about nine other thresholds would have kept, those in use among them."""
    points = curve(histogram, bound.least)
    changing = [
        point[0]
        for i, point in enumerate(points)
        if point[1] != points[max(0, i - 1)][1] or point[1] != points[min(len(points) - 1, i + 1)][1]
    ]
    total, size = sum(histogram["counts"]), sum(histogram["bytes"])
    rows = []
    for value in sorted({*changing[:: max(1, len(changing) // 8)], bound.value}):
        documents, text = (_kept(histogram, bound, value, of) for of in ("counts", "bytes"))
        name = f"{value:g}{' (in use)' if value == bound.value else ''}"
        rows.append((name, f"{documents:,.0f}", percent(documents, total), *_text(text, size)))
    heads = [side(bound), "documents kept (about)", "share", "text kept (about)", "share", "tokens (about)"]
    return table(heads, rows)


def _kept(histogram: Histogram, bound: Threshold, value: float, of: str) -> float:
    return sum(histogram[of]) * kept(histogram["edges"], histogram[of], value, bound.least)


def _text(size: float, total: float) -> tuple[str, str, str]:
    """Bytes for people, their share, and tokens."""
    return size_text(round(size)), percent(size, total), f"{size / BYTES_PER_TOKEN:,.0f}"
