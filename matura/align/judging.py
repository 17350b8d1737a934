"""Samples judged by rewards, and whether one set of answers is better than another by the same judge."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from matura.align.rewards import Completion, Weighted
from matura.core.errors import MaturaError
from matura.core.preferences import Ranking
from matura.data.preferences.selection import best
from matura.data.preferences.sides import prompt_id
from matura.evaluate import gates
from matura.evaluate.gates import Judged

AT_ONCE = 512
"""Completions that a reward is asked about in one call."""

Count = Callable[[str, str], int]
"""(answer, its end) -> its tokens."""
Scored = list[list[float | None]]
"""For each prompt the scores of its answers."""


def _nobody(_: int) -> None:
    pass


def scores(
    rewards: Weighted, rows: Sequence[Ranking], count: Count, advance: Callable[[int], None] = _nobody
) -> tuple[Scored, dict[str, float]]:
    """The weighted sum for every answer of every prompt, and the mean of each reward alone (`reward.NAME`)."""
    total: list[float | None] = []
    each: dict[str, list[float]] = {}
    for part in _parts(rows, count):
        found = rewards(part)
        total += found.total
        for name, values in found.each.items():
            each.setdefault(name, []).extend(one for one in values if one is not None)
        advance(len(part))
    made, at = [], 0
    for row in rows:
        made.append(total[at : at + len(row.answers)])
        at += len(row.answers)
    return made, {f"reward.{name}": statistics.fmean(values) for name, values in each.items() if values}


def _parts(rows: Sequence[Ranking], count: Count) -> list[list[Completion]]:
    """The answers in parts of about AT_ONCE; no prompt is cut, for rewards are compared within one."""
    parts: list[list[Completion]] = []
    for row in rows:
        if not parts or len(parts[-1]) >= AT_ONCE:
            parts.append([])
        parts[-1] += [Completion(row, one.text, one.end, count(one.text, one.end)) for one in row.answers]
    return [part for part in parts if part]


def compare(
    before: Sequence[Ranking], now: Sequence[Ranking], *, fail_on: Any, margin: float, seed: int
) -> tuple[Judged, list[str]]:
    """The mean score of the answers to the prompts that both have: the verdict (see `evaluate.gates`), and the reasons
    why the gate fails (none without `fail_on`). An item is a prompt; its figure is the mean over its judged answers.

    Raises MaturaError when no prompt is in both.
    """
    old, new = _means(before), _means(now)
    both = [key for key in new if key in old]
    if not both:
        raise MaturaError(
            "there is nothing to compare: the round before has no judged held-out prompt in common with this one; "
            "sample the same `prompts` with `heldout`"
        )
    right_or_wrong = {one.score for row in (*before, *now) for one in row.answers} <= {None, 0.0, 1.0}
    metric = gates.Metric(
        "score",
        [old[key] for key in both],
        [new[key] for key in both],
        weights=None if right_or_wrong else [1.0] * len(both),  # the rule of three is for counts alone
        better="higher",
        margin=margin,
        relative=False,
    )
    demands = [] if fail_on is None else [gates.Gate("score", fail_on)]
    judged, reasons = gates.judge([metric], demands, seed=seed)
    return judged[0], reasons


def _means(rows: Sequence[Ranking]) -> dict[str, float]:
    found = {prompt_id(row): [one.score for one in row.answers if one.score is not None] for row in rows}
    return {key: statistics.fmean(values) for key, values in found.items() if values}


def told(rows: Sequence[Ranking]) -> dict[str, Any]:
    """How good the answers are: the mean score of all, of the best and the worst of each prompt, of those that are
    learned; and how often several share the first place. Where only people ranked there are no scores."""
    known = [[one.score for one in row.answers if one.score is not None] for row in rows]
    scored = [one for one in known if one]
    chosen = [one.score for row in rows if (one := best(row)) is not None and one.score is not None]
    made: dict[str, Any] = {
        "prompts": len(rows),
        "answers": sum(len(row.answers) for row in rows),
        "ties": sum(_tied(row) for row in rows),
    }
    if scored:
        flat = [score for one in scored for score in one]
        made |= {"mean": statistics.fmean(flat), "spread": statistics.pstdev(flat)}
        made |= {"best": statistics.fmean(map(max, scored)), "worst": statistics.fmean(map(min, scored))}
    if chosen:
        made["chosen"] = statistics.fmean(chosen)
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in made.items()}


def _tied(row: Ranking) -> bool:
    ranks = [one.rank for one in row.answers if one.rank is not None]
    return bool(ranks) and ranks.count(min(ranks)) > 1
