"""Models on disk: our own artifacts in and out. (Other projects' files are in `checkpoint.py`.)

A model artifact holds `model.json` (ModelConfig), `model.safetensors` (our tensor names) and the files of
`tokenizer/conversation.py`. The artifact of a LoRA run holds `adapter.json` and `adapter.safetensors` instead of
weights, and its parent as the input `model`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from matura.core import artifact as artifacts
from matura.core.config import parse
from matura.core.errors import FormatError
from matura.core.files import atomic_write, read_json, write_json
from matura.core.settings import LoraConfig
from matura.model.checkpoint import Checkpoint, plausible, same_names, same_shape
from matura.model.config import ModelConfig
from matura.model.peft.lora import apply_lora, lora_state, merge_lora
from matura.model.safetensors_file import open_tensors
from matura.model.transformer import Transformer, fuse_projections

CONFIG, WEIGHTS = "model.json", "model.safetensors"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter.json", "adapter.safetensors"


def load(path: str | Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Transformer:
    """The model of an artifact, in evaluation mode. LoRA updates sit on the parent they were trained on.

    Weights are memory-mapped where device and dtype allow it. Raises ArtifactError or FormatError.
    """
    made = artifacts.load(path)
    if made.kind != "model":
        raise FormatError(f"{made.path} is a {made.kind}, not a model")
    if ADAPTER_CONFIG in made.record["files"]:
        model = load(made.input("model").path, device=device, dtype=dtype)
        return load_adapter(model, made.path).eval()
    return _assemble(
        read_config(made.path), open_tensors(made.file(WEIGHTS)), made.path, device, dtype
    ).eval()


def load_for_inference(
    path: str | Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Transformer:
    """`load`, with updates merged into the weights and projections fused: the same results, made faster."""
    return fuse_projections(merge_lora(load(path, device=device, dtype=dtype)))


def read_config(folder: str | Path) -> ModelConfig:
    """`model.json` of a model artifact's folder."""
    path = Path(folder) / CONFIG
    return parse(ModelConfig, _read(path, "a model's settings"), str(path))


def _read(path: Path, what: str) -> dict[str, Any]:
    try:
        return read_json(path, limit=1 << 20, what=what)
    except OSError as error:
        raise FormatError(f"{path}: cannot read {what}: {error.strerror or error}") from error


def load_adapter(model: Transformer, folder: str | Path) -> Transformer:
    """Put the LoRA updates of `folder` beside the layers of `model`."""
    folder = Path(folder)
    where = folder / ADAPTER_CONFIG
    config = parse(LoraConfig, _read(where, "LoRA settings"), str(where))
    apply_lora(model, config)
    state, stored = lora_state(model), open_tensors(folder / ADAPTER_WEIGHTS)
    same_names(set(state), set(stored), folder / ADAPTER_WEIGHTS)
    with torch.no_grad():
        for name, tensor in state.items():
            same_shape(name, tensor.shape, stored[name].shape, folder / ADAPTER_WEIGHTS)
            tensor.copy_(stored[name])
    return model


def save(folder: str | Path, model: Transformer) -> None:
    """Write `model.json` and `model.safetensors`, each atomically."""
    save_tensors(folder, model.config, model.state_dict())


def save_tensors(folder: str | Path, config: ModelConfig, tensors: Mapping[str, Tensor]) -> None:
    """The same for the tensors of a model that are not in one place with it."""
    folder = Path(folder)
    write_json(folder / CONFIG, config.model_dump(mode="json"))
    _save_tensors(folder / WEIGHTS, tensors)


def save_adapter(folder: str | Path, model: Transformer, config: LoraConfig) -> None:
    """Write `model.json`, `adapter.json` and `adapter.safetensors`."""
    folder = Path(folder)
    write_json(folder / CONFIG, model.config.model_dump(mode="json"))
    write_json(folder / ADAPTER_CONFIG, config.model_dump(mode="json"))
    _save_tensors(folder / ADAPTER_WEIGHTS, lora_state(model))


def _save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    with atomic_write(path) as temporary:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, temporary)


def build(checkpoint: Checkpoint, where: str | Path, *, dtype: torch.dtype = torch.float32) -> Transformer:
    """The model of a checkpoint, all in memory."""
    return _assemble(checkpoint.config, dict(checkpoint.tensors), Path(where), "cpu", dtype).eval()


def _assemble(
    config: ModelConfig, tensors: Mapping[str, Tensor], where: Path, device: str, dtype: torch.dtype
) -> Transformer:
    """A model around existing tensors: nothing is initialized, and nothing copied that fits as it is."""
    plausible(config, len(tensors), where)
    try:
        with torch.device("meta"):
            model = Transformer(config)
    except (RuntimeError, TypeError) as error:  # sizes beyond what a tensor can have
        raise FormatError(f"{where}: these settings describe no model: {error}") from error
    expected = model.state_dict()
    same_names(set(expected), set(tensors), where)
    state = {}
    for name, slot in expected.items():
        tensor = tensors[name]
        same_shape(name, slot.shape, tensor.shape, where)
        state[name] = tensor.to(device=device, dtype=dtype)
    model.load_state_dict(state, assign=True)
    return model


def adapter_settings(folder: str | Path) -> LoraConfig | None:
    """The LoRA settings of a model's folder, or None when it holds a whole model."""
    path = Path(folder) / ADAPTER_CONFIG
    return parse(LoraConfig, _read(path, "LoRA settings"), str(path)) if path.is_file() else None
