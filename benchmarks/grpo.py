"""Two-digit arithmetic by practice: a small model that fine-tuning left at 30-50% right goes on with GRPO alone.

Sums of two numbers from 10 to 99; one unordered pair in ten is held out, from fine-tuning and from practice. A model of
0.3M parameters is fine-tuned from first weights until about 40% of its sampled answers are right, then the stage `grpo`
rewards right answers. Control: the same with a reward drawn by lot, which must teach nothing. pass@1 is the share of
right answers among answers drawn at temperature 1 to all held-out sums.
"""

from __future__ import annotations

import hashlib
import json
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers

from benchmarks import record, staging
from benchmarks.options import Options
from matura.align import rollouts
from matura.align.rewards import answers
from matura.core.artifact import Artifact, RawInput
from matura.core.metrics import MetricsLog
from matura.core.preferences import Ranking
from matura.core.raw import raw_input
from matura.core.reward_settings import Exact
from matura.core.settings import Draw, OptimizerConfig
from matura.model import config as c
from matura.model import store
from matura.model.counting import count_parameters
from matura.model.transformer import Transformer
from matura.stages import grpo
from matura.tokenizer.conversation import Format
from matura.tokenizer.tokenizer import Roles, Tokenizer
from matura.train.batches import Example, PackedBatches, Rows
from matura.train.loop import train
from matura.train.objectives import loss
from matura.train.optim import build_optimizer, build_schedule

END, USER, ASSISTANT = "<|end|>", "<|user|>", "<|assistant|>"
TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
BY_LOT = """import random

def lot(completions):
    return [float(random.Random(f"{i}/{one.prompt.id}/{one.text}").random() < 0.4) for i, one in enumerate(completions)]
"""
START = 0.40
"""Share of right answers at which fine-tuning ends."""
LEAST_GAIN, MOST_CONTROL, LEAST_UNEVEN = 0.25, 0.03, 0.80
SETTINGS: dict[str, Any] = {
    "method": "full",
    "prompts_each": 32,
    "rollouts": {"samples": 8, "max_new_tokens": 5, "batch": 256},
    "updates": {"advantages": "std", "reduction": "token", "clip_high": 0.28},
    "optimizer": {"lr": 1.5e-4, "schedule": "constant", "weight_decay": 0.0},
    "meter_prompts": 64,
    "forgetting": {"text": None},
    "save_every": 1000,
}


def run(options: Options) -> bool:
    """Whether practice gains 25 points of pass@1 with every seed, and the control at most 3."""
    torch.set_num_threads(options.threads)
    found = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            found.append(_seed(seed, Path(folder), options))
        print(json.dumps(found[-1]), flush=True)
    figures = {
        "settings": SETTINGS,
        "parameters": found[0]["parameters"],
        "seeds": found,
        "gain": _spread([one["practice"]["gain"] for one in found]),
        "control_gain": _spread([one["control"]["gain"] for one in found]),
    }
    record.save("grpo", options, figures)
    good = all(
        0.3 <= one["start"] <= 0.5
        and one["practice"]["gain"] >= LEAST_GAIN
        and one["practice"]["uneven_at_start"] >= LEAST_UNEVEN
        and one["control"]["gain"] <= MOST_CONTROL
        for one in found
    )
    return good or options.quick


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": statistics.fmean(values), "least": min(values), "most": max(values)}


def _seed(seed: int, folder: Path, options: Options) -> dict[str, Any]:
    format = _format()
    learnt, held = _sums()
    model, taught = _fine_tuned(format, learnt, held, seed, options)
    parent = staging.model(folder / "start", model, format, {})
    (folder / "prompts").mkdir()
    staging.write_sides(folder / "prompts", learnt, held)
    start = pass_at_1(model, format, held)
    told = {"seed": seed, "parameters": count_parameters(model.config)[0], "sft": taught, "start": start}
    (folder / "lot.py").write_text(BY_LOT)
    lot = raw_input(folder / "lot.py")
    cases: dict[str, tuple[dict[str, Any], dict[str, RawInput]]] = {
        "practice": ({"exact": {"weight": 1}}, {}),
        "control": (
            {"own": {"lot": {"file": str(lot.path)}}, "exact": {"weight": 0}},
            {"rewards.own.lot.file": lot},
        ),
    }
    for name, (rewards, more) in cases.items():
        began = time.process_time()
        made, rows = _practised(folder / name, parent, folder / "prompts", rewards, more, seed, options)
        after = pass_at_1(made, format, held)
        told[name] = {
            "pass_at_1": after,
            "gain": after - start,
            "cpu_seconds": round(time.process_time() - began, 1),
            "uneven_at_start": 1 - statistics.fmean(row["even_groups"] for row in rows[1:6]),
            "kl": [row["heldout_answer_kl"] for row in rows if "heldout_answer_kl" in row][-1],
            "entropy": [row["policy_entropy"] for row in rows if "policy_entropy" in row][-1],
            "curve": [round(row["reward.exact"], 3) for row in rows if "reward.exact" in row][::10],
        }
        print(f"seed {seed}: {name} {start:.3f} -> {after:.3f}", flush=True)
    return told


