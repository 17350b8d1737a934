"""Adapters in the files of Hugging Face's PEFT, in and out: LoRA and prefix tuning.

A folder holds `adapter_config.json` and `adapter_model.safetensors`. What a file asks for and nobody here follows
(DoRA, trained biases, modules saved whole) is an error. Scales are written as plain alpha / r: rsLoRA is a way to
choose a scale, and readers that do not know it would take another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from matura.core.errors import FormatError
from matura.core.files import atomic_write, read_json, write_json
from matura.core.peft_settings import PrefixConfig, Tuning
from matura.model.config import ModelConfig
from matura.model.families import registry
from matura.model.peft import layouts
from matura.model.peft.adapter import Adapter, from_updates, lora_updates
from matura.model.peft.layouts import Layer
from matura.model.peft.lora import Update
from matura.model.safetensors_file import open_tensors

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
MATRIX = re.compile(r"(?P<layer>.+)\.lora_(?P<part>[AB])(\.default)?\.weight")
TABLE = re.compile(r"(?P<layer>.+)\.lora_embedding_(?P<part>[AB])(\.default)?")
NOT_FOLLOWED = (
    "use_dora",
    "lora_bias",
    "modules_to_save",
    "use_qalora",
    "use_bdlora",
    "layer_replication",
    "alora_invocation_tokens",
)
OWN_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Starts of an adapter that change the model below it."""
MOST_BYTES = 4 << 20
HEAD = "lm_head"
"""The output matrix of a decoder that is its embedding: no tensor of a file of weights, but a layer there."""


def write(
    folder: str | Path,
    adapter: Adapter,
    config: ModelConfig,
    *,
    base: str | None = None,
    portable: bool = False,
) -> None:
    """Write an adapter on a model of these settings; `base` is what the model is called there.

    `portable` folds all scales into the tensors and gives all layers one rank, for readers that know one scale for a
    whole file (vLLM). Raises FormatError for what PEFT has no form for.
    """
    folder = Path(folder)
    if adapter.head is not None:
        raise FormatError(
            f"{folder}: the adapter has a head of its own; merge it (`matura merge`) and export the model"
        )
    match adapter.settings.method:
        case "lora":
            settings, tensors = _lora(adapter, config, portable)
        case "prefix":
            settings, tensors = _prefix(adapter, config)
        case method:
            raise FormatError(
                f"{folder}: PEFT has no form for method={method}; export the merged model, or keep it"
            )
    task = "SEQ_2_SEQ_LM" if config.encoder and config.decoder else "CAUSAL_LM" if config.decoder else None
    folder.mkdir(parents=True, exist_ok=True)
    named = {"base_model_name_or_path": base, "task_type": task, "inference_mode": True}
    write_json(folder / CONFIG, {**named, **settings})
    with atomic_write(folder / WEIGHTS) as temporary:
        save_file({n: t.contiguous() for n, t in tensors.items()}, temporary, metadata={"format": "pt"})


def _lora(adapter: Adapter, config: ModelConfig, portable: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
    layout = _layout(config)
    ours = lora_updates(adapter)
    embedding = next((one for one in ours if one.name == "embed"), None)
    found = list(layouts.to_theirs(layout, ours))
    if embedding is not None and config.tied:
        if config.decoder is None:
            raise FormatError(
                "PEFT has no one name for an encoder's embedding that is its output matrix; merge it"
            )
        found.append(embedding._replace(name=HEAD))
    if portable:
        found = layouts.folded(found)
    table = next((layer.theirs for layer in layout if layer.ours == ("embed",)), None)
    tensors: dict[str, Tensor] = {}
    for one in found:
        if one.name == table:  # an update of columns there
            tensors[f"{PREFIX}{one.name}.lora_embedding_A"] = one.b_OR.t()
            tensors[f"{PREFIX}{one.name}.lora_embedding_B"] = one.a_RI.t()
        else:
            tensors[f"{PREFIX}{one.name}.lora_A.weight"] = one.a_RI.clone()
            tensors[f"{PREFIX}{one.name}.lora_B.weight"] = one.b_OR.clone()
    ranks = {one.name: len(one.a_RI) for one in found}
    alphas = {one.name: one.scale * len(one.a_RI) for one in found}
    rank, alpha = int(layouts.commonest(ranks.values())), layouts.commonest(alphas.values())
    known = [layer.theirs for layer in layout] + ([HEAD] if config.tied else [])
    settings = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": adapter.settings.lora.dropout,
        "target_modules": sorted(layouts.by_last_name(dict.fromkeys(ranks, 1), known)),
        "rank_pattern": {name: r for name, r in ranks.items() if r != rank},
        "alpha_pattern": {name: a for name, a in alphas.items() if a != alpha},
        "use_rslora": False,
        "fan_in_fan_out": any(layer.transposed for layer in layout if layer.theirs in ranks),
        "bias": "none",
        "modules_to_save": None,
    }
    return settings, tensors


