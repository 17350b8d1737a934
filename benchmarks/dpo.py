"""DPO and its family on a small model: does it write what was preferred, by a reward that nobody learned from?

A decoder is taught to describe animals in a warm or a cold mood (`moods.py`). Its own answers to prompts are paired by
a rule that sees half of the words. Held-out prompts are then answered by the model and by its parent; the other half of
the words says who wins. Control: the same answers with labels by lot, which must teach nothing.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import moods, record, staging, tones
from benchmarks.options import Options
from benchmarks.small_writer import taught
from matura.align import rollouts
from matura.align.sequences import Prompted, pack_answers, sequence_logprobs
from matura.core.artifact import Artifact
from matura.core.metrics import MetricsLog
from matura.core.preferences import Answer, Ranking
from matura.core.rollout_settings import Rollouts
from matura.evaluate import statistics as resampling
from matura.model import store
from matura.stages import dpo
from matura.tokenizer import conversation

LONGEST, ANSWERS, PROMPTS_HELD, REPEATS = 48, 4, 60, 4
"""Tokens of an answer, answers to a prompt, prompts that nobody learns from, and answers to each in a comparison."""
LEAST, MOST = 0.65, 0.55
"""Win rates: of what was learned, and of the control."""
CASES: dict[str, dict[str, Any]] = {
    "sigmoid": {"loss": {"beta": 0.1}},
    "sigmoid-nll": {"loss": {"beta": 0.1, "nll": 0.5}},
    "ipo": {"loss": {"kind": "ipo", "beta": 0.1}},
    "kto": {"loss": {"kind": "kto", "beta": 0.1}},
    "orpo": {"loss": {"kind": "orpo", "beta": 1.0}},
    "simpo": {"loss": {"kind": "simpo"}},
}
CONTROL = "lot"
SETTINGS: dict[str, Any] = {
    "epochs": 4,
    "tokens_per_batch": 4096,
    "sequence": 128,
    "optimizer": {"lr": 1e-3},
    "meter_every": 10,
    "forgetting": {"text": None},
    "save_every": 1000,
}


def run(options: Options) -> bool:
    """Whether every loss wins as it should with every seed, and the control does not."""
    torch.set_num_threads(options.threads)
    names = [name for name in (*CASES, CONTROL) if not options.cases or name in options.cases]
    if not names:
        raise SystemExit(f"--cases: expected some of {', '.join((*CASES, CONTROL))}")
    found = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            found.append(_seed(options, names, seed, Path(folder)))
        print(json.dumps(found[-1], indent=1), flush=True)
    passed = {name: all(_good(name, one[name]) for one in found) for name in names}
    record.save("dpo", options, {"settings": SETTINGS, "cases": CASES, "seeds": found, "passed": passed})
    columns = (
        "loss",
        "seed",
        "win rate",
        "95% interval",
        "held-out accuracy",
        "KL an answer",
        "chosen nats a token",
    )
    record.table(columns, [_row(name, one) for name in names for one in found])
    return options.quick or all(passed.values())


def _good(name: str, found: dict[str, Any]) -> bool:
    if name == CONTROL:
        return bool(found["wins"] <= MOST)
    return bool(found["wins"] >= LEAST and found["interval"][0] > 0.5)


def _row(name: str, seed: dict[str, Any]) -> list[Any]:
    one = seed[name]
    told = "{:.2f} to {:.2f}".format(*one["interval"])
    return [name, seed["seed"], one["wins"], told, one["heldout_accuracy"], one["kl"], one["chosen_change"]]


def _seed(options: Options, names: Sequence[str], seed: int, folder: Path) -> dict[str, Any]:
    draw = random.Random(seed)
    known, held = tones.pairs()[PROMPTS_HELD:], tones.pairs()[:PROMPTS_HELD]
    lessons = tones.lessons(known, options.default(None, 6000, 400), draw, moods.described)
    parent = taught(folder / "parent", lessons, seed=seed, steps=options.default(None, 300, 30))
    model, format = store.load(parent.path), conversation.load(parent.path)
    asked = [tones.prompt(pair) for pair in known[: options.default(None, 300, 20)]]
    held = held[: options.default(None, PROMPTS_HELD, 6)]
    answered = _ranked(_drawn(model, format, [*asked, *map(tones.prompt, held)], ANSWERS, seed))
    judged = [_judged(one) for one in answered]
    by_lot = [_by_lot(one, draw) for one in judged]
    questions = [tones.prompt(pair) for pair in held]
    first = _drawn(model, format, questions, REPEATS, seed + 1000)
    before = _texts(first)
    figures: dict[str, Any] = {
        "seed": seed,
        "parent": parent.summary
        | {"heldout_reward": statistics.fmean(map(moods.heldout, before)), "form": _form(first)},
    }
    for name in names:
        rankings = by_lot if name == CONTROL else judged
        settings = CASES.get(name, CASES["sigmoid"])
        began = time.process_time()
        made = _learned(
            parent, rankings, len(asked), settings | {"seed": seed}, folder / name.replace(" ", "-")
        )
        child = store.load(made.path)
        drawn = _drawn(child, format, questions, REPEATS, seed + 2000)
        figures[name] = _compared(made, before, _texts(drawn)) | {
            "cpu_seconds": round(time.process_time() - began, 1),
            "learned": made.summary["learned"],
            "steps": made.summary["steps"],
            "kl": _distance(model, child, drawn),
            "form": _form(drawn),
        }
    return figures


def _drawn(
    model: Any, format: Any, prompts: Sequence[Ranking], count: int, seed: int
) -> list[rollouts.Rollout]:
    """`count` answers of the model to each prompt, at temperature 1."""
    draw = Rollouts(max_new_tokens=LONGEST).draw
    return rollouts.roll(model, format, prompts, k=count, draw=draw, seed=seed, batch=256)


def _ranked(drawn: Sequence[rollouts.Rollout]) -> list[Ranking]:
    """The prompts with their answers."""
    found = []
    for i in range(0, len(drawn), ANSWERS):
        answers = tuple(Answer(one.text, end=one.end) for one in drawn[i : i + ANSWERS])
        found.append(replace(drawn[i].prompt, answers=answers))
    return found


def _texts(drawn: Sequence[rollouts.Rollout]) -> list[str]:
    return [one.text for one in drawn]


def _judged(ranking: Ranking) -> Ranking:
    """With the rule's scores; answers of one score make no pair."""
    return replace(
        ranking, answers=tuple(replace(one, score=moods.preferred(one.text)) for one in ranking.answers)
    )


