"""Learning from pairs beside TRL's DPOTrainer: the same weights, pairs, LoRA, optimizer and clipping; tokens/s, memory.

Pairs of answers of many lengths to questions of many lengths, four pairs a step. Theirs pads a batch to its longest and
reads a prompt with each of its answers, as its collator does by default; ours packs, and reads a prompt once. So that
the figures compare, tokens are counted as pairs have them: every prompt with every answer, and no padding.

The reference costs theirs a second forward pass in every step (`inline`); with `precompute_ref_log_probs` it is read
before training (`precomputed`), as ours always is, and in both cases the time of our reading is counted into our steps
in `inline`, so that no work is left out.
"""

from __future__ import annotations

import json
import math
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import record, reference, sides
from benchmarks.options import Options, read_text

PAIRS = 4
"""Pairs of one step."""
GOAL = 2.5
CASES = ("inline", "precomputed")
Row = tuple[str, str, str]
"""A question, and the answer that was chosen and the one that was rejected."""


def run(options: Options) -> bool:
    """Measure, print and save; False when the goal for speed or memory is missed."""
    reference.folder(reference.find_model(options.model))
    text, _ = options.read_text()
    found, losses = {}, {}
    for case in CASES:
        if options.cases and case not in options.cases:
            continue
        settings = {
            "case": case,
            "model": options.model,
            "text": options.text_place,
            "seed": options.seed,
            "threads": options.threads,
            "longest": 24 if options.quick else 240,
            "warmup": 1,
            "steps": 1 if options.quick else 3,
        }
        pairs = sides.pairs("dpo_speed", settings, options.default(options.pairs, 3, 1), options.threads)
        found[case] = {**sides.compare(pairs, settings), "goal": GOAL}
        losses[case] = [pair[side]["first_loss"] for pair in pairs for side in sides.SIDES]
    if not found:
        raise SystemExit(f"--cases: expected some of {', '.join(CASES)}")
    record.table(sides.COLUMNS, [sides.row(case, f) for case, f in found.items()])
    checks = {f"{case} speed": f["ratio"] >= f["goal"] for case, f in found.items() if case == "inline"}
    checks |= {f"{case} memory": f["peak_mb"]["ours"] <= f["peak_mb"]["theirs"] for case, f in found.items()}
    checks |= {
        f"{case} begins at log 2": all(abs(one - math.log(2)) < 1e-4 for one in losses[case])
        for case in losses
    }
    record.save("dpo_speed", options, {"text": text, "cases": found, "checks": checks})
    return options.quick or all(checks.values())


def side(which: str, settings: dict[str, Any]) -> dict[str, Any]:
    """One measurement in this process: warm-up steps, timed steps, peak memory."""
    import torch

    torch.set_num_threads(settings["threads"])
    rows = _rows(settings)
    counts = _tokens(rows, settings)
    steps = (_ours if which == "ours" else _theirs)(settings, rows)
    loaded = sides.memory_mb("VmRSS")
    first_loss, *_ = next(steps)
    for _ in range(settings["warmup"] - 1):
        next(steps)
    seconds, cpu, tokens = [], [], 0
    for n in range(settings["warmup"], settings["warmup"] + settings["steps"]):
        _, spent, used = next(steps)
        seconds.append(spent)
        cpu.append(used)
        tokens += sum(counts[n * PAIRS : (n + 1) * PAIRS])
    return {
        "tokens_per_second": tokens / sum(seconds),
        "tokens_per_cpu_second": tokens / sum(cpu),
        "tokens": tokens,
        "seconds": seconds,
        "first_loss": first_loss,
        "loaded_mb": loaded,
        "peak_mb": sides.memory_mb("VmHWM"),
    }


def _rows(settings: dict[str, Any]) -> list[Row]:
    """Questions and answers cut from the text, with seeded lengths: most short, some long (log-uniform)."""
    _, text = read_text(settings["text"])
    draw, words = random.Random(settings["seed"]), text.split()
    rows = []
    for _ in range(PAIRS * (settings["warmup"] + settings["steps"])):
        sizes = [
            round(math.exp(draw.uniform(math.log(low), math.log(high))))
            for low, high in ((6, 60), (8, settings["longest"]), (8, settings["longest"]))
        ]
        at = draw.randrange(len(words) - sum(sizes))
        told = []
        for size in sizes:
            told.append(" ".join(words[at : at + size]))
            at += size
        rows.append((told[0], told[1], told[2]))
    return rows


def _preferred(rows: Sequence[Row], settings: dict[str, Any]) -> list[Any]:
    from matura.align.preferred import from_pairs
    from matura.core.preferences import Answer, Pair, Ranking
    from matura.tokenizer import conversation

    format = conversation.load(reference.find_model(settings["model"]).path)
    made = []
    for n, (asked, good, bad) in enumerate(rows):
        ranking = Ranking(f"row {n}", ({"role": "user", "content": asked},))
        made.append(Pair(ranking, Answer(good), Answer(bad)))
    return from_pairs(made, format, 4096).preferred


