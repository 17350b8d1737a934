"""PPO on a small model: does the reward rise as it should for the distance it goes, and does nothing else move?

A decoder is taught to describe animals (`tones.py`). PPO is to make it write warmly, at about two nats an answer from
where it began. Held-out prompts say by how much it does, in standard deviations of the answers at the start, beside
the best of n answers of the model itself at the same KL (log n - (n - 1) / n), which is close to what is possible; a
second reward that is not learned from says whether answers are still answers. Control: a reward that means nothing,
which must teach nothing.
"""

from __future__ import annotations

import json
import math
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import record, staging, tones
from benchmarks.options import Options
from benchmarks.small_writer import taught
from matura.align import rollouts
from matura.align.heldout import Heldout
from matura.align.rewards import Part, Weighted
from matura.align.sequences import frozen
from matura.core.artifact import Artifact
from matura.core.metrics import MetricsLog
from matura.core.preferences import write_rankings
from matura.core.raw import RawInput, raw_input
from matura.core.rollout_settings import Rollouts
from matura.model import store
from matura.stages import ppo
from matura.tokenizer import conversation

LONGEST = 48
TARGET = 2.0
HELDOUT = 60
"""Pairs of animal and place that nobody learns from."""
MOST = 64
"""Answers to a prompt from which the best of n is told."""
SETTINGS: dict[str, Any] = {
    "method": "full",
    "rollouts": {"samples": 2, "max_new_tokens": LONGEST, "batch": 128},
    "prompts_each": 32,
    "kl": {"coefficient": 0.5, "target": TARGET, "horizon": 1000},
    "updates": {"epochs": 3, "minibatches": 2, "value_clip": None, "lam": 1.0},
    "value": {"kind": "critic", "coefficient": 0.5, "rate": 5},
    "optimizer": {"lr": 4e-4, "schedule": "linear"},
    "meter_every": 0,
    "forgetting": {"text": None},
    "save_every": 1000,
}


def run(options: Options) -> bool:
    """Whether the reward rises as it should, and the control stays."""
    torch.set_num_threads(options.threads)
    found = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            found.append(_seed(options, seed, Path(folder)))
        print(json.dumps(found[-1], indent=1), flush=True)
    passed = _passed(found)
    figures = {"target_kl": TARGET, "settings": SETTINGS, "seeds": found, "passed": passed}
    record.save("ppo", options, figures)
    print(json.dumps(passed), flush=True)
    return all(passed.values()) or options.quick


def _passed(seeds: Sequence[dict[str, Any]]) -> dict[str, bool]:
    """Every demand, over all seeds."""
    return {
        "reward_up_by_a_deviation": all(one["tone"]["gain_std"] >= 1 for one in seeds),
        "kl_near_the_target": all(abs(one["tone"]["kl"] / TARGET - 1) <= 0.3 for one in seeds),
        "near_best_of_n": all(one["tone"]["share_of_best_of_n"] >= 0.8 for one in seeds),
        "values_explain": all(one["tone"]["explained_variance"] > 0.3 for one in seeds),
        "heldout_reward_stays": all(one["tone"]["form_change"] > -0.02 for one in seeds),
        "chance_teaches_nothing": all(abs(one["chance"]["gain_std"]) < 0.25 for one in seeds),
        "kl_never_negative_for_long": all(one["tone"]["negative_kl"] <= 2 for one in seeds),
    }


def _seed(options: Options, seed: int, folder: Path) -> dict[str, Any]:
    draw = random.Random(seed)
    known, held = tones.pairs()[HELDOUT:], tones.pairs()[:HELDOUT]
    model = taught(
        folder / "model",
        tones.lessons(known, options.default(None, 6000, 400), draw, tones.described),
        seed=seed,
        steps=options.default(None, 300, 30),
    )
    parent = _Judge(model.path, held, seed)
    before = parent.answers(store.load(model.path), MOST if not options.quick else 8)
    figures: dict[str, Any] = {"seed": seed, "parent": model.summary | _told(before)}
    write_rankings(folder / "prompts.jsonl", map(tones.prompt, known))
    for reward in ("tone", "chance"):
        started = time.process_time()
        made = _practised(options, model, folder, reward, seed)
        figures[reward] = _compared(parent, made, before) | _curves(made)
        figures[reward]["cpu_seconds"] = round(time.process_time() - started, 1)
    return figures


def _practised(options: Options, model: Artifact, folder: Path, reward: str, seed: int) -> Artifact:
    """The model after practice for a reward; `form` is measured and not learned from."""
    rewards: dict[str, Any] = {reward: {"file": tones.__file__}}
    rewards["form"] = {"file": tones.__file__, "weight": 0}
    values = SETTINGS | {
        "data": {"heldout": 0},
        "rewards": {"own": rewards},
        "iterations": options.default(None, 120, 3),
        "seed": seed,
    }
    files = {f"rewards.own.{name}.file": raw_input(Path(tones.__file__)) for name in rewards}
    inputs: dict[str, Artifact | RawInput] = {
        "model": model,
        "prompts": raw_input(folder / "prompts.jsonl"),
        **files,
    }
    return staging.run(ppo, folder / reward, inputs, values)


