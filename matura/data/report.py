"""The report of a corpus: the numbers as JSON, a self-contained page, and a data card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matura.core import page
from matura.core.files import atomic_write, size_text, write_json
from matura.data import card, plots
from matura.data.thresholds import Threshold, curve, kept, quantiles, thresholds

TEMPLATE = Path(__file__).with_name("report.html")
MAX_SAMPLE = 500  # characters shown of a dropped document
MAX_DETAIL = 200
MAX_ROWS = 40  # of a table
MAX_BARS = 20
MAX_PLOTS = 48  # distributions drawn
MAX_REASONS = 60  # with samples
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
GROUPS = {"sources": "Sources", "languages": "Languages", "licenses": "Licences"}

Table = dict[str, Any]


def write(folder: Path, funnel: Mapping[str, Any]) -> None:
    """report.json, report.html and README.md (the data card) in `folder`, from what `funnelling.gather` made."""
    bounds = thresholds(funnel["settings"])
    told = [{"measure": one.measure, "keeps": _side(one), "value": one.value} for one in bounds]
    write_json(folder / "report.json", {**funnel, "thresholds": told})
    for name, text in (("report.html", render(funnel)), ("README.md", card.render(funnel))):
        with atomic_write(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def render(funnel: Mapping[str, Any]) -> str:
    """The page. Texts of documents are escaped, cut, and their control characters named."""
    bounds = thresholds(funnel["settings"])
    return page.render(
        TEMPLATE,
        line=page.visible(str(funnel.get("line", "")), 2000),
        figures=list(_figures(funnel)),
        measures=list(_measures(funnel, bounds)),
        samples=list(_samples(funnel)),
        balance=_flat(funnel.get("balance") or {}),
        settings=_flat(funnel["settings"]),
    )


def _figures(funnel: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Title, picture and table of each thing that was counted."""
    steps = funnel["steps"]
    if steps:
        yield _figure("Every step", plots.funnel(steps), _step_table(steps))
    reasons = _most(
        {f"{step['name']}: {key}": count for step in steps for key, count in step["dropped"].items()}
    )
    yield from _counted("Reasons for leaving documents out", reasons, "documents", plots.LOST)
    sizes = sorted((int(size), count) for size, count in funnel.get("clusters", {}).items())
    clusters = [(f"{size} copies", count) for size, count in sizes]
    yield from _counted("Clusters of duplicates by size", clusters, "clusters")
    for key, title in GROUPS.items():
        group = funnel.get(key, {})
        if group and set(group) != {""}:
            yield _group(title, group)
    pii = funnel.get("pii", {})
    found = _most({key: count for key, count in pii.get("counts", pii).items() if key != "documents"})
    yield from _counted("Personal data and secrets found", found, "occurrences")


def _figure(title: str, picture: str, table: Table) -> dict[str, Any]:
    return {"title": title, "svg": picture, "table": table}


def _counted(
    title: str, rows: Sequence[tuple[str, int]], unit: str, colour: str = plots.KEPT
) -> Iterator[dict[str, Any]]:
    if rows:
        table = _table(["", unit], [(name, f"{count:,}") for name, count in rows])
        yield _figure(title, plots.bars(rows[:MAX_BARS], unit, title, colour), table)


def _group(title: str, group: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    ordered = sorted(group.items(), key=lambda one: (-one[1]["bytes"], one[0]))
    rows = [
        (name or "unnamed", f"{one['documents']:,}", size_text(one["bytes"]), f"{one['tokens']:,}")
        for name, one in ordered
    ]
    bars = [(name or "unnamed", one["bytes"] / 1e6) for name, one in ordered[:MAX_BARS]]
    return _figure(
        title, plots.bars(bars, "MB", title), _table(["", "documents", "text", "tokens (about)"], rows)
    )


def _step_table(steps: Sequence[Mapping[str, Any]]) -> Table:
    heads = ["step", "documents in", "out", "left out", "text in", "out", "tokens in (about)", "out", "time"]
    rows = []
    for one in steps:
        came, went = one["documents_in"], one["documents_out"]
        tokens = [one.get(f"tokens_{way}", one[f"bytes_{way}"] // 4) for way in ("in", "out")]
        rows.append(
            (
                one["name"],
                f"{came:,}",
                f"{went:,}",
                f"{(came - went) / came:.1%}" if came else "–",
                *(size_text(one[f"bytes_{way}"]) for way in ("in", "out")),
                *(f"{count:,}" for count in tokens),
                page.seconds(one["seconds"]),
            )
        )
    return _table(heads, rows, MAX_ROWS * 2)


def _measures(funnel: Mapping[str, Any], bounds: Sequence[Threshold]) -> Iterator[dict[str, Any]]:
    """A distribution and its trade-off for every measure, those with a threshold first."""
    found = {name: one for step in funnel["steps"] for name, one in step["measures"].items()}
    found = {name: one for name, one in found.items() if sum(one["counts"])}
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


def _shares(histogram: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a measure that never exceeds 1: the last bin holds the ones alone and is drawn as narrow as the others."""
    edges = histogram["edges"]
    return {**histogram, "edges": [*edges[:-1], 1.01]} if len(edges) > 1 and edges[-2] == 1 else histogram


def _trade_off(histogram: Mapping[str, Any], bound: Threshold) -> Table:
    """What about nine other thresholds would have kept, those in use among them."""
    points = curve(histogram, bound.least)
    changing = [
        point
        for i, point in enumerate(points)
        if point[1] != points[max(0, i - 1)][1] or point[1] != points[min(len(points) - 1, i + 1)][1]
    ]
    picked = dict(changing[:: max(1, len(changing) // 8)])
    picked[bound.value] = kept(histogram["edges"], histogram["counts"], bound.value, bound.least)
    rows = [
        (f"{value:g}{' (in use)' if value == bound.value else ''}", f"{share:.1%}")
        for value, share in sorted(picked.items())
    ]
    return _table([_side(bound), "would keep"], rows)


def _side(bound: Threshold) -> str:
    return "at least" if bound.least else "at most"


def _samples(funnel: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Examples by step and reason, cut and with control characters named."""
    listed = [
        (step, reason, rows)
        for step, reasons in funnel.get("samples", {}).items()
        for reason, rows in reasons.items()
    ]
    for step, reason, rows in listed[:MAX_REASONS]:
        yield {
            "title": page.visible(f"{step}: {reason}", MAX_DETAIL),
            "rows": [
                {
                    "source": page.visible(row["source"] or row["id"], MAX_DETAIL),
                    "detail": page.visible(row["detail"], MAX_DETAIL),
                    "text": page.visible(row["sample"], MAX_SAMPLE),
                }
                for row in rows[:5]
            ],
        }


def _most(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(((name, n) for name, n in counts.items() if n), key=lambda one: (-one[1], one[0]))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], most: int = MAX_ROWS) -> Table:
    shown = [[page.visible(cell, MAX_DETAIL) for cell in row] for row in rows[:most]]
    return {"heads": heads, "rows": shown, "more": max(0, len(rows) - most)}


def _flat(values: Mapping[str, Any]) -> Table:
    """Nested values as rows (a.b.c, text)."""
    return _table(["", "value"], list(_pairs(values, "")), 400)


def _pairs(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _pairs(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", "–" if value in (None, "", [], {}, ()) else str(value)
