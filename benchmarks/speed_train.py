"""Tuning beside transformers + peft: the same weights, examples, mask, optimizer and clipping; tokens/s and memory.

Two kinds of data. `text`: blocks of 512 tokens, nothing padded on either side. `conversations`: questions and answers
of many lengths, the answers trained; ours packs them, theirs pads a batch to its longest, as its collator does by
default. Only real tokens are counted, never padding.
"""

from __future__ import annotations

import json
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks import record, reference, sides
from benchmarks.options import Options, read_text

if TYPE_CHECKING:
    from matura.train.batches import Example

SEQUENCE = 512
CASES = {
    "lora-text": {"method": "lora", "data": "text", "goal": 1.4},
    "lora-conversations": {"method": "lora", "data": "conversations", "goal": 1.4},
    "full-text": {"method": "full", "data": "text", "goal": 1.15},
    "full-conversations": {"method": "full", "data": "conversations", "goal": 1.15},
}


def run(options: Options) -> bool:
    """Measure every case, print and save; False when a goal for speed or memory is missed."""
    made = reference.find_model(options.model)
    reference.folder(made)
    text, _ = options.read_text()
    found, losses = {}, {}
    for case, about in CASES.items():
        if options.cases and case not in options.cases:
            continue
        steps = 4 if about["method"] == "lora" else 2
        settings = {
            "case": case,
            "model": options.model,
            "text": options.text_place,
            "seed": options.seed,
            "threads": options.threads,
            "method": about["method"],
            "data": about["data"],
            "tokens": 128 if options.quick else 1024,
            "sequence": 64 if options.quick else SEQUENCE,
            "warmup": 1,
            "steps": 1 if options.quick else steps,
        }
        pairs = sides.pairs("speed_train", settings, options.default(options.pairs, 3, 1), options.threads)
        found[case] = {**sides.compare(pairs, settings), "goal": about["goal"]}
        losses[case] = [pair["ours"]["first_loss"] - pair["theirs"]["first_loss"] for pair in pairs]
    if not found:
        raise SystemExit(f"--cases: expected some of {', '.join(CASES)}")
    record.table(sides.COLUMNS, [sides.row(case, f) for case, f in found.items()])
    checks = {case: f["ratio"] >= f["goal"] for case, f in found.items()}
    checks |= {f"{case} memory": f["peak_mb"]["ours"] <= f["peak_mb"]["theirs"] for case, f in found.items()}
    checks |= {
        f"{case} same first loss": max(map(abs, losses[case])) < 1e-3 for case in losses if "text" in case
    }
    record.save("speed_train", options, {"text": text, "cases": found, "checks": checks})
    return options.quick or all(checks.values())


def side(which: str, settings: dict[str, Any]) -> dict[str, Any]:
    """One measurement in this process: warm-up steps, timed steps, peak memory."""
    import torch

    torch.set_num_threads(settings["threads"])
    examples = _examples(settings)
    steps = (_ours if which == "ours" else _theirs)(settings, examples)
    loaded = sides.memory_mb("VmRSS")
    first_loss, _ = next(steps)
    for _ in range(settings["warmup"] - 1):
        next(steps)
    tokens, seconds = 0, []
    for _ in range(settings["steps"]):
        began = time.perf_counter()
        _, count = next(steps)
        seconds.append(time.perf_counter() - began)
        tokens += count
    return {
        "tokens_per_second": tokens / sum(seconds),
        "tokens": tokens,
        "seconds": seconds,
        "first_loss": first_loss,
        "loaded_mb": loaded,
        "peak_mb": sides.memory_mb("VmHWM"),
    }


