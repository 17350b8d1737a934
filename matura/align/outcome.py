"""What became of a run that learned from rewards, for its summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LAST = (
    "heldout_answer_kl",
    "answer_kl",
    "kl_coefficient",
    "explained_variance",
    "ended",
    "answer_tokens",
    "even_groups",
    "policy_entropy",
    "entropy",
)
"""Figures whose last value tells how the run ended."""


def gained(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """From the rows of metrics.jsonl: every reward before and after, in training and on held-out prompts, and the last
    value of what else is worth knowing."""
    found: dict[str, Any] = {}
    names = dict.fromkeys(name for row in rows for name in row)
    for name in names:
        values = [row[name] for row in rows if name in row]
        if name.startswith(("reward", "heldout_reward")) and not name.endswith("_std"):
            found |= {f"{name}_before": values[0], f"{name}_after": values[-1]}
        elif name in LAST:
            found[name] = values[-1]
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
    if alarms:
        line += f"; {len(alarms)} alarm{'s' * (len(alarms) > 1)}: {alarms[0].partition(' (')[0]}"
    return line
