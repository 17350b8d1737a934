"""An adapter as a value: its settings and its tensors, apart from any model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from matura.core.errors import FormatError
from matura.core.peft_settings import Tuning
from matura.model.checkpoint import same_names, same_shape
from matura.model.peft import leaves, tuning
from matura.model.peft.lora import Update
from matura.model.transformer import Transformer


@dataclass(frozen=True, eq=False)
class Adapter:
    """What `settings.method` trained. Tensors are named as in the model that has them: `<layer>.a` and `.b` of LoRA,
    `decoder.keys` and `.values` of a prefix, `<layer>.bottleneck.down.weight` and so on."""

    settings: Tuning
    tensors: Mapping[str, Tensor]

    @property
    def prefix_tokens(self) -> int:
        """Positions that it takes from the context."""
        return self.settings.prefix.tokens if self.settings.method == "prefix" else 0

    def to(self, device: str | torch.device) -> Adapter:
        """The same with its tensors on a device."""
        return Adapter(self.settings, {name: tensor.to(device) for name, tensor in self.tensors.items()})


def taken(model: Transformer, settings: Tuning) -> Adapter:
    """What was trained on a model."""
    return Adapter(settings.tuning, leaves.trained(model))


def attach(model: Transformer, adapter: Adapter, where: str | Path = "adapter") -> Transformer:
    """Set an adapter on a plain model. Raises FormatError, naming `where`, when its tensors do not fit."""
    tuning.apply(model, adapter.settings)
    state, where = leaves.trained(model), Path(where)
    same_names(set(state), set(adapter.tensors), where)
    with torch.no_grad():
        for name, tensor in state.items():
            same_shape(name, tensor.shape, adapter.tensors[name].shape, where)
            tensor.copy_(adapter.tensors[name])
    return model


def lora_updates(adapter: Adapter) -> list[Update]:
    """The updates of a LoRA adapter. Raises FormatError for another method."""
    if adapter.settings.method != "lora":
        raise FormatError(f"a {adapter.settings.method} adapter has no low-rank updates")
    tensors = adapter.tensors
    layers = [name.removesuffix(".a") for name in tensors if name.endswith(".a")]
    return [
        Update(name, tensors[f"{name}.a"], tensors[f"{name}.b"], adapter.settings.lora.of(name)[1])
        for name in layers
    ]