def _prefix(adapter: Adapter, config: ModelConfig) -> tuple[dict[str, Any], dict[str, Tensor]]:
    part, attention = "decoder" if config.decoder else "encoder", config.last_stack.attention
    if config.encoder and config.decoder:
        raise FormatError(
            "PEFT's prefix for a model with an encoder needs one for each stack; ours has the decoder's"
        )
    keys_LGPK, values_LGPK = (adapter.tensors[f"{part}.{name}"] for name in ("keys", "values"))
    both_PLXGK = torch.stack([keys_LGPK, values_LGPK], 1).permute(3, 0, 1, 2, 4)
    settings = {
        "peft_type": "PREFIX_TUNING",
        "num_virtual_tokens": both_PLXGK.shape[0],
        "token_dim": attention.kv_heads * attention.head_width,
        "num_layers": config.last_stack.layers,
        "num_attention_heads": attention.kv_heads,
        "num_transformer_submodules": 1,
        "encoder_hidden_size": config.width,
        "prefix_projection": False,
    }
    return settings, {"prompt_embeddings": both_PLXGK.flatten(1)}


def read(folder: str | Path, config: ModelConfig) -> Adapter:
    """An adapter for a model of these settings. Raises FormatError, naming the file, for what does not fit the model
    and for what is not followed here."""
    folder = Path(folder)
    where = folder / CONFIG
    try:
        settings = read_json(where, limit=MOST_BYTES, what="an adapter's settings")
    except OSError as error:
        raise FormatError(f"{where}: cannot read an adapter's settings: {error.strerror or error}") from error
    stored = open_tensors(folder / WEIGHTS)
    tensors = {name: stored.read(name) for name in stored if not name.endswith(".base_layer.weight")}
    kind = settings.get("peft_type")
    try:
        match kind:
            case "LORA":
                return _read_lora(settings, tensors, config)
            case "PREFIX_TUNING":
                return _read_prefix(settings, tensors, config)
    except (FormatError, KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"the setting {error} is missing" if isinstance(error, KeyError) else str(error)
        raise FormatError(f"{folder}: {what}") from error
    raise FormatError(f"{where}: peft_type {kind!r} is not supported; LORA and PREFIX_TUNING are")


def _read_lora(settings: Mapping[str, Any], tensors: Mapping[str, Tensor], config: ModelConfig) -> Adapter:
    if strange := [name for name in NOT_FOLLOWED if settings.get(name)]:
        raise FormatError(f"{strange[0]}={settings[strange[0]]!r} is not supported")
    start = settings.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower().startswith(OWN_BASE):
        raise FormatError(f"init_lora_weights={start!r} is not supported: it belongs to a changed base")
    if settings.get("bias", "none") != "none":
        raise FormatError(
            f"bias={settings['bias']!r} is not supported: it changes the model beside its adapter"
        )
    layout = _layout(config)
    theirs = _parsed(settings, tensors)
    found = list(layouts.to_ours(layout, _untied(theirs, layout, config)))
    if not found:
        raise FormatError("no tensor is a low-rank update")
    known = [name for layer in layout for name in layer.ours]
    return from_updates(found, known=known, dropout=settings.get("lora_dropout") or 0.0)


def _parsed(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> list[Update]:
    """The updates of a file, under its names, as matrices [outputs, inputs] (an embedding [V, D])."""
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        short = name.removeprefix(PREFIX)
        if match := MATRIX.fullmatch(short):
            pairs.setdefault(match["layer"], {})["a" if match["part"] == "A" else "b"] = tensor
        elif match := TABLE.fullmatch(short):
            pairs.setdefault(match["layer"], {})["b" if match["part"] == "A" else "a"] = tensor.t()
        else:
            raise FormatError(f"the tensor {name} is no part of a low-rank update, and is not supported")
    made = []
    for layer, pair in pairs.items():
        if pair.keys() != {"a", "b"} or any(tensor.dim() != 2 for tensor in pair.values()):
            raise FormatError(f"{layer}: expected two matrices, A and B")
        rank = len(pair["a"])
        if rank < 1:
            raise FormatError(f"{layer}: an update of rank 0 says nothing")
        alpha = float(_for_layer(settings.get("alpha_pattern"), layer, settings["lora_alpha"]))
        scale = alpha / (rank**0.5 if settings.get("use_rslora") else rank)
        made.append(Update(layer, pair["a"].float(), pair["b"].float(), scale))
    return made


def _for_layer(patterns: Mapping[str, Any] | None, layer: str, default: Any) -> Any:
    """What a pattern says of a layer. Patterns of PEFT are regular expressions; those that are more than names are
    refused, because one from outside could run for ever."""
    for pattern, value in (patterns or {}).items():
        name = pattern.removeprefix("^").replace("\\.", ".")
        if not re.fullmatch(r"[\w.]+", name):
            raise FormatError(f"the pattern {pattern!r} is more than a name; write the layers' names instead")
        if layer == name or (layer.endswith(f".{name}") and not pattern.startswith("^")):
            return value
    return default


def _untied(theirs: Sequence[Update], layout: Sequence[Layer], config: ModelConfig) -> list[Update]:
    """Updates without the output matrix of a tied model, which must have the same one as the embedding."""
    if not config.tied:
        return list(theirs)
    output = next((one for one in theirs if one.name == HEAD), None)
    table = next((layer for layer in layout if layer.ours == ("embed",)), None)
    names = () if table is None else (table.theirs, *table.also)
    embedding = next((one for one in theirs if one.name in names), None)
    if output is None and embedding is None:
        return list(theirs)
    if output is None or embedding is None or not _alike(output, embedding):
        raise FormatError(
            f"the model's output matrix is its embedding, and the file changes only {(output or embedding).name}; "  # type: ignore[union-attr]
            "train an adapter that changes both alike, or none"
        )
    return [one for one in theirs if one is not output]


def _alike(one: Update, other: Update) -> bool:
    same = all(torch.equal(x, y) for x, y in ((one.a_RI, other.a_RI), (one.b_OR, other.b_OR)))
    return same and one.scale == other.scale


def _read_prefix(settings: Mapping[str, Any], tensors: Mapping[str, Tensor], config: ModelConfig) -> Adapter:
    part, stack = "decoder" if config.decoder else "encoder", config.last_stack
    if tensors.keys() != {"prompt_embeddings"} or settings.get("num_transformer_submodules", 1) != 1:
        raise FormatError("expected one tensor, prompt_embeddings, for one stack")
    table, attention = tensors["prompt_embeddings"].float(), stack.attention
    width = stack.layers * 2 * attention.kv_heads * attention.head_width
    if table.dim() != 2 or table.shape[1] != width:
        raise FormatError(
            f"prompt_embeddings has shape {tuple(table.shape)}; this model's keys and values need {width} columns"
        )
    sizes = (stack.layers, 2, attention.kv_heads, attention.head_width)
    both_LXGPK = table.unflatten(1, sizes).permute(1, 2, 3, 0, 4)
    tuning = Tuning(method="prefix", prefix=PrefixConfig(tokens=len(table)))
    return Adapter(
        tuning,
        {f"{part}.{name}": both_LXGPK[:, i].contiguous() for i, name in enumerate(("keys", "values"))},
    )


def _layout(config: ModelConfig) -> list[Layer]:
    config = registry.home(config)
    return layouts.layers(registry.by_name(config.family).entries(config), config)
