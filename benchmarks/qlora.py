"""LoRA on a base of 4 bits beside LoRA on the same base in float32: peak memory, and what is learned.

`memory`: one row of 256 tokens an update, recomputed activations, each side in a process of its own; the peak less
what the process held once everything was imported. It depends on the shape of `--model`, not on its weights.
`loss`: weights that came from a file of 4 bits lose nothing when they are packed to 4 bits again, so this is asked of a
model that was never quantized: that of `recipes/pretrain.yaml`, which is made or reused. Both sides learn the same rows
in the same order with the same start, and are compared by the loss of held-out text at the end. Beside it stands what
packing alone costs, before the first update, and how much of it the updates win back.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import record, reference, sides, staging
from benchmarks.options import Options, read_text

FORMATS = ("float32", "int4")
MOST_MEMORY = 0.45
"""Of the memory of LoRA on float32, both above the imports."""
MOST_LOSS = 0.02
"""By how much the final loss may be higher, as a share."""
LENGTH, STEPS = 256, 3
RECIPE = Path(__file__).parents[1] / "recipes" / "pretrain.yaml"
BASE = ("corpus", "tokenizer", "tokens", "model")
"""Stages of the recipe that the model needs."""
SHORT = ("corpus.heldout=20", "tokenizer.vocabulary=512", "model.sizes.tokens=40K")
TOKENS = 200_000
PIECE = 800
"""Characters of a row to learn, about."""


def run(options: Options) -> bool:
    """Measure, print and save; False when one side takes too much, or learns too little."""
    wanted = options.cases or ("memory", "loss")
    found: dict[str, Any] = {}
    if "memory" in wanted:
        found["memory"] = _memory(options)
    if "loss" in wanted:
        found["loss"] = _loss(options)
    if not found:
        raise SystemExit("--cases: expected some of memory, loss")
    held = checks(found)
    record.table(["check", "holds"], [[text, holds] for text, holds in held.items()])
    record.save("qlora", options, {**found, "checks": held})
    return options.quick or all(held.values())


def checks(found: Mapping[str, Any]) -> dict[str, bool]:
    """What must hold of what was measured."""
    held = {}
    if "memory" in found:
        held[f"peak memory at most {MOST_MEMORY:.0%}"] = found["memory"]["share"] <= MOST_MEMORY
    if "loss" in found:
        seeds = found["loss"]["seeds"]
        held[f"final loss at most {MOST_LOSS:.0%} higher, every seed"] = all(
            one["int4"]["heldout_loss"] <= (1 + MOST_LOSS) * one["float32"]["heldout_loss"] for one in seeds
        )
        held["something was learned, every seed and side"] = all(
            one[side]["heldout_loss"] < one[side]["heldout_loss_before"] for one in seeds for side in FORMATS
        )
    return held


def _memory(options: Options) -> dict[str, Any]:
    """Peaks above the imports in MB, medians of interleaved pairs; float32 first, then int4, and so on in turn."""
    reference.find_model(options.model)
    settings = {"model": options.model, "seed": options.seed, "threads": options.threads}
    pairs = []
    for n in range(options.default(options.pairs, 3, 1)):
        order = FORMATS if n % 2 == 0 else FORMATS[::-1]
        pairs.append({one: sides.measure("qlora", one, settings, options.threads) for one in order})
        print(f"  {pairs[-1]}", flush=True)
    above = {one: statistics.median(pair[one]["above_mb"] for pair in pairs) for one in FORMATS}
    return {
        "model": options.model,
        "tokens": LENGTH,
        "updates": STEPS,
        "above_imports_mb": above,
        "share": above["int4"] / above["float32"],
        "pairs": pairs,
    }


def side(format: str, settings: Mapping[str, Any]) -> dict[str, float]:
    """A few updates in this process, through the parts of the stage `finetune`; memory in MB."""
    import torch

    from matura.core.peft_settings import TuningOptimizer
    from matura.stages import finetune
    from matura.tokenizer import conversation
    from matura.train import objectives, optim, preparing, resume
    from matura.train.batches import Example, PackedBatches, Rows, packing
    from matura.train.loop import train

    torch.set_num_threads(settings["threads"])
    place = reference.find_model(settings["model"]).path
    talks = conversation.load(place)
    ids = talks.tokenizer.encode(read_text(None)[1][: 20 * LENGTH])[:LENGTH]
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # the first one imports a good part of torch
    imported = sides.memory_mb("VmRSS")
    config = finetune.Config(
        model="-", conversations="-", base={"format": format}, recompute="full", seed=settings["seed"]
    )
    with resume.deterministic(settings["seed"]):
        model, _ = preparing.prepare(config, place, talks)
        row = Example(tuple(ids), (False, *[True] * (len(ids) - 1)))
        batches = PackedBatches([Rows([row], tokens=LENGTH, seed=0)], pack=packing(model))
        settled = TuningOptimizer().of("lora")
        optimizer, schedule = optim.build_optimizer(model, settled), optim.build_schedule(settled, STEPS)
        losses = [
            step.loss
            for step in train(
                model, batches, objectives.next_token, optimizer, schedule, steps=STEPS, clip=settled.clip
            )
        ]
    peak = sides.memory_mb("VmHWM")
    return {
        "imported_mb": imported,
        "peak_mb": peak,
        "above_mb": peak - imported,
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }


def _loss(options: Options) -> dict[str, Any]:
    """Held-out loss in nats a token before and after, of both sides, for each seed."""
    import torch

    from matura.core.workspace import Workspace

    torch.set_num_threads(options.threads)
    title, stages = staging.as_run(RECIPE, (*(SHORT if options.quick else ()), *options.overrides))
    made = staging.recipe(title, {name: stages[name] for name in BASE}, Workspace(options.workspace))
    model = made["model"]
    if model.summary.get("source_quantization"):
        raise SystemExit(f"{model.path} comes from quantized weights")
    about, text = read_text(options.text_place)
    seeds = []
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder, "rows.jsonl")
        rows.write_text("".join(json.dumps({"text": one}) + "\n" for one in pieces(text)), encoding="utf-8")
        for seed in options.seeds:
            seeds.append({one: _tuned(model, rows, one, seed, Path(folder), options) for one in FORMATS})
            print(f"  seed {seed}: {seeds[-1]}", flush=True)
    return {
        "model": title,
        "parameters": model.summary["parameters"],
        "text": about,
        "seeds": [{"seed": seed, **one} for seed, one in zip(options.seeds, seeds, strict=True)],
        "higher": [one["int4"]["heldout_loss"] / one["float32"]["heldout_loss"] - 1 for one in seeds],
    }


def pieces(text: str) -> Sequence[str]:
    """A text in rows of about `PIECE` characters that end where a paragraph does."""
    found = [""]
    for paragraph in text.split("\n\n"):
        if len(found[-1]) + len(paragraph) > PIECE and found[-1]:
            found.append("")
        found[-1] += paragraph + "\n\n"
    return [one for one in found if one.strip()]


def _tuned(
    model: Any, rows: Path, format: str, seed: int, folder: Path, options: Options
) -> dict[str, float]:
    """One run of the stage `finetune`: held-out loss before the first update and after the last."""
    from matura.core.raw import raw_input
    from matura.stages import finetune

    made = staging.run(
        finetune,
        folder / f"{format}-{seed}",
        {"model": model, "conversations": raw_input(rows)},
        {
            "base": {"format": format},
            "tokens": options.default(options.tokens, TOKENS, 4096),
            "tokens_per_step": 2048,
            "sequence": 256,
            "forgetting": {"text": None},
            "meter_every": 10**6,
            "meter_tokens": 16384,
            "seed": seed,
        },
    )
    first = json.loads(made.file("metrics.jsonl").read_text("utf-8").splitlines()[0])
    return {"heldout_loss_before": first["heldout_loss"], "heldout_loss": made.summary["heldout_loss"]}


if __name__ == "__main__":
    print(json.dumps(side(sys.argv[1], json.loads(sys.argv[2]))))