class _Judge:
    """Held-out prompts, and what a model writes for them."""

    def __init__(self, path: Path, held: Sequence[tuple[str, str]], seed: int) -> None:
        self.format = conversation.load(path)
        self.prompts, self.seed = list(map(tones.prompt, held)), seed
        self.reference = frozen(store.load(path), 1.0)

    def answers(self, model: Any, count: int) -> list[list[float]]:
        """The tones of `count` answers to each prompt."""
        draw = Rollouts(max_new_tokens=LONGEST).draw
        made = rollouts.roll(
            model, self.format, self.prompts, k=count, draw=draw, seed=self.seed + 1000, batch=256
        )
        values = tones.tone([rollouts.completion(one) for one in made])
        return [values[i : i + count] for i in range(0, len(values), count)]

    def look(self, model: Any, repeats: int) -> dict[str, float]:
        """Means over all prompts, `repeats` answers each."""
        rewards = Weighted((Part("tone", 1.0, tones.tone), Part("form", 0.0, tones.form)))
        every = [
            Heldout(
                self.format, self.prompts, rewards, Rollouts(max_new_tokens=LONGEST), seed, self.reference
            )(model)
            for seed in range(repeats)
        ]
        return {name: statistics.fmean(one[name] for one in every) for name in every[0]}


def _told(before: Sequence[Sequence[float]]) -> dict[str, float]:
    values = [value for one in before for value in one]
    return {"tone": statistics.fmean(values), "tone_std": statistics.pstdev(values)}


def _compared(judge: _Judge, made: Artifact, before: Sequence[Sequence[float]]) -> dict[str, float]:
    """The gain on held-out prompts, and that of the best of n at the same KL."""
    start = _told(before)
    first, last = judge.look(store.load(made.input("model").path), 8), judge.look(store.load(made.path), 8)
    gain, kl = last["heldout_reward.tone"] - start["tone"], last["heldout_answer_kl"]
    n = answers_at(max(kl, 0.0))
    best = best_of(before, n) - start["tone"]
    return {
        "tone": last["heldout_reward.tone"],
        "kl": kl,
        "gain_std": gain / start["tone_std"],
        "n_at_this_kl": n,
        "best_of_n_gain_std": best / start["tone_std"],
        "share_of_best_of_n": gain / best if best > 0 else math.nan,
        "form_before": first["heldout_reward.form"],
        "form_change": last["heldout_reward.form"] - first["heldout_reward.form"],
        "ended": last["heldout_ended"],
        "answer_tokens": last["heldout_answer_tokens"],
    }


def answers_at(kl: float) -> float:
    """The n at which the best of n answers is `kl` nats from one of them: log n - (n - 1) / n."""
    low, high = 1.0, 1e6
    for _ in range(200):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if math.log(middle) - (middle - 1) / middle < kl else (low, middle)
    return low


def best_of(values: Sequence[Sequence[float]], n: float) -> float:
    """The mean over prompts of the expected largest of n of their values, drawn without putting back; between whole
    numbers it is interpolated."""
    below = min(math.floor(n), len(values[0]))
    above = min(below + 1, len(values[0]))
    share = n - below if above > below else 0.0
    return statistics.fmean(
        (1 - share) * _largest(one, below) + share * _largest(one, above) for one in values
    )


def _largest(values: Sequence[float], n: int) -> float:
    ordered, count = sorted(values), len(values)
    chances = [math.comb(i, n - 1) / math.comb(count, n) for i in range(count)]
    return math.fsum(value * chance for value, chance in zip(ordered, chances, strict=True))


def _curves(made: Artifact) -> dict[str, Any]:
    """Of the log: what alarms are about, and the last fifth's means."""
    every = MetricsLog(made.path / "metrics.jsonl").rows()
    rows = [row for row in every if "answer_kl" in row]  # one an iteration
    # At least the updates of an iteration and a look: only one of those rows has the numbers of its answers.
    iteration = SETTINGS["updates"]["epochs"] * SETTINGS["updates"]["minibatches"] + 1
    last = every[-max(iteration, len(every) // 5) :]
    means = {
        name: statistics.fmean(row[name] for row in last if name in row)
        for name in ("explained_variance", "kl_coefficient", "answer_kl", "policy_entropy", "clip_share")
    }
    return means | {
        "negative_kl": sum(row["kl"] < -1e-6 for row in rows),
        "lowest_kl": min(row["kl"] for row in rows),
        "rollout_gap": max(row["rollout_gap"] for row in rows),
        "alarms": made.summary["alarms"],
        "training": [round(row["reward"], 3) for row in rows[:: max(1, len(rows) // 10)]],
        "kls": [round(row["answer_kl"], 3) for row in rows[:: max(1, len(rows) // 10)]],
    }
