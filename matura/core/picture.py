"""A plot as inline SVG that takes the page's own text colour and font."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Mapping
from typing import Any

INK = "#010203"  # stands for the page's text colour: replaced by currentColor
WIDTH = 7.2  # inches; the SVG scales to the page
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and takes the page's font
    "svg.hashsalt": "matura",  # the same plot gives the same bytes
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "font.size": 9,
    "axes.titlesize": 10,
    "legend.frameon": False,
}


def svg(height: float, draw: Callable[[Any], None], title: str) -> str:
    """One figure with one axes, `height` inches high. `title` is what a screen reader says."""
    return panels(height, [draw], title)


def panels(
    height: float,
    draws: list[Callable[[Any], None]],
    title: str,
    margins: Mapping[str, float] | None = None,
) -> str:
    """The same with several axes side by side.

    `margins` are settings of `subplots_adjust`; without them room is made for the labels, which takes twice the time.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, height), layout=None if margins else "constrained")
        if margins:
            figure.subplots_adjust(**margins)
        for column, draw in enumerate(draws, start=1):
            draw(figure.add_subplot(1, len(draws), column))
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"font: ([0-9.]+px)[^;\"]*", r"font: \1 inherit; font-family: inherit; font-size: \1", text)
    text = re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', r"<svg \1", text.replace("\n", " "), count=1)
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(title)}" ', 1)
