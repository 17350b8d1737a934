"""transformers' side of `learning`: its Trainer and a GPT-2, as their users write it.

`python -m benchmarks.learning_trainer CASE SETTINGS` (JSON) prints one line of JSON. A byte-level BPE of the training
text, blocks of it shuffled every epoch, AdamW with the Trainer's defaults, a warm-up of 5% and a cosine. The schedule
follows the clock, so it ends exactly with the budget.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from benchmarks.learning_measure import Budget, Watch, byte_level_bpe, encode, parts

WARMUP = 0.05
LARGE = 5_000_000
"""Characters of training text from which on the vocabulary is large and nothing is dropped out."""


@dataclass(frozen=True)
class Case:
    """A GPT-2: about 12 * layers * width^2 parameters beside the embeddings."""

    layers: int
    heads: int
    width: int
    context: int
    batch: int
    lr: float


CASES = {
    "0.8m": Case(layers=4, heads=4, width=128, context=128, batch=16, lr=2e-3),
    "3m": Case(layers=4, heads=4, width=256, context=128, batch=16, lr=1e-3),
    "10m": Case(layers=6, heads=6, width=384, context=256, batch=8, lr=6e-4),
}


def main(name: str, settings: dict[str, Any]) -> str:
    """Train until the budget is spent; returns the result as JSON."""
    torch.set_num_threads(settings["threads"])
    set_seed(settings["seed"])
    case, (train, validation) = CASES[name], parts(settings["text"], settings["validation"])
    large = len(train) >= LARGE
    tokenizer = byte_level_bpe(train, settings["vocabulary"] or (4096 if large else 1024))
    ids, heldout = torch.tensor(encode(tokenizer, train)), tokenizer.encode(validation)
    dropout = settings["dropout"] if settings["dropout"] is not None else (0.0 if large else 0.1)
    model = GPT2LMHeadModel(_config(case, tokenizer, dropout))
    watch = Watch(
        model=model,
        logits=lambda x_BT: model(input_ids=x_BT).logits,
        ids=heldout.ids,
        before=ids[-case.context :].tolist(),
        context=case.context,
        bytes_of=lambda n: len(validation[: heldout.offsets[n - 1][1]].encode()),
        budget=Budget(settings["seconds"]),
    )
    steps = _train(model, case, settings, ids, watch)
    about = {"side": f"trainer-{name}", "seed": settings["seed"], "steps": steps}
    about |= {"tokens": steps * case.batch * case.context, "vocabulary": tokenizer.get_vocab_size()}
    return watch.result(**about, dropout=dropout, batch=case.batch, lr=settings["lr"] or case.lr)


def _config(case: Case, tokenizer: Tokenizer, dropout: float) -> GPT2Config:
    return GPT2Config(
        vocab_size=tokenizer.get_vocab_size(),
        n_positions=case.context,
        n_embd=case.width,
        n_layer=case.layers,
        n_head=case.heads,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        bos_token_id=None,
        eos_token_id=None,
        use_cache=False,
    )


class _Clock(TrainerCallback):
    """Ends training when the budget is spent."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.watch.budget.go()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop |= self.watch.look()


def _train(model: Any, case: Case, settings: dict[str, Any], ids: Tensor, watch: Watch) -> int:
    """The Trainer on blocks of the text; the number of updates."""
    blocks = ids[: len(ids) // case.context * case.context].view(-1, case.context)
    rows = [{"input_ids": block, "labels": block} for block in blocks]

    class ByTheClock(Trainer):
        """The cosine of the library, over the share of the budget that is spent."""

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            chosen = optimizer or self.optimizer
            assert chosen is not None
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                chosen, lambda _: _share(watch.budget.progress)
            )
            return self.lr_scheduler

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=case.batch,
            learning_rate=settings["lr"] or case.lr,
            weight_decay=settings["weight_decay"],
            max_steps=10_000_000,
            seed=settings["seed"],
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = ByTheClock(model=model, args=arguments, train_dataset=rows, callbacks=[_Clock(watch)])
        trainer.train()
    return int(trainer.state.global_step)


def _share(progress: float) -> float:
    """Of the peak learning rate."""
    if progress < WARMUP:
        return max(progress / WARMUP, 0.01)
    falling = min(1.0, (progress - WARMUP) / (1 - WARMUP))
    return 0.5 * (1 + math.cos(math.pi * falling))


if __name__ == "__main__":
    print(main(sys.argv[1], json.loads(sys.argv[2])))
