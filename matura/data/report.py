"""The report of a corpus: the numbers as JSON, a self-contained page, and a data card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matura.core import page
from matura.core.files import atomic_write, size_text, write_json
from matura.data import card, groups, plots, trade_off
from matura.data.figures import MAX_DETAIL, MAX_ROWS, Table, figure, flat, most, percent, table
from matura.data.thresholds import thresholds
from matura.data.work import READ

TEMPLATE = Path(__file__).with_name("report.html")
MAX_SAMPLE = 500  # characters shown of a dropped document
MAX_BARS = 20
MAX_REASONS = 60  # with samples
GROUPS = {"languages": "Languages", "licenses": "Licences"}


def write(folder: Path, funnel: Mapping[str, Any]) -> None:
    """report.json, report.html and README.md (the data card) in `folder`, from what `funnelling.gather` made."""
    bounds = thresholds(funnel["settings"])
    told = [{"measure": one.measure, "keeps": trade_off.side(one), "value": one.value} for one in bounds]
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
        overview=trade_off.overview(funnel["steps"], bounds),
        measures=list(trade_off.measures(funnel["steps"], bounds)),
        samples=list(_samples(funnel)),
        settings=flat(funnel["settings"]),
    )


def _figures(funnel: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Title, words, picture and table of each thing that was counted."""
    yield from dropping(funnel)
    sizes = sorted((int(size), count) for size, count in funnel.get("clusters", {}).items())
    clusters = [(f"{size} copies", count) for size, count in sizes]
    yield from _counted("Clusters of duplicates by size", clusters, "clusters")
    if funnel["sources"]:
        yield _mixture(funnel)
    for key, title in GROUPS.items():
        group = funnel.get(key, {})
        if group and set(group) != {""}:
            yield _group(title, group)
    pii = funnel.get("pii", {})
    found = most({key: count for key, count in pii.get("counts", pii).items() if key != "documents"})
    yield from _counted("Personal data and secrets found", found, "occurrences")
    yield from groups.figures(funnel)
    if funnel.get("canary"):
        yield _canaries(funnel["canary"])


def dropping(funnel: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The figures of what went through every step, and why documents were left out."""
    steps = funnel["steps"]
    if steps:
        yield figure("Every step", plots.funnel(steps), _step_table(steps))
    reasons = most({f"{step['name']}: {key}": n for step in steps for key, n in step["dropped"].items()})
    yield from _counted("Reasons for leaving documents out", reasons, "documents", plots.LOST)


def _counted(
    title: str, rows: Sequence[tuple[str, int]], unit: str, colour: str = plots.KEPT
) -> Iterator[dict[str, Any]]:
    if rows:
        listed = table(["", unit], [(name, f"{count:,}") for name, count in rows])
        yield figure(title, plots.bars(rows[:MAX_BARS], unit, title, colour), listed)


def _mixture(funnel: Mapping[str, Any]) -> dict[str, Any]:
    """What came of every source and what it gives to the corpus."""
    read: Mapping[str, int] = next((step["counts"] for step in funnel["steps"] if step["name"] == READ), {})
    settings = funnel["settings"]
    weights = {name: one.get("weight", 1.0) for name, one in (settings.get("sources") or {}).items()}
    mixed = (settings.get("mixture") or {}).get("total") is not None
    total = sum(one["bytes"] for one in funnel["sources"].values())
    names = {*funnel["sources"], *(key.partition(".")[2] for key in read)}
    kept = {name: funnel["sources"].get(name) or {"documents": 0, "bytes": 0, "tokens": 0} for name in names}
    rows = []
    for name in sorted(names, key=lambda name: (-kept[name]["bytes"], name)):
        one, came = kept[name], {kind: read.get(f"{kind}.{name}", 0) for kind in ("documents", "bytes")}
        cells = [name or "unnamed", f"{came['documents']:,}", f"{read.get(f'passed over.{name}', 0):,}"]
        cells += [f"{one['documents']:,}", size_text(came["bytes"]), size_text(one["bytes"])]
        cells += [percent(one["bytes"], came["bytes"]), f"{one['tokens']:,}", percent(one["bytes"], total)]
        if mixed:
            cells.append(percent(weights.get(name, 1.0), sum(weights.values()) or 1.0))
        rows.append(cells)
    heads = ["source", "documents read", "passed over", "kept", "text read", "kept", "share kept"]
    heads += ["tokens (about)", "share of the corpus", *(["wanted by weight"] if mixed else [])]
    note = "What was read of every source, and its share of the corpus, what is held out included."
    bars = [(row[0], kept[name]["bytes"] / 1e6) for row, name in zip(rows, _by_size(kept), strict=True)]
    picture = plots.bars(bars[:MAX_BARS], "MB in the corpus", "Mixture by source")
    return figure("Mixture by source", picture, table(heads, rows), note)


def _by_size(kept: Mapping[str, Mapping[str, int]]) -> list[str]:
    return sorted(kept, key=lambda name: (-kept[name]["bytes"], name))


def _group(title: str, group: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """The corpus by language or licence."""
    total = sum(one["bytes"] for one in group.values())
    rows = [
        (
            name or "not named",
            f"{group[name]['documents']:,}",
            size_text(group[name]["bytes"]),
            percent(group[name]["bytes"], total),
            f"{group[name]['tokens']:,}",
        )
        for name in _by_size(group)
    ]
    bars = [(name or "not named", group[name]["bytes"] / 1e6) for name in _by_size(group)[:MAX_BARS]]
    heads = ["", "documents", "text", "share", "tokens (about)"]
    return figure(title, plots.bars(bars, "MB", title), table(heads, rows))


def _canaries(canary: Mapping[str, Any]) -> dict[str, Any]:
    """How many secrets were planted how often; the secrets themselves are in no report."""
    rows = [
        (f"{rate} time{'s' if int(rate) > 1 else ''}", f"{count:,}", f"{int(rate) * count:,}")
        for rate, count in canary["rates"].items()
    ]
    note = (
        f"{canary['secrets']:,} made-up secrets were planted in {canary['documents']:,} documents to learn from, so "
        f"that memorisation can be measured after training. {canary['file']} beside this report lists them with the "
        "ids of their documents; they are not shown here. Keep that file from whoever may not know them."
    )
    heads = ["planted", "secrets", "places"]
    return figure("Canaries", "", table(heads, rows), note)


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
                percent(came - went, came),
                *(size_text(one[f"bytes_{way}"]) for way in ("in", "out")),
                *(f"{count:,}" for count in tokens),
                page.seconds(one["seconds"]),
            )
        )
    return table(heads, rows, MAX_ROWS * 2)


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
