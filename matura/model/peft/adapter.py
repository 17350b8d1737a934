"""An adapter as a value: its settings and its tensors, apart from any model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from matura.core.errors import ConfigError, FormatError
from matura.core.peft_settings import LoraConfig, Tuning
from matura.model import config as c
from matura.model.checkpoint import same_names, same_shape
from matura.model.classifying import set_head
from matura.model.peft import layouts, leaves, tuning
from matura.model.peft.lora import Update
from matura.model.transformer import Transformer


@dataclass(frozen=True, eq=False)
class Adapter:
    """What `settings.method` trained. Tensors are named as in the model that has them: `<layer>.a` and `.b` of LoRA,
    `decoder.keys` and `.values` of a prefix, `<layer>.bottleneck.down.weight` and so on."""

    settings: Tuning
    tensors: Mapping[str, Tensor]
    head: c.Classifier | None = None
    """A head that was trained as a whole beside it; its tensors are `head.*`."""

    @property
    def prefix_tokens(self) -> int:
        """Positions that it takes from the context."""
        return self.settings.prefix.tokens if self.settings.method == "prefix" else 0

    def to(self, device: str | torch.device) -> Adapter:
        """The same with its tensors on a device."""
        return replace(self, tensors={name: tensor.to(device) for name, tensor in self.tensors.items()})


def taken(model: Transformer, settings: Tuning) -> Adapter:
    """What was trained on a model."""
    tensors, head = leaves.trained(model), model.config.head
    whole = isinstance(head, c.Classifier) and any(name.startswith("head.") for name in tensors)
    return Adapter(settings.tuning, tensors, head if whole and isinstance(head, c.Classifier) else None)


def attach(model: Transformer, adapter: Adapter, where: str | Path = "adapter") -> Transformer:
    """Set an adapter on a plain model. Raises FormatError, naming `where`, when its tensors do not fit."""
    if adapter.head is not None:
        set_head(model, adapter.head)
    tuning.apply(model, adapter.settings)
    if adapter.head is not None and model.head is not None:
        model.head.requires_grad_(True)
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


def from_updates(
    updates: Sequence[Update], *, known: Iterable[str] = (), dropout: float = 0.0, like: Tuning | None = None
) -> Adapter:
    """A LoRA adapter of these updates. `known` are all layers of the model, so that settings can be said by last names;
    without them every layer is named. `like` says how the base was held."""
    ranks = {one.name: len(one.a_RI) for one in updates}
    alphas = {one.name: one.scale * len(one.a_RI) for one in updates}
    rank, alpha = int(layouts.commonest(ranks.values())), layouts.commonest(alphas.values())
    known = list(known)

    def by_name(values: Mapping[str, float]) -> dict[str, float]:
        return layouts.by_last_name(values, known) if known else dict(values)

    lora = LoraConfig(
        rank=rank,
        alpha=alpha,
        dropout=dropout,
        targets=tuple(by_name(dict.fromkeys(ranks, 1))),
        ranks={name: int(value) for name, value in by_name(ranks).items() if value != rank},
        alphas={name: value for name, value in by_name(alphas).items() if value != alpha},
    )
    tensors = {f"{one.name}.{part}": t for one in updates for part, t in (("a", one.a_RI), ("b", one.b_OR))}
    return Adapter(Tuning(lora=lora, base=(like or Tuning()).base), tensors)


def weighted_sum(parts: Sequence[tuple[Adapter, float]]) -> Adapter:
    """One LoRA adapter whose updates are the weighted sums of those of several: their A's under each other, their B's
    with weight and scale side by side.

    Raises ConfigError when they were trained on weights that were held otherwise, or are not all low-rank updates.
    """
    if len({adapter.settings.base for adapter, _ in parts}) > 1:
        raise ConfigError("the adapters saw different weights: their bases were held in different formats")
    for adapter, _ in parts:
        if adapter.settings.method != "lora":
            raise ConfigError(
                f"method={adapter.settings.method} is no sum with weights, so it cannot be merged: keep the adapter"
            )
    found: dict[str, list[tuple[Update, float]]] = {}
    for adapter, weight in parts:
        for one in lora_updates(adapter):
            found.setdefault(one.name, []).append((one, weight))
    updates = [
        Update(
            name,
            torch.cat([one.a_RI for one, _ in each]),
            torch.cat([one.b_OR * (one.scale * weight) for one, weight in each], 1),
            1.0,
        )
        for name, each in found.items()
    ]
    summed = from_updates(updates, like=parts[0][0].settings)
    return _with_head(summed, [adapter for adapter, _ in parts])


def _with_head(adapter: Adapter, parts: Sequence[Adapter]) -> Adapter:
    """With the head that one of the parts has; two heads are no sum."""
    heads = [one for one in parts if one.head is not None]
    if len(heads) > 1:
        raise ConfigError("several of the adapters have a head of their own; heads cannot be added up")
    if not heads:
        return adapter
    own = {name: tensor for name, tensor in heads[0].tensors.items() if name.startswith("head.")}
    return replace(adapter, tensors={**adapter.tensors, **own}, head=heads[0].head)
