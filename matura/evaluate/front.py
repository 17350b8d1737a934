"""The way from a parent to its child, measured: what each model on it knows of the task, and of the rest.

Models that were fine-tuned lie at one end; how much of the rest they lost can be bought back with a part of what they
learned. The page shows at what price.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matura.core import page
from matura.core.files import atomic_write
from matura.core.metrics import progress
from matura.core.picture import INK, svg
from matura.evaluate.plots import BETTER, SECOND
from matura.model.interpolate import Line
from matura.model.transformer import Transformer
from matura.train.meter import Meter, Text

FILE = "report.html"
TEMPLATE = Path(__file__).with_name("front.html")
Row = dict[str, float]


def measure(
    line: Line, parent: Transformer, alphas: Sequence[float], learned: Text, general: Text
) -> list[Row]:
    """A row for each alpha, rising: `task_bpb` and `general_bpb`, each with its `_change` against the parent (-0.1: a
    tenth fewer bits), and `general_kl`, nats a token."""
    task, rest = Meter(learned, parent), Meter(general, parent)
    rows, tokens, chosen = [], learned.tokens + general.tokens, sorted(set(alphas))
    with progress("front", tokens * len(chosen)) as bar:
        for alpha in chosen:
            model = line(alpha)
            at_task, at_rest = task.read(model), rest.read(model)
            rows.append(
                {
                    "alpha": alpha,
                    "task_bpb": at_task.bpb,
                    "task_change": at_task.bpb / task.parent.bpb - 1,
                    "general_bpb": at_rest.bpb,
                    "general_change": at_rest.bpb / rest.parent.bpb - 1,
                    "general_kl": at_rest.kl,
                }
            )
            bar.advance(tokens, alpha=alpha)
    return rows


def write(folder: Path, rows: Sequence[Row], chosen: float, about: str) -> None:
    """Write report.html. `chosen` is the alpha of the model beside it, `about` what was measured on."""
    shown = [{name: _shown(name, value) for name, value in row.items()} for row in rows]
    text = page.render(TEMPLATE, rows=shown, chosen=f"{chosen:g}", about=about, plot=plot(rows, chosen))
    with atomic_write(folder / FILE) as temporary:
        temporary.write_text(text, encoding="utf-8")


def plot(rows: Sequence[Row], chosen: float) -> str:
    """The front as SVG: to the right what the rest costs, upwards what was gained on the task."""
    ordered = sorted(rows, key=lambda row: row["alpha"])

    def draw(axes: Any) -> None:
        costs = [100 * row["general_change"] for row in ordered]
        gains = [-100 * row["task_change"] for row in ordered]
        axes.plot(costs, gains, "o-", color=SECOND, linewidth=1.6, markersize=4)
        for row, x, y in zip(ordered, costs, gains, strict=True):
            if row["alpha"] == chosen:
                axes.plot([x], [y], "o", color=BETTER, markersize=8)
            axes.annotate(f"{row['alpha']:g}", (x, y), (6, -10), textcoords="offset points", fontsize=8)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.margins(0.1)
        axes.set_xlabel("more bits per byte of general text than the parent, %")
        axes.set_ylabel("fewer bits on the task, %")

    return svg(3.2, draw, "Gain on the task and loss of the rest, by alpha")


def _shown(name: str, value: float) -> str:
    return f"{value:+.2%}" if name.endswith("change") else f"{value:g}" if name == "alpha" else f"{value:.4f}"


def told(row: Row) -> str:
    """A row in a few words."""
    return (
        f"task {row['task_change']:+.1%}, general text {row['general_change']:+.1%} bits per byte, "
        f"KL {row['general_kl']:.3f}"
    )
