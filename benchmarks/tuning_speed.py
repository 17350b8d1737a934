"""LoRA on conversations with assistant-only loss beside TRL's SFTTrainer: the same weights, rows, rank, rate, and
updates of about as many tokens; real tokens a second (never padding) and peak memory.

Theirs is what its users write: a conversational data set, `assistant_only_loss`, four rows in a batch padded to the
longest, no recomputed activations. Ours is what the stage `finetune` does: rows packed, the system prompt of a pack
computed once (and counted for each row, as theirs), logits where the loss is.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from benchmarks import record, reference, sides, skill
from benchmarks.options import Options

GOAL = 2.5
BATCH, LENGTH, PER_STEP = 4, 1024, 1024
RATE, RANK, ALPHA = 5e-4, 8, 16
TEMPLATE = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>"
    "{% endgeneration %}\n{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The template of SmolLM2 with the marks that TRL finds answers by."""


def run(options: Options) -> bool:
    """Measure interleaved pairs, print and save; False when speed or memory misses its goal."""
    reference.folder(reference.find_model(options.model))
    settings: dict[str, Any] = {
        "case": "lora-conversations",
        "model": options.model,
        "text": options.text_place,
        "seed": options.seed,
        "threads": options.threads,
        "warmup": 1,
        "steps": 1 if options.quick else 6,
        "tokens": 256 if options.quick else PER_STEP,
        "batch": 2 if options.quick else BATCH,
    }
    pairs = sides.pairs("tuning_speed", settings, options.default(options.pairs, 3, 1), options.threads)
    found = {**sides.compare(pairs, settings), "goal": GOAL}
    record.table(sides.COLUMNS, [sides.row("lora-conversations", found)])
    checks = {
        "speed": found["ratio"] >= GOAL,
        "memory": found["peak_mb"]["ours"] <= found["peak_mb"]["theirs"],
        "the same tokens of a row, the same of them trained": all(
            pair["ours"]["row"] == pair["theirs"]["row"] for pair in pairs
        ),
    }
    task = skill.read(settings["text"], options.seed).name
    record.save("tuning_speed", options, {"task": task, "cases": {settings["case"]: found}, "checks": checks})
    return (
        checks["the same tokens of a row, the same of them trained"]
        if options.quick
        else all(checks.values())
    )


def side(which: str, settings: dict[str, Any]) -> dict[str, Any]:
    """One measurement in this process: warm-up updates, timed updates, peak memory. `row` is the first row: its tokens,
    and those that are trained."""
    import torch

    torch.set_num_threads(settings["threads"])
    rows = list(skill.read(settings["text"], settings["seed"]).train)[:400]
    steps = (_ours if which == "ours" else _theirs)(settings, rows)
    first = next(steps)
    done = [next(steps) for _ in range(settings["warmup"] + settings["steps"])][settings["warmup"] :]
    tokens, seconds = sum(one["tokens"] for one in done), [one["seconds"] for one in done]
    return {
        "tokens_per_second": tokens / sum(seconds),
        "tokens": tokens,
        "seconds": seconds,
        "losses": [one["loss"] for one in done],
        "row": first["row"],
        "peak_mb": sides.memory_mb("VmHWM"),
    }


def _ours(settings: dict[str, Any], rows: list[Any]) -> Iterator[dict[str, Any]]:
    """The first row, then loss, real tokens and time of every update, through the stage's own parts."""
    from matura.core.peft_settings import LoraConfig, TuningOptimizer
    from matura.model import store
    from matura.model.allocator import keep_freed_memory
    from matura.model.peft.lora import apply_lora
    from matura.tokenizer import conversation
    from matura.train import objectives, optim, resume
    from matura.train.batches import PackedBatches, Rows, packing
    from matura.train.examples import from_conversations
    from matura.train.loop import train

    keep_freed_memory()
    with resume.deterministic(settings["seed"]):
        made = reference.find_model(settings["model"])
        model, format = store.load(made.path), conversation.load(made.path)
        apply_lora(model, LoraConfig(rank=RANK, alpha=ALPHA), settings["seed"])
        examples = from_conversations(rows, format, LENGTH).examples
        yield {"row": [len(examples[0].ids), examples[0].trained]}
        source = Rows(examples, tokens=settings["tokens"], seed=settings["seed"])
        batches = PackedBatches([source], pack=packing(model))
        config = TuningOptimizer(lr=RATE).of("lora")
        optimizer, schedule = optim.build_optimizer(model, config), optim.build_schedule(config, 1000)
        began = time.perf_counter()
        for step in train(
            model, batches, objectives.next_token, optimizer, schedule, steps=1000, clip=config.clip
        ):
            now = time.perf_counter()
            yield {"loss": step.loss, "tokens": step.tokens, "seconds": now - began}
            began = now


def _theirs(settings: dict[str, Any], rows: list[Any]) -> Iterator[dict[str, Any]]:
    """The same through SFTTrainer. Its `train` runs to its end; what happened is told afterwards."""
    import tempfile

    import datasets
    import transformers
    import trl
    from peft import LoraConfig

    made = reference.find_model(settings["model"])
    tokenizer = reference.tokenizer(made)
    tokenizer.chat_template = TEMPLATE
    model = transformers.AutoModelForCausalLM.from_pretrained(reference.folder(made), dtype="float32")
    data = datasets.Dataset.from_list([{"messages": _messages(row)} for row in rows])
    updates: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        config = trl.SFTConfig(
            output_dir=folder,
            max_steps=settings["warmup"] + settings["steps"] + 1,
            per_device_train_batch_size=settings["batch"],
            learning_rate=RATE,
            max_length=LENGTH,
            assistant_only_loss=True,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            dataloader_pin_memory=False,
            report_to="none",
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
            seed=settings["seed"],
        )
        lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
        trainer = trl.SFTTrainer(
            model=model, args=config, train_dataset=data, processing_class=tokenizer, peft_config=lora
        )
        learned: Any = trainer.train_dataset
        first = learned[0]
        # Ours does not feed what follows the last trained token (a line break): it counts on neither side.
        trained = [i for i, label in enumerate(first["labels"]) if label != -100]
        row = [trained[-1] + 1, len(trained)]
        collate, tokens = trainer.data_collator, list[int]()

        def counted(batch: list[Any]) -> Any:
            made = collate(batch)
            tokens.append(int(made["attention_mask"].sum()))
            return made

        trainer.data_collator = counted

        class Clock(transformers.TrainerCallback):
            def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                updates.append({"began": time.perf_counter()})

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                updates[-1]["seconds"] = time.perf_counter() - updates[-1].pop("began")

        trainer.add_callback(Clock())
        trainer.train()
        losses = [one["loss"] for one in trainer.state.log_history if "loss" in one]
    yield {"row": row}
    for one, count, loss in zip(updates, tokens, losses, strict=False):
        yield {**one, "tokens": count, "loss": loss}


def _messages(row: Any) -> list[dict[str, str]]:
    return [{"role": one["role"], "content": one["content"]} for one in row.messages]


if __name__ == "__main__":
    print(json.dumps(side(sys.argv[1], json.loads(sys.argv[2]))))
