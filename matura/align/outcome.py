"""What became of a run that learned from rewards, for its summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matura.align import doctor
from matura.core.artifact import Artifact, Draft
from matura.core.practice_settings import Practice
from matura.evaluate import training_report

LAST = (
    "heldout_answer_kl",
    "answer_kl",
    "kl_coefficient",
    "explained_variance",
    "ended",
    "answer_tokens",
    "even_groups",
    "policy_entropy",
)
"""Figures whose last value tells how the run ended."""


def gained(rows: Sequence[Mapping[str, Any]], kept: Mapping[str, Any]) -> dict[str, Any]:
    """From the rows of metrics.jsonl: every reward before and after, in training and on held-out prompts, and the last
    value of what else is worth knowing. What `kept`, the totals, say of the weights that come out goes before the last
    row's, which may be of later weights."""
    found: dict[str, Any] = {}
    names = dict.fromkeys(name for row in rows for name in row)
    for name in names:
        values = [row[name] for row in rows if name in row]
        if name.startswith(("reward", "heldout_reward")) and not name.endswith("_std"):
            found |= {f"{name}_before": values[0], f"{name}_after": kept.get(name, values[-1])}
        elif name in LAST:
            found[name] = kept.get(name, values[-1])
    return found


def said(found: Mapping[str, Any], alarms: Sequence[str]) -> str:
    """The reward, general text and the first alarm in a few words."""
    name = "heldout_reward" if "heldout_reward_before" in found else "reward"
    line = ""
    if f"{name}_before" in found:
        line = f"; {name.replace('_', ' ')} {found[f'{name}_before']:.3g} to {found[f'{name}_after']:.3g}"
    if "heldout_answer_kl" in found:
        line += f" at {found['heldout_answer_kl']:.2f} nats an answer"
    if told := found.get("forgetting"):
        line += f"; general text {told['change']:+.1%} bits per byte"
    return line + doctor.in_short(alarms)


def commit(
    draft: Draft,
    title: str,
    config: Practice,
    totals: Mapping[str, Any],
    counts: Mapping[str, Any],
    quantization: str | None,
) -> Artifact:
    """Look through the log for alarms, write the report, and finish the artifact of a practice whose model is saved."""
    rows = draft.metrics.rows()
    alarms = doctor.alarms(rows, config.rewards.penalties)
    found = {**totals, **gained(rows, totals), "alarms": alarms}
    training_report.write(draft.path, title, found, config.model_dump(mode="json"))
    line = f"{config.method}, {config.iterations} iterations of {config.answers} answers{said(found, alarms)}"
    summary = {"line": line, **found, **counts, "source_quantization": quantization}
    return draft.commit(summary, logs=[training_report.FILE])
