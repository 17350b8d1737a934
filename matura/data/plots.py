"""The pictures of a corpus's report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matura.core.page import visible
from matura.core.picture import INK, panels, svg
from matura.data.thresholds import Threshold, curve

KEPT, LOST, PALE, TEXT = "#3b82c4", "#d1495b", "#8a93a3", "#e08e1b"
MARGINS = {"left": 0.075, "right": 0.985, "bottom": 0.225, "top": 0.965, "wspace": 0.2}
MANY = 10  # beyond it, the axis is logarithmic


def funnel(steps: Sequence[Mapping[str, Any]]) -> str:
    """What went on (dark) of what came in (pale), for each step."""

    def draw(axes: Any) -> None:
        ordered = list(reversed(steps))
        axes.barh(range(len(steps)), [one["documents_in"] for one in ordered], color=PALE, alpha=0.35)
        axes.barh(range(len(steps)), [one["documents_out"] for one in ordered], color=KEPT, height=0.5)
        for row, one in enumerate(ordered):
            axes.annotate(
                f"{one['documents_out']:,}",
                (one["documents_in"], row),
                (6, 0),
                textcoords="offset points",
                va="center",
            )
        axes.set_yticks(range(len(steps)), [short(one["name"]) for one in ordered])
        axes.margins(x=0.12)
        axes.xaxis.set_major_formatter("{x:,.6g}")
        axes.set_xlabel("documents that came in (pale) and went on (dark, with their number)")

    return svg(0.6 + 0.3 * len(steps), draw, "Documents in and out of every step")


def bars(rows: Sequence[tuple[str, float]], xlabel: str, title: str, colour: str = KEPT) -> str:
    """Horizontal bars of named numbers, the first on top. The marks of whole numbers are whole."""

    def draw(axes: Any) -> None:
        ordered = list(reversed(rows))
        axes.barh(range(len(rows)), [value for _, value in ordered], color=colour, height=0.65)
        axes.set_yticks(range(len(rows)), [short(name) for name, _ in ordered])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel(xlabel)
        axes.xaxis.set_major_formatter("{x:,.6g}")
        axes.locator_params(axis="x", nbins=6, integer=all(isinstance(value, int) for _, value in rows))

    return svg(0.55 + 0.24 * len(rows), draw, title)


def by_group(rows: Sequence[tuple[str, float]], xlabel: str, title: str, *, line: float | None = None) -> str:
    """Horizontal bars of percentages, with a dashed line at the percentage of all."""

    def draw(axes: Any) -> None:
        ordered = list(reversed(rows))
        axes.barh(range(len(rows)), [value for _, value in ordered], color=KEPT, height=0.65)
        axes.set_yticks(range(len(rows)), [short(name) for name, _ in ordered])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlim(0, max([1.0, line or 0.0, *(value for _, value in rows)]) * 1.03)
        axes.set_xlabel(xlabel)
        if line is not None:
            axes.axvline(line, color=LOST, linewidth=1.2, linestyle="--")

    return svg(0.55 + 0.24 * len(rows), draw, title)


def before_after(rows: Sequence[tuple[str, float, float]], xlabel: str, title: str) -> str:
    """Two bars for each name, before (pale) and after (dark) something was done, in percent."""

    def draw(axes: Any) -> None:
        ordered = list(reversed(rows))
        for shift, column, colour in ((0.2, 1, PALE), (-0.2, 2, KEPT)):
            places = [place + shift for place in range(len(rows))]
            axes.barh(places, [row[column] for row in ordered], color=colour, height=0.36)
        axes.set_yticks(range(len(rows)), [short(name) for name, _, _ in ordered])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlim(left=0)
        axes.set_xlabel(xlabel)

    return svg(0.55 + 0.3 * len(rows), draw, title)


def distribution(name: str, histogram: Mapping[str, Sequence[float]], bounds: Sequence[Threshold]) -> str:
    """The distribution of a measure with its thresholds, and what each would keep at other values."""
    edges, counts = histogram["edges"], histogram["counts"]

    def scale(axes: Any) -> None:
        first = next((i for i, count in enumerate(counts) if count), 0)
        low = min([edges[first], *(one.value for one in bounds)])
        if edges[-1] > MANY:
            axes.set_xscale("symlog", linthresh=1)
            axes.set_xlim(0.8 * low if low >= 1 else 0, edges[-1])
        else:
            axes.set_xlim(min(0.0, low), max([edges[-1], *(one.value * 1.1 for one in bounds)]))
        axes.set_xlabel(short(name.replace("_", " ")))
        for one in bounds:
            axes.axvline(one.value, color=LOST, linewidth=1.2, linestyle="--")

    def left(axes: Any) -> None:
        total = sum(counts) or 1
        axes.stairs([100 * count / total for count in counts], edges, fill=True, color=KEPT)
        axes.set_ylabel("documents in a bin, %")
        scale(axes)

    def right(axes: Any) -> None:
        for one in bounds:
            for of, name, colour in (("counts", "documents", KEPT), ("bytes", "text", TEXT)):
                points = curve(histogram, one.least, of)
                if not one.least:  # beyond the largest value all is kept
                    points = [*points, (max(edges[-1], one.value * 1.1), 1.0)]
                label = f"{name} with {'at least' if one.least else 'at most'}"
                style = "-" if one.least else "-."
                axes.plot(
                    [x for x, _ in points], [100 * y for _, y in points], style, color=colour, label=label
                )
        axes.set_ylabel("kept, %")
        axes.set_ylim(0, 103)
        axes.grid(axis="y", alpha=0.2, linewidth=0.5, color=INK)
        axes.legend(fontsize=7)
        scale(axes)

    both: list[Callable[[Any], None]] = [left, right] if bounds else [left]
    return panels(2.1, both, f"Distribution of {name}, and what is kept", MARGINS)


def short(name: str, most: int = 40) -> str:
    """A name as a label: cut, and with nothing that starts a formula."""
    name = visible(name, 200)
    return (name if len(name) <= most else name[: most - 1] + "…").replace("$", r"\$").replace(
        "\n", " "
    ) or "–"
