"""The pictures of a report, as inline SVG that takes the page's own text colour and font."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matura.core.picture import INK, panels, svg

BETTER, WORSE, NEUTRAL, SECOND = "#2a9d6f", "#d1495b", "#8a93a3", "#3b82c4"
SIDE_BY_SIDE = {"left": 0.08, "right": 0.985, "bottom": 0.21, "top": 0.95, "wspace": 0.28}


def gains(bars: Sequence[Mapping[str, Any]]) -> str:
    """Horizontal bars with intervals, in percent: `name`, `gain`, `low`, `high` (shares)."""

    def draw(axes: Any) -> None:
        for row, bar in enumerate(reversed(bars)):
            gain, low, high = (100 * bar[key] for key in ("gain", "low", "high"))
            axes.barh(row, gain, height=0.55, color=_colour(low, high))
            axes.plot([low, high], [row, row], color=INK, linewidth=1.2)
            axes.plot([low, high], [row, row], "|", color=INK, markersize=8)
            axes.annotate(
                f"{gain:+.1f}%", (max(high, gain, 0), row), (6, 0), textcoords="offset points", va="center"
            )
        axes.set_yticks(range(len(bars)), [bar["name"] for bar in reversed(bars)])
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.margins(x=0.12)
        axes.set_xlabel("fewer bits per byte than the parent, % (whiskers: interval)")

    return svg(0.55 + 0.42 * len(bars), draw, "Gain by kind of text")


def standings(rows: Sequence[Mapping[str, Any]]) -> str:
    """A point with its interval for each share of right answers: `task`, `metric`, `value`, `low`, `high`, `chance`
    (None: no line) and `published` (each with `value`)."""

    def draw(axes: Any) -> None:
        for at, row in enumerate(reversed(rows)):
            value, low, high = (100 * row[key] for key in ("value", "low", "high"))
            chance = row["chance"]
            colour = NEUTRAL if chance is not None and row["low"] <= chance else SECOND
            axes.plot([low, high], [at, at], color=colour, linewidth=1.6)
            axes.plot(value, at, "o", color=colour, markersize=6)
            if chance is not None:
                axes.plot([100 * chance] * 2, [at - 0.35, at + 0.35], color=WORSE, linewidth=1.4)
            for one in row["published"]:
                axes.plot(100 * one["value"], at, "o", color=INK, markersize=7, fillstyle="none")
        axes.set_yticks(
            range(len(rows)), [_short(f"{row['task']} {row['metric']}") for row in reversed(rows)]
        )
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.grid(axis="x", alpha=0.2, linewidth=0.5)
        axes.set_xlabel("right, % (line: guessing; rings: published)")

    return svg(0.7 + 0.3 * len(rows), draw, "Share of right answers of each task")


def per_document(documents: Sequence[Mapping[str, Any]], most: int = 40) -> str:
    """A bar for each held-out document: `gain` (a share), sorted; of too many the extremes are kept."""
    ordered = sorted(documents, key=lambda one: -one["gain"])
    if len(ordered) > most:
        ordered = ordered[: most // 2] + ordered[-(most // 2) :]

    def draw(axes: Any) -> None:
        values = [100 * one["gain"] for one in reversed(ordered)]
        axes.barh(range(len(values)), values, height=0.7, color=[BETTER if v > 0 else WORSE for v in values])
        axes.set_yticks(range(len(values)), [_short(one["name"]) for one in reversed(ordered)], fontsize=7)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_ylim(-0.6, len(values) - 0.4)
        axes.set_xlabel("fewer bits per byte than the parent, %")

    return svg(0.6 + 0.17 * len(ordered), draw, "Gain of each held-out document")


Series = Mapping[str, Sequence[tuple[float, float]]]


def curve(series: Series, ylabel: str, smooth: Sequence[str] = ()) -> str:
    """Lines over steps. A series named in `smooth` is drawn pale, with its running mean over it."""

    def draw(axes: Any) -> None:
        lines(axes, series, "optimizer step", ylabel, smooth)

    return svg(2.4, draw, f"{ylabel} over training steps")


def over_tokens(pictures: Sequence[tuple[Series, str]], smooth: Sequence[str], title: str) -> str:
    """The same over tokens, several pictures side by side, each with its label of the y axis."""

    def drawn(series: Series, ylabel: str) -> Callable[[Any], None]:
        def draw(axes: Any) -> None:
            lines(axes, series, "tokens", ylabel, smooth)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))

        return draw

    from matplotlib.ticker import EngFormatter, MaxNLocator

    return panels(2.2, [drawn(series, ylabel) for series, ylabel in pictures], title, SIDE_BY_SIDE)


def lines(axes: Any, series: Series, xlabel: str, ylabel: str, smooth: Sequence[str]) -> None:
    """Draw lines with dots where they are few, and a legend where there are several."""
    colours = [SECOND, BETTER, WORSE, NEUTRAL]
    for index, (name, points) in enumerate(series.items()):
        colour = colours[index % len(colours)]
        xs, ys = [x for x, _ in points], [y for _, y in points]
        dots = len(xs) <= 30
        if name in smooth and len(ys) > 10:
            axes.plot(xs, ys, color=colour, alpha=0.3, linewidth=0.8)
            ys = _running_mean(ys)
        axes.plot(xs, ys, "o-" if dots else "-", color=colour, linewidth=1.6, markersize=3, label=name)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(axis="y", alpha=0.2, linewidth=0.5)
    if len(series) > 1:
        axes.legend()


def _running_mean(values: Sequence[float]) -> list[float]:
    half = max(1, len(values) // 24)
    spans = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [sum(span) / len(span) for span in spans]


def _colour(low: float, high: float) -> str:
    return BETTER if low > 0 else WORSE if high < 0 else NEUTRAL


def _short(name: str, most: int = 46) -> str:
    # A dollar sign would start a formula.
    name = name if len(name) <= most else "…" + name[-most + 1 :]
    return name.replace("$", r"\$")