def _sums() -> tuple[list[Ranking], list[Ranking]]:
    """All sums of two numbers of two digits, to learn from and held out: a + b stands where b + a does."""
    sides: tuple[list[Ranking], list[Ranking]] = ([], [])
    for a in range(10, 100):
        for b in range(10, 100):
            key = hashlib.blake2b(f"{min(a, b)}+{max(a, b)}".encode(), digest_size=2).digest()
            asked = ({"role": "user", "content": f"{a}+{b}="},)
            sides[key[0] % 10 == 0].append(Ranking(f"{a}+{b}", asked, facts={"gold": str(a + b)}))
    return sides


def _format() -> Format:
    """A token for each digit and sign."""
    letters = [END, USER, ASSISTANT, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = tokenizers.Tokenizer(models.BPE(vocab={one: i for i, one in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([END, USER, ASSISTANT])
    tokenizer = Tokenizer(backend, Roles(eos=END))
    return Format(tokenizer, TEMPLATE, [tokenizer.id(END)])


def _shape(vocabulary: int) -> c.ModelConfig:
    stack = c.StackConfig(
        layers=3,
        width=96,
        attention=c.Attention(heads=4, kv_heads=4, head_width=24, qk_norm=c.RMSNorm()),
        mlp=c.SwiGLU(hidden=256),
    )
    return c.ModelConfig(vocabulary=vocabulary, context=64, decoder=stack)


def _fine_tuned(
    format: Format, learnt: Sequence[Ranking], held: Sequence[Ranking], seed: int, options: Options
) -> tuple[Transformer, dict[str, Any]]:
    """A model that gets about `START` of the held-out sums right."""
    model = Transformer(_shape(format.tokenizer.vocab_size)).initialize(seed)
    examples = []
    for one in learnt:
        answer = {"role": "assistant", "content": one.facts["gold"]}
        told = format.render([*one.messages, answer])
        examples.append(Example(tuple(told.ids), tuple(map(float, told.mask))))
    batches = PackedBatches([Rows(examples, tokens=1024, seed=seed)])
    settings = OptimizerConfig(kind="muon", lr=3e-3, schedule="constant", weight_decay=0.0)
    steps, every = options.default(None, 3000, 100), 10
    began, share = time.process_time(), 0.0
    looked = random.Random(seed).sample(list(held), 200)
    for step in train(
        model, batches, loss, build_optimizer(model, settings), build_schedule(settings, steps), steps=steps
    ):
        if step.step % every == 0:
            share = pass_at_1(model, format, looked, samples=1)
            if step.step % 100 == 0:
                print(f"fine-tuning {step.step}: loss {step.loss:.3f}, right {share:.3f}", flush=True)
            if share >= START:
                break
    return model, {
        "steps": step.step,
        "loss": round(step.loss, 4),
        "cpu_seconds": round(time.process_time() - began, 1),
    }


def pass_at_1(model: Transformer, format: Format, prompts: Sequence[Ranking], samples: int = 4) -> float:
    """Share of right answers at temperature 1, whatever was practised."""
    written = rollouts.roll(
        model, format, prompts, k=samples, draw=Draw(max_new_tokens=5), seed=999, iteration=-2, batch=512
    )
    marks = answers.exact(Exact(weight=1.0), [rollouts.completion(one) for one in written])
    return statistics.fmean(float(mark or 0) for mark in marks)


def _practised(
    folder: Path,
    parent: Artifact,
    prompts: Path,
    rewards: dict[str, Any],
    more: dict[str, RawInput],
    seed: int,
    options: Options,
) -> tuple[Transformer, list[dict[str, Any]]]:
    iterations = options.default(None, 220, 5)
    values = SETTINGS | {
        "rewards": rewards,
        "iterations": iterations,
        "meter_every": max(1, iterations // 4),
        "seed": seed,
    }
    made = staging.run(grpo, folder, {"model": parent, "prompts": raw_input(prompts), **more}, values)
    return store.load(made.path), MetricsLog(made.path / "metrics.jsonl").rows()
