"""What a fine-tuning starts from: a whole model, and how its weights are held meanwhile."""

from __future__ import annotations

from matura.core.artifact import Artifact
from matura.core.errors import ConfigError
from matura.core.peft_settings import Tuning
from matura.model import store


def check_whole(given: Artifact) -> None:
    """Raises ConfigError for an adapter, with what to take instead."""
    if (adapter := store.adapter_settings(given.path)) is None:
        return
    if adapter.method != "lora":
        raise ConfigError(f"{given.path} is an adapter already; take its parent, {given.input('model').path}")
    raise ConfigError(
        f"{given.path} has LoRA updates already: merge it first (`matura merge model={given.path}`)"
    )


def source_quantization(given: Artifact, config: Tuning) -> str | None:
    """A label for what the updates were trained on, where it is not the weights that someone trained in full."""
    packed = None if config.base.format == "float32" else f"{config.base.format}, packed for training"
    return given.summary.get("source_quantization") or packed
