"""Matura's side of `learning`: the parts that `matura pretrain` is made of, with its rates by width.

`python -m benchmarks.learning_matura CASE SETTINGS` (JSON) prints one line of JSON. A byte-level BPE of the training
text, rotary positions, SwiGLU, normed queries and keys, first weights by width; Muon for the matrices and AdamW for the
tables. The schedule follows the clock, so it ends exactly with the budget.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.learning_measure import Budget, Watch, byte_level_bpe, encode, parts
from matura.core.pretrain_settings import Shape
from matura.core.settings import OptimizerConfig
from matura.data import shards
from matura.model.allocator import keep_freed_memory
from matura.model.initialize import initialize
from matura.model.shape import model_config, rate_factor
from matura.model.transformer import Transformer
from matura.train.blocks import TokenBatches
from matura.train.loop import train
from matura.train.objectives import loss
from matura.train.optim import build_optimizer, build_schedule

POINTS = 10_000
"""Updates that the schedule is written for; the share of the budget that is spent says which one it is."""
LARGE = 5_000_000
"""Characters of training text from which on nothing is seen twice in ten minutes."""


@dataclass(frozen=True)
class Case:
    """A model and how it learns. `lr` is that of width 128, as in `matura pretrain`."""

    layers: int
    width: int
    vocabulary: int
    context: int
    rows: int
    lr: float
    weight_decay: float = 0.0
    warmup: float = 0.02
    decay: float = 0.5


SMALL = Case(layers=4, width=128, vocabulary=1024, context=128, rows=16, lr=0.01, weight_decay=0.5)
CORPUS = Case(layers=4, width=192, vocabulary=4096, context=128, rows=16, lr=0.01)


def main(name: str, settings: dict[str, Any]) -> str:
    """Train until the budget is spent; returns the result as JSON."""
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(settings["seed"])
    keep_freed_memory()
    text, validation = parts(settings["text"], settings["validation"])
    case = replace(CORPUS if len(text) >= LARGE else SMALL, **settings.get("changes", {}))
    tokenizer = byte_level_bpe(text, case.vocabulary)
    ids, heldout = np.array(encode(tokenizer, text)), tokenizer.encode(validation)
    shape = Shape(layers=case.layers, width=case.width)
    model = initialize(
        Transformer(model_config(shape, tokenizer.get_vocab_size(), case.context)), settings["seed"]
    )
    watch = Watch(
        model=model,
        logits=lambda x_BT: model.logits(model.decode(x_BT)),
        ids=heldout.ids,
        before=ids[-case.context :].tolist(),
        context=case.context,
        bytes_of=lambda n: len(validation[: heldout.offsets[n - 1][1]].encode()),
        budget=Budget(settings["seconds"]),
    )
    with tempfile.TemporaryDirectory() as folder:
        tokens = _shard(Path(folder), ids, tokenizer.get_vocab_size())
        batches = TokenBatches(tokens, rows=case.rows, length=case.context, seed=settings["seed"])
        steps = _train(case, model, batches, watch)
    about = {"side": name, "seed": settings["seed"], "steps": steps, "case": vars(case)}
    return watch.result(**about, tokens=steps * case.rows * case.context)


def _train(case: Case, model: Transformer, batches: TokenBatches, watch: Watch) -> int:
    """The library's loop until the budget is spent; the number of updates."""
    optimizing = OptimizerConfig(
        kind="muon",
        lr=case.lr * rate_factor(case.width),
        weight_decay=case.weight_decay,
        schedule="wsd",
        warmup=case.warmup,
        decay=case.decay,
        final=0.0,
    )
    rate = build_schedule(optimizing, POINTS)
    watch.budget.go()
    updates = train(
        model,
        batches,
        loss,
        build_optimizer(model, optimizing),
        lambda _: rate(min(POINTS - 1, int(watch.budget.progress * POINTS))),
        steps=sys.maxsize,
    )
    return next(step.step for step in updates if watch.look())


def _shard(folder: Path, ids: np.ndarray, vocabulary: int) -> shards.TokenShards:
    """The text as one document, in a memory-mapped shard."""
    coding = shards.Coding(vocabulary, "0" * 64, {}, None, None)
    length = np.array([len(ids)])
    made = shards.write_shard(
        folder, "train-00000", coding.dtype, [shards.Group(ids, length, length, ("text",))]
    )
    shards.write_index(folder, coding, {"train": [made]})
    return shards.load(folder)


if __name__ == "__main__":
    print(main(sys.argv[1], json.loads(sys.argv[2])))
