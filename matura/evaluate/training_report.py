"""One self-contained page about a training run: curves, what the model wrote on the way, settings."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matura.core import page
from matura.core.files import atomic_write
from matura.core.metrics import MetricsLog
from matura.evaluate import plots
from matura.evaluate.report import table

FILE = "report.html"
TEMPLATE = Path(__file__).with_name("training_report.html")
MAX_TEXT = 1200
SAMPLE_STEPS = 6
"""Looks whose samples are shown: the first, the last, and some between."""
CURVES = (
    ("Loss", "nats a token, in training", ("loss",)),
    ("Held-out text", "bits per byte", ("heldout_bpb",)),
    ("Held-out masks", "loss and share found", ("heldout_masked_loss", "heldout_masked_accuracy")),
    ("Held-out spans and pairs", "nats a token", ("heldout_denoise_loss", "heldout_translate_loss")),
    ("What is learned, held out", "nats a token or text", ("heldout_loss",)),
    ("Labels or pairs, held out", "share that is right", ("heldout_accuracy",)),
    ("Preferred pairs", "share in order, in training", ("accuracy",)),
    ("Margin", "reward of the chosen minus the rejected", ("margin", "heldout_margin")),
    ("Chosen and rejected answers", "log p of a token", ("logprob_chosen", "logprob_rejected")),
    (
        "What both are worth beside the parent",
        "beta times the log-ratio",
        ("reward_chosen", "reward_rejected"),
    ),
    ("Rewards", "least, mean and most, in training", ("reward_min", "reward_mean", "reward_max")),
    (
        "Held-out rewards",
        "least, mean and most",
        tuple(f"heldout_reward_{one}" for one in ("min", "mean", "max")),
    ),
    ("Reward", "in training and on held-out prompts", ("reward", "heldout_reward")),
    ("Each reward on held-out prompts", "mean, those of weight 0 too", ("heldout_reward.",)),
    (
        "Length of answers",
        "tokens",
        ("answer_tokens", "ended_tokens", "longest_answer", "heldout_answer_tokens"),
    ),
    (
        "Answers",
        "shares: ended by themselves, in groups that are even, not judged",
        ("ended", "even_groups", "unjudged", "heldout_ended"),
    ),
    ("Distance from the parent", "nats an answer", ("answer_kl", "heldout_answer_kl")),
    ("Distance from the parent, by token", "nats a token", ("kl", "heldout_kl")),
    ("Distance from the rollouts", "nats a token", ("approx_kl",)),
    ("KL penalty", "coefficient, and what an answer pays", ("kl_coefficient", "kl_penalty")),
    ("Values", "share of the returns' variance that they foresee", ("explained_variance",)),
    ("Entropy", "nats a token", ("policy_entropy",)),
    ("Clipped tokens", "share", ("clip_share", "clip_share_low", "clip_share_high")),
    ("General text", "bits per byte", ("general_bpb",)),
    ("Divergence from the parent on general text", "nats a token", ("general_kl",)),
    ("Gradient", "norm before clipping", ("grad_norm",)),
    ("Activations", "root mean square after a block", ("rms.",)),
    ("Learning rate", "of width-scaled matrices", ("lr",)),
    ("Speed", "tokens a second", ("tokens_per_s",)),
    ("Utilisation", "share of the matrix speed measured here", ("mfu",)),
)
GROUP = "."
"""Ends the name of a curve that stands for all metrics whose names begin with it."""


def write(
    folder: Path,
    title: str,
    totals: Mapping[str, Any],
    settings: Mapping[str, Any],
    samples: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write report.html from the run's metrics.jsonl and what else is known of it. `totals` may hold a group `heldout`,
    which gets a table of its own, and a list of texts `alarms`, which stand on top."""
    rows = MetricsLog(folder / "metrics.jsonl").rows()
    text = page.render(
        TEMPLATE,
        filters={"seconds": page.seconds},
        title=title,
        alarms=list(totals.get("alarms", ())),
        figures=table({name: value for name, value in totals.items() if name not in ("heldout", "alarms")}),
        heldout=table(dict(totals.get("heldout", {}))),
        plots=list(_plots(rows)),
        samples=list(chosen_samples(samples)),
        settings=table(settings),
    )
    with atomic_write(folder / FILE) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _plots(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    names = {name for row in rows for name in row}
    for title, unit, wanted in CURVES:
        series = {
            name.removeprefix(one) or name: _points(rows, name) for one in wanted for name in _of(one, names)
        }
        if series:
            drawn = plots.curve(
                series, unit, smooth=("loss", "grad_norm", "tokens_per_s", "mfu", "accuracy", "margin")
            )
            yield {"title": title, "svg": drawn}


def _of(wanted: str, names: Collection[str]) -> list[str]:
    """The metrics that a name of `CURVES` stands for."""
    if wanted.endswith(GROUP):
        return sorted(name for name in names if name.startswith(wanted))
    return [wanted] if wanted in names else []


def _points(rows: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(row["step"], row[name]) for row in rows if name in row and math.isfinite(row[name])]


def chosen_samples(rows: Sequence[Mapping[str, Any]], looks: int = SAMPLE_STEPS) -> Iterator[dict[str, Any]]:
    """The samples of the first look, the last, and some between: cut, and with control characters named."""
    steps = sorted({int(row["step"]) for row in rows})
    last = max(1, len(steps) - 1)
    shown = {steps[round(i * last / (looks - 1))] for i in range(looks)} if len(steps) > 1 else steps
    for row in rows:
        if row["step"] in shown:
            prompt, text = page.visible(row["prompt"], MAX_TEXT), page.visible(row["text"], MAX_TEXT)
            yield {"step": row["step"], "prompt": prompt, "text": text}
