"""From the settings of a method to a model that is ready to be trained with it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from matura.core.errors import ConfigError
from matura.core.peft_settings import BaseConfig, FreezeConfig, Tuning, names
from matura.model.int4 import Int4Linear
from matura.model.layers import Linear
from matura.model.peft import leaves
from matura.model.peft.bottleneck import BottleneckLinear, apply_bottleneck
from matura.model.peft.leaves import Model
from matura.model.peft.lora import LoraLinear, LoraTable, apply_lora, merge_lora
from matura.model.peft.prefix import PrefixedStack, apply_prefix
from matura.model.transformer import Stack, Transformer

ADDED: dict[str, type[nn.Module]] = {
    "LoRA updates": LoraLinear,
    "updates of a table": LoraTable,
    "a prefix": PrefixedStack,
    "bottlenecks": BottleneckLinear,
}


def apply(model: Transformer, tuning: Tuning, seed: int = 0, ids: Sequence[int] = ()) -> Transformer:
    """The model with what the method trains set on it, and all else frozen. The model starts as it was, but with a
    prefix.

    `ids` are those of `prefix.text`; `seed` decides the start. `base` is not looked at: the weights are what they are
    (`quantize_base`). Raises ConfigError when the settings do not fit the model.
    """
    if what := added(model):
        raise ConfigError(f"this model has {what} already: merge it first, or take its parent")
    match tuning.method:
        case "lora":
            return apply_lora(model, tuning.lora, seed)
        case "prefix":
            return apply_prefix(model, tuning.prefix, seed, ids)
        case "bottleneck":
            return apply_bottleneck(model, tuning.bottleneck, seed)
        case "full":
            return freeze(model, tuning.freeze)


def added(model: nn.Module) -> str | None:
    """What was set on the model, in words; None for a plain one."""
    kinds = {type(module) for module in model.modules()}
    return next((what for what, kind in ADDED.items() if kind in kinds), None)


def twin(model: Model) -> Model:
    """A second model around the very same tensors: what is set on one of them is not on the other, and frozen weights
    are there once, however they are held."""
    tensors = (*model.parameters(), *model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def merge(model: Model) -> Model:
    """The model with all updates added into its weights. Prefixes and bottlenecks are no sums, and stay."""
    return merge_lora(model)


def quantize_base(model: Model, config: BaseConfig, read: Callable[[str], Tensor] | None = None) -> Model:
    """Hold the matrices inside the blocks as `config` says; embeddings, norms and the head stay float.

    `read(name)` gives a weight by its name, in memory of its own, where the model's are only mapped: then the pages
    of the file are not counted as this process's memory.
    """
    if config.format == "float32":
        return model
    for name in leaves.in_blocks(model):

        def packed(base: nn.Module, name: str = name) -> nn.Module:
            assert isinstance(base, nn.Linear)
            if read is not None:
                base.weight = nn.Parameter(read(f"{name}.weight"), requires_grad=False)
            return Int4Linear(base, config.group)

        leaves.swap(model, name, packed)
    return model


def float_base(model: Model) -> Model:
    """Every packed matrix as the float32 one that it stands for."""
    for name, module in list(model.named_modules()):
        if isinstance(module, Int4Linear):

            def whole(packed: nn.Module) -> nn.Module:
                assert isinstance(packed, Int4Linear)
                bias = packed.bias is not None
                linear = Linear(packed.in_features, packed.out_features, bias, device="meta")
                linear.weight = nn.Parameter(packed.dense(), requires_grad=False)
                if bias:
                    linear.bias = packed.bias
                return linear

            leaves.swap(model, name, whole)
    return model


def freeze(model: Model, config: FreezeConfig) -> Model:
    """Full tuning of all but what `config` names.

    Raises ConfigError for a pattern that names nothing, for more layers than there are, and when nothing is left.
    """
    model.requires_grad_(True)
    stacks = {name: module for name, module in model.named_modules() if isinstance(module, Stack)}
    most = max((stack.config.layers for stack in stacks.values()), default=0)
    if config.layers > most:
        raise ConfigError(f"freeze.layers={config.layers}, but the model has {most} layers")
    starts = [f"{name}.blocks.{i}." for name in stacks for i in range(config.layers)]
    if config.embeddings:
        starts += ["embed.", *(f"{name}.{part}." for name in stacks for part in ("positions", "segments"))]
    hits = dict.fromkeys(config.patterns, 0)
    for name, parameter in model.named_parameters():
        layer = name.rpartition(".")[0]
        found = [p for p in config.patterns if names(name, p) or names(layer, p)]
        hits |= {p: hits[p] + 1 for p in found}
        if found or name.startswith(tuple(starts)):
            parameter.requires_grad_(False)
    if strange := [pattern for pattern, count in hits.items() if not count]:
        known = sorted({name.split(".")[-2] for name, _ in model.named_parameters() if "." in name})
        raise ConfigError(
            f"freeze.patterns: {', '.join(map(repr, strange))} names nothing; layers are {', '.join(known)}"
        )
    if not any(p.requires_grad for p in model.parameters()):
        raise ConfigError("freeze leaves nothing to train; freeze less")
    return model