def _by_lot(ranking: Ranking, draw: random.Random) -> Ranking:
    """The same answers and the same scores, dealt out anew."""
    scores = [one.score for one in ranking.answers]
    draw.shuffle(scores)
    answers = (replace(one, score=score) for one, score in zip(ranking.answers, scores, strict=True))
    return replace(ranking, answers=tuple(answers))


def _learned(
    parent: Artifact, rankings: Sequence[Ranking], learned: int, settings: dict[str, Any], folder: Path
) -> Artifact:
    preferences = staging.preferences(Path(f"{folder}-data"), rankings[:learned], rankings[learned:])
    return staging.run(dpo, folder, {"model": parent, "preferences": preferences}, SETTINGS | settings)


def _compared(made: Artifact, before: Sequence[str], after: Sequence[str]) -> dict[str, Any]:
    """Who wins by the held-out words, with a 95% interval over prompts; and what the log says."""
    won = moods.wins(after, before)
    each = [statistics.fmean(won[i : i + REPEATS]) for i in range(0, len(won), REPEATS)]
    share, samples = resampling.mean(each)
    rows = MetricsLog(made.path / "metrics.jsonl").rows()
    looks = [row for row in rows if "heldout_accuracy" in row]
    return {
        "wins": share,
        "interval": resampling.interval(samples),
        "heldout_reward": statistics.fmean(map(moods.heldout, after)),
        "first_loss": rows[1]["loss"],
        "heldout_accuracy": looks[-1]["heldout_accuracy"],
        "chosen_change": looks[-1].get("heldout_chosen_change"),
        "heldout_kl": looks[-1]["heldout_kl"],
        "alarms": made.summary["alarms"],
    }


def _form(drawn: Sequence[rollouts.Rollout]) -> float:
    """Share of the answers that are descriptions of what was asked, word by word."""
    return statistics.fmean(tones.form([rollouts.completion(one) for one in drawn]))


def _distance(parent: Any, child: Any, drawn: Sequence[rollouts.Rollout]) -> float:
    """KL(child || parent) in nats an answer, from answers that the child drew (the mean of k1)."""
    batch = pack_answers([Prompted(tuple(one.prompt_ids), (tuple(one.ids),)) for one in drawn])
    with torch.no_grad():
        ratio_S = sequence_logprobs(child, batch).logprobs_S - sequence_logprobs(parent, batch).logprobs_S
    return float(ratio_S.mean())