def _tokens(rows: Sequence[Row], settings: dict[str, Any]) -> list[int]:
    """Tokens of each pair: the prompt with either answer."""
    return [
        sum(len(one.prompt) + len(answer) for answer in one.answers) for one in _preferred(rows, settings)
    ]


def _ours(settings: dict[str, Any], rows: Sequence[Row]) -> Iterator[tuple[float, float, float]]:
    """(loss, seconds, seconds of CPU) of every step, through the stage's own parts and settings."""
    from matura.align import reference as parents
    from matura.align.dpo import Objective
    from matura.align.preference_batches import Known, pack
    from matura.core.dpo_settings import PreferenceLoss
    from matura.core.peft_settings import LoraConfig
    from matura.core.settings import OptimizerConfig
    from matura.model import store
    from matura.model.allocator import keep_freed_memory
    from matura.model.peft import tuning
    from matura.model.peft.lora import apply_lora
    from matura.train import optim, resume
    from matura.train.loop import train

    keep_freed_memory()
    preferred = _preferred(rows, settings)
    reading: list[tuple[float, float]] = []

    def batches(parent: Any, folder: Path) -> Iterator[Any]:
        for n in range(0, len(preferred), PAIRS):
            its, began = preferred[n : n + PAIRS], _clocks()
            told = parents.logprobs(parent, [one.prompted for one in its], "parent", folder)
            reading.append(_since(began))
            yield pack([Known(one, its_logprobs) for one, its_logprobs in zip(its, told, strict=True)])

    with resume.deterministic(settings["seed"]), tempfile.TemporaryDirectory() as folder:
        model = store.load(reference.find_model(settings["model"]).path)
        parent = tuning.twin(model)
        apply_lora(model, LoraConfig(), settings["seed"])
        config = OptimizerConfig(lr=1e-5)
        optimizer, schedule = optim.build_optimizer(model, config), optim.build_schedule(config, 1000)
        given = batches(parent, Path(folder) / "run")
        steps = train(model, given, Objective(PreferenceLoss()), optimizer, schedule, steps=1000, clip=1.0)
        while True:
            began = _clocks()
            step = next(steps)
            spent = _since(began)
            left_out = (0.0, 0.0) if settings["case"] == "inline" else reading[-1]
            yield step.loss, spent[0] - left_out[0], spent[1] - left_out[1]


def _clocks() -> tuple[float, float]:
    """The time, and the CPU time of this process."""
    return time.perf_counter(), time.process_time()


def _since(began: tuple[float, float]) -> tuple[float, float]:
    now = _clocks()
    return now[0] - began[0], now[1] - began[1]


def _theirs(settings: dict[str, Any], rows: Sequence[Row]) -> Iterator[tuple[float, float, float]]:
    """(loss, seconds, seconds of CPU) of every step of DPOTrainer."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    place = reference.folder(reference.find_model(settings["model"]))
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    data = Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": asked}],
                "chosen": [{"role": "assistant", "content": good}],
                "rejected": [{"role": "assistant", "content": bad}],
            }
            for asked, good, bad in rows
        ]
    )
    clock: list[tuple[float, float]] = []
    told: list[tuple[float, float, float]] = []

    class Ordered(DPOTrainer):
        def _get_train_sampler(self, *_: Any) -> Any:  # the same pairs in the same steps
            return torch.utils.data.SequentialSampler(data)

    class Timing(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            clock.append(_clocks())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock[-1] = _since(clock[-1])

        def on_log(self, *_: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
            if logs and "loss" in logs:
                told.append((logs["loss"], *clock[-1]))

    with tempfile.TemporaryDirectory() as folder:
        arguments = DPOConfig(
            output_dir=folder,
            per_device_train_batch_size=PAIRS,
            num_train_epochs=1,
            learning_rate=1e-5,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            bf16=False,
            use_cpu=True,
            max_length=None,
            gradient_checkpointing=False,
            dataloader_num_workers=0,
            precompute_ref_log_probs=settings["case"] == "precomputed",
            seed=settings["seed"],
            disable_tqdm=True,
        )
        trainer = Ordered(
            model=model,
            args=arguments,
            train_dataset=data,
            processing_class=AutoTokenizer.from_pretrained(place),
            peft_config=LoraConfig(r=8, lora_alpha=16, target_modules=names, task_type="CAUSAL_LM"),
            callbacks=[Timing()],
        )
        trainer.train()
    yield from told


if __name__ == "__main__":
    print(json.dumps(side(sys.argv[1], json.loads(sys.argv[2]))))
