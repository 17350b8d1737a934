"""A page about the panels of an exam: figures with their intervals, and in plain words what they do not show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matura.core import page
from matura.core.files import atomic_write

FILE = "panels.html"
TEMPLATE = Path(__file__).with_name("panels.html")


def write(
    folder: Path, panels: Sequence[Mapping[str, Any]], model: str, parent: str, notes: Sequence[str]
) -> None:
    """Write panels.html beside the exam's report. `panels` is what `registry.results` made; `parent` is "" for none."""
    shown = [{**one, "rows": [_row(figure, bool(parent)) for figure in one["figures"]]} for one in panels]
    text = page.render(TEMPLATE, panels=shown, model=model, parent=parent, notes=list(notes))
    with atomic_write(folder / FILE) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _row(figure: Mapping[str, Any], compared: bool) -> dict[str, str]:
    unit = figure["unit"]
    shown = {
        "name": figure["name"],
        "part": figure["part"] or "all",
        "value": number(figure["value"], unit),
        "interval": _interval(figure["low"], figure["high"], unit),
        "neutral": number(figure["neutral"], unit),
        "items": f"{figure['items']:,}",
        "reading": reading(figure),
    }
    if compared:
        shown["parent"] = number(figure["parent"], unit)
        shown["difference"] = number(figure["difference"], unit, signed=True)
        shown["of_difference"] = _interval(
            figure["difference_low"], figure["difference_high"], unit, signed=True
        )
    return shown


def number(value: float | None, unit: str, *, signed: bool = False) -> str:
    """A figure for people: shares and their differences in per cent, everything else as it is."""
    if value is None:
        return "–"
    plus = "+" if signed or unit in ("difference", "lean") else ""
    return f"{100 * value:{plus}.1f}%" if unit in ("share", "difference") else f"{value:{plus}.2f}"


def _interval(low: float | None, high: float | None, unit: str, *, signed: bool = False) -> str:
    if low is None:
        return "–"
    return f"{number(low, unit, signed=signed)} … {number(high, unit, signed=signed)}"


def told(panel: Mapping[str, Any], most: int = 3) -> str:
    """A panel in a few sentences of plain text: its first figures about all items, and what they do not show."""
    known = [one for one in panel["figures"] if one["value"] is not None]
    shown = ([one for one in known if not one["part"]] or known)[:most]
    parts = [
        f"{one['name']}{', ' * bool(one['part'])}{one['part']} {number(one['value'], one['unit'])} "
        f"({_interval(one['low'], one['high'], one['unit'])}, {one['items']:,} items)"
        for one in shown
    ]
    return f"{panel['title']}: {'; '.join(parts)}. What this does not show: {panel['silent']}"


def reading(figure: Mapping[str, Any]) -> str:
    """What may be said of a figure: on which side of what guessing has its whole interval lies, if on any."""
    value, low, high, neutral = (figure[name] for name in ("value", "low", "high", "neutral"))
    if value is None:
        return "nothing to count"
    if figure["items"] < FEWEST:
        return f"only {figure['items']} items: an example, no finding"
    if neutral is None:
        return ""
    if low > neutral:
        return f"above {number(neutral, figure['unit'])}"
    if high < neutral:
        return f"below {number(neutral, figure['unit'])}"
    return f"not told from {number(neutral, figure['unit'])}"


FEWEST = 10
"""Items below which an interval says nothing."""
