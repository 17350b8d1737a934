"""A model made ready for fine-tuning of any kind, and what came out of it saved: what every such stage begins and ends
with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matura.core.artifact import Artifact
from matura.core.errors import ConfigError
from matura.core.peft_settings import Tuning
from matura.model import store, vocabulary
from matura.model.allocator import keep_freed_memory, return_freed_memory
from matura.model.peft import tuning
from matura.model.transformer import Transformer
from matura.tokenizer.conversation import Format
from matura.train.transforms import checkpoint_activations

NO_PIECES: Mapping[int, Sequence[int]] = {}


def check_whole(given: Artifact) -> None:
    """Raises ConfigError for a model that is an adapter already."""
    if (adapter := store.adapter_settings(given.path)) is None:
        return
    if adapter.method != "lora":
        raise ConfigError(f"{given.path} is an adapter already; take its parent, {given.input('model').path}")
    raise ConfigError(
        f"{given.path} has LoRA updates already: merge it first (`matura merge model={given.path}`)"
    )


def prepare(
    config: Any, given: Path, format: Format, pieces: Mapping[int, Sequence[int]] = NO_PIECES
) -> tuple[Transformer, Transformer]:
    """The model with what is trained set on it, and its parent: the same frozen weights without an adapter, as they
    are held; where all weights are trained a second model, whose memory is its file's.

    `config` is a `Tuning` that has `recompute` and `seed` too. With `pieces` (new ids and what they stand for, only
    where all weights are trained) both have rows for the larger vocabulary of `format`.
    """
    if config.base.format == "int4":  # who holds weights in 4 bits has little memory
        return_freed_memory()
    else:
        keep_freed_memory()
    model = store.load(given, base=config.base)
    parent = store.load(given) if config.method == "full" else tuning.twin(model)
    if pieces:
        for one in (model, parent):
            vocabulary.grow(one, format.tokenizer.vocab_size, pieces)
    text = config.prefix.text
    ids = format.tokenizer.encode(text) if text else ()
    if text is not None and not ids:
        raise ConfigError(f"prefix.text: {text!r} holds no token; give some words, or leave it out")
    tuning.apply(model, config, config.seed, ids)
    return checkpoint_activations(model, config.recompute), parent


def save(folder: Path, model: Transformer, config: Any, format: Format) -> None:
    """Write the model, or its adapter, and how it writes conversations."""
    if config.method == "full":
        store.save(folder, model)
    else:
        store.save_adapter(folder, model, config)
    format.save(folder)


def quantization(config: Tuning, given: Artifact) -> str | None:
    """A label for what the updates were trained on, where it is not weights that were never quantized."""
    known: str | None = given.summary.get("source_quantization")
    packed = None if config.base.format == "float32" else f"{config.base.format}, packed for training"
    return known or packed
