"""A small decoder that is taught conversations from first weights, with a tokenizer of its own: what the benchmarks of
alignment begin with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks import staging
from matura.core.artifact import Artifact
from matura.core.pretrain_settings import Shape
from matura.core.records import Conversation
from matura.core.settings import OptimizerConfig
from matura.model.initialize import initialize
from matura.model.shape import model_config
from matura.model.transformer import Transformer
from matura.tokenizer import roles
from matura.tokenizer.conversation import Format
from matura.tokenizer.tokenizer import Tokenizer
from matura.tokenizer.training import Plan, train
from matura.train import examples, loop, optim
from matura.train.batches import PackedBatches, Rows
from matura.train.objectives import next_token

CONTEXT = 128


def taught(
    folder: Path, rows: Sequence[Conversation], *, steps: int, seed: int, width: int = 96, layers: int = 2
) -> Artifact:
    """A model that has learned the answers of these conversations."""
    format = _format(rows)
    config = model_config(Shape(layers=layers, width=width), format.tokenizer.vocab_size, CONTEXT)
    model = initialize(Transformer(config), seed)
    made = examples.from_conversations(rows, format, CONTEXT)
    batches = PackedBatches([Rows(made.examples, tokens=4096, seed=seed)])
    settings = OptimizerConfig(kind="muon", lr=0.01, schedule="wsd", final=0.0, weight_decay=0.0)
    optimizer = optim.build_optimizer(model, settings)
    schedule = optim.build_schedule(settings, steps)
    loss = 0.0
    for step in loop.train(model, batches, next_token, optimizer, schedule, steps=steps):
        loss = step.loss
    summary = {"loss": loss, "parameters": sum(p.numel() for p in model.parameters())}
    return staging.model(folder, model.eval(), format, summary)


def _format(rows: Sequence[Conversation]) -> Format:
    tokens = roles.special("decoder", True, False, 0, ())
    texts = [message["content"] for row in rows for message in row.messages]
    backend = train(lambda: iter(texts), Plan("bpe", 1024, tokens.names))
    roles.surround(backend, tokens)
    stop = (roles.CLOSE, *([tokens.roles.eos] if tokens.roles.eos else []))
    return roles.conversation(Tokenizer(backend, tokens.roles), roles.CHATML, stop)