def _examples(settings: dict[str, Any]) -> list[Example]:
    """The same on both sides: blocks of the text, or conversations cut from its words with seeded lengths."""
    from matura.core.records import Conversation
    from matura.tokenizer import conversation
    from matura.train.batches import Example
    from matura.train.examples import from_conversations

    _, text = read_text(settings["text"])
    format = conversation.load(reference.find_model(settings["model"]).path)
    length = settings["sequence"]
    wanted = settings["tokens"] * (settings["warmup"] + settings["steps"] + 2)
    if settings["data"] == "text":
        ids = format.tokenizer.encode(text[: wanted * 20])[:wanted]
        blocks = [ids[start : start + length] for start in range(0, len(ids) - length + 1, length)]
        return [Example(tuple(block), (False, *[True] * (length - 1))) for block in blocks]
    draw, words, rows = random.Random(settings["seed"]), text.split(), []
    # Lengths as in instruction data: most answers short, some long (log-uniform).
    for n in range(wanted // 40):
        question, answer = (
            round(math.exp(draw.uniform(math.log(low), math.log(high)))) for low, high in ((6, 60), (8, 240))
        )
        at = draw.randrange(len(words) - question - answer)
        said = " ".join(words[at : at + question]), " ".join(words[at + question : at + question + answer])
        turns = ({"role": "user", "content": said[0]}, {"role": "assistant", "content": said[1]})
        rows.append(Conversation(f"row {n}", turns))
    return from_conversations(rows, format, length)[0]


def _ours(settings: dict[str, Any], examples: Sequence[Example]) -> Iterator[tuple[float, int]]:
    """(loss, real tokens) of every step, through the finetune stage's own parts and settings."""
    from matura.core.peft_settings import LoraConfig
    from matura.core.settings import OptimizerConfig
    from matura.model import store
    from matura.model.allocator import keep_freed_memory
    from matura.model.peft.lora import apply_lora
    from matura.train import objectives, optim, resume
    from matura.train.batches import PackedBatches, Rows
    from matura.train.loop import train

    keep_freed_memory()
    with resume.deterministic(settings["seed"]):
        model = store.load(reference.find_model(settings["model"]).path)
        config = OptimizerConfig(lr=_rate(settings))
        if settings["method"] == "lora":
            apply_lora(model, LoraConfig(), settings["seed"])
        batches = PackedBatches([Rows(examples, tokens=settings["tokens"], seed=settings["seed"])])
        optimizer = optim.build_optimizer(model, config)
        schedule = optim.build_schedule(config, 1000)
        steps = train(
            model, batches, objectives.next_token, optimizer, schedule, steps=1000, clip=config.clip
        )
        for step in steps:
            # The last token of an example is a target but is not fed; it counts on both sides.
            yield step.loss, step.tokens + _sequences(settings, examples, step.step)


def _sequences(settings: dict[str, Any], examples: Sequence[Example], step: int) -> int:
    """Examples in the row of a step."""
    from matura.train.batches import Rows

    rows = Rows(examples, tokens=settings["tokens"], seed=settings["seed"])
    return [len(rows.next()) for _ in range(step)][-1]


def _theirs(settings: dict[str, Any], examples: Sequence[Example]) -> Iterator[tuple[float, int]]:
    """The same with transformers' model and loss, peft's LoRA and PyTorch's AdamW, as their users write it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    place = reference.folder(reference.find_model(settings["model"]))
    torch.manual_seed(settings["seed"])
    model: Any = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
    model.config.use_cache = False
    if settings["method"] == "lora":
        lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, lora)
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=_rate(settings), betas=(0.9, 0.95), weight_decay=0.01)
    for group in _groups(settings, examples):
        batch = _padded(group)
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield loss.item(), int(batch["attention_mask"].sum())


def _groups(settings: dict[str, Any], examples: Sequence[Example]) -> Iterator[Sequence[Example]]:
    """Text: the very groups that ours trains on, in its order. Conversations: shuffled, a fixed number at a time."""
    from matura.train.batches import Rows

    if settings["data"] == "text":
        rows = Rows(examples, tokens=settings["tokens"], seed=settings["seed"])
        while True:
            yield rows.next()
    order = list(examples)
    random.Random(settings["seed"]).shuffle(order)
    mean = sum(len(example.ids) for example in order) / len(order)
    size = max(1, round(settings["tokens"] / mean))
    while True:
        for start in range(0, len(order) - size + 1, size):
            yield order[start : start + size]


def _padded(group: Sequence[Example]) -> dict[str, Any]:
    """Padded on the right to the longest; what is not trained has the label -100."""
    import torch

    longest = max(len(example.ids) for example in group)
    rest = [longest - len(example.ids) for example in group]
    labels = [
        [id if trained else -100 for id, trained in zip(example.ids, example.mask, strict=True)]
        for example in group
    ]
    pairs = list(zip(group, labels, rest, strict=True))
    return {
        "input_ids": torch.tensor([[*example.ids, *[0] * n] for example, _, n in pairs]),
        "attention_mask": torch.tensor([[1] * len(example.ids) + [0] * n for example, _, n in pairs]),
        "labels": torch.tensor([[*label, *[-100] * n] for _, label, n in pairs]),
    }


def _rate(settings: dict[str, Any]) -> float:
    return 1e-3 if settings["method"] == "lora" else 1e-5


if __name__ == "__main__":
    print(json.dumps(side(sys.argv[1], json.loads(sys.argv[2]))))
