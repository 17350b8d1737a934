"""What was learned when: for every training its loss and what was looked at, over tokens, and what the model wrote."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matura.core.errors import FormatError
from matura.evaluate import plots
from matura.evaluate.costs import LEARNING
from matura.evaluate.story.chapters import Chapter
from matura.evaluate.training_report import chosen_samples
from matura.train.samples import read_samples

MAX_TRAININGS = 30
LOOKS = 3
"""Looks whose samples are shown."""
MAX_SAMPLES = 9
SMOOTH = ("training", "reward")
"""What is logged at every update, and is drawn with its running mean."""
LOSS = {"loss": "training", "heldout_loss": "held out"}
PANELS: tuple[tuple[str, Mapping[str, str]], ...] = (
    ("held out, bits per byte", {"heldout_bpb": "held out"}),
    ("reward", {"reward": "reward", "heldout_reward": "held out"}),
    ("share that is right", {"heldout_accuracy": "held out"}),
    ("held-out masks, loss", {"heldout_masked_loss": "held out"}),
    (
        "held out, nats a token",
        {"heldout_denoise_loss": "spans", "heldout_translate_loss": "pairs"},
    ),
    ("general text, bits per byte", {"general_bpb": "general text"}),
)
"""Beside the loss stands the first of these that was measured more than once."""


def trainings(chapters: Sequence[Chapter]) -> Iterator[dict[str, Any]]:
    """Name, kind, words, picture and samples of each training that has logged something."""
    learning = [one for one in chapters if one.stage in LEARNING]
    for one in learning[:MAX_TRAININGS]:
        told = {
            "name": one.name,
            "stage": one.stage,
            "line": one.line,
            "svg": "",
            "problem": "",
            "samples": [],
        }
        try:
            rows = one.rows()
        except FormatError as error:
            yield {**told, "problem": str(error)}
            continue
        drawn, samples = picture(rows, f"Training of {one.name}"), _samples(one)
        if drawn or samples:
            yield {**told, "svg": drawn, "samples": samples}


def picture(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """Loss, and beside it what was looked at. "" where nothing was logged twice."""
    found = [(_series(rows, names), label) for label, names in (("loss, nats", LOSS), *PANELS)]
    drawn = [(series, label) for series, label in found if any(len(line) > 1 for line in series.values())]
    return plots.over_tokens(drawn[:2], SMOOTH, title) if drawn else ""


def _series(
    rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]
) -> dict[str, list[tuple[float, float]]]:
    """The finite points (tokens, value) of each name that was logged."""
    points = {
        label: [
            (float(row["tokens"]), float(row[name]))
            for row in rows
            if "tokens" in row and name in row and math.isfinite(row[name])
        ]
        for name, label in names.items()
    }
    return {label: line for label, line in points.items() if line}


def _samples(one: Chapter) -> list[dict[str, Any]]:
    """What it wrote while it was trained, by prompt, with the tokens it had seen by then."""
    if one.stage != "pretrain":  # other stages have files of this name for another purpose
        return []
    try:
        written = read_samples(one.path)
    except ValueError:
        return []
    return list(chosen_samples(written, LOOKS))[:MAX_SAMPLES]
