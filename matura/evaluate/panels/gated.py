"""The figures of panels that gates can be about: those of which more is better, whatever else is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matura.core.panel_settings import Panels
from matura.evaluate.gates import Metric
from matura.evaluate.panels.figures import Figure
from matura.evaluate.panels.sheet import Replies, Sheet

GATED: dict[str, tuple[str, ...]] = {
    "ifeval": ("prompt_strict", "instruction_strict", "prompt_loose", "instruction_loose"),
    "bbq": ("right, ambiguous", "right, disambiguated"),
    "abstention": ("pairs told apart",),
}
"""By panel, the names of figures; of several with a name, the first is meant, which is about all items."""


def metric_names(settings: Panels) -> list[str]:
    """Names of the metrics of an exam with these panels, such as `ifeval.prompt_strict` and `bbq.right_ambiguous`."""
    asked = {
        "ifeval": settings.ifeval.prompts,
        "bbq": settings.bias.bbq,
        "abstention": settings.abstention.pairs,
    }
    return [_name(panel, figure) for panel, names in GATED.items() if asked[panel] for figure in names]


def metrics(
    sheets: Sequence[Sheet], replies: Mapping[str, Mapping[str, Replies]], margin: float
) -> list[Metric]:
    """The metrics of `metric_names`, of both models. `margin`: the loss of a share that is still acceptable."""
    return [
        _metric(sheet, replies, figure, margin)
        for panel, names in GATED.items()
        for sheet in sheets
        if sheet.name == panel
        for figure in names
    ]


def _metric(sheet: Sheet, replies: Mapping[str, Mapping[str, Replies]], figure: str, margin: float) -> Metric:
    parent, child = (_figure(sheet, replies[who][sheet.name], figure) for who in ("parent", "child"))
    return Metric(
        _name(sheet.name, figure),
        parent.values,
        child.values,
        weights=parent.weights,
        better="higher",
        margin=margin,
        relative=False,
        chance=parent.neutral,
    )


def _figure(sheet: Sheet, replies: Replies, name: str) -> Figure:
    return next(one for one in sheet.figures(replies) if isinstance(one, Figure) and one.name == name)


def _name(panel: str, figure: str) -> str:
    return f"{panel}.{figure.replace(',', '').replace(' ', '_')}"
