"""Models on disk: our own artifacts in and out. (Other projects' files are in `checkpoint.py`.)

A model artifact holds `model.json` (ModelConfig), `model.safetensors` (our tensor names) and the files of
`tokenizer/conversation.py`. An adapter's artifact (LoRA, prefix, bottlenecks) holds `adapter.json` and
`adapter.safetensors` instead of weights, and its parent as the input `model`. `adapter.json` says how the parent's
weights were held while it was trained: they are held so again, and merged from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from matura.core import artifact as artifacts
from matura.core.errors import FormatError
from matura.core.files import atomic_write, write_json
from matura.core.inputs import one_of
from matura.core.peft_settings import BaseConfig, Tuning
from matura.model.checkpoint import Checkpoint, plausible, same_names, same_shape
from matura.model.config import Classifier, ModelConfig
from matura.model.description import ADAPTER_CONFIG as ADAPTER_CONFIG
from matura.model.description import CONFIG as CONFIG
from matura.model.description import adapter_settings as adapter_settings
from matura.model.description import read_config as read_config
from matura.model.description import read_tuning as read_tuning
from matura.model.peft import tuning
from matura.model.peft.adapter import Adapter, attach, taken
from matura.model.safetensors_file import open_tensors
from matura.model.transformer import Transformer, fuse_projections

WEIGHTS, ADAPTER_WEIGHTS = "model.safetensors", "adapter.safetensors"


def load(
    path: str | Path,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    base: BaseConfig | None = None,
) -> Transformer:
    """The model of an artifact, in evaluation mode. What an adapter adds sits on the parent it was trained on.

    Weights are memory-mapped where device and dtype allow it. `base` says how the weights are held; an adapter says
    that itself. Raises ArtifactError or FormatError.
    """
    made = artifacts.load(path)
    if made.kind != "model":
        raise FormatError(f"{made.path} is {one_of(made.kind)}, not a model")
    if ADAPTER_CONFIG in made.record["files"]:
        held = base or read_tuning(made.path).base
        model = load(made.input("model").path, device=device, dtype=dtype, base=held)
        return load_adapter(model, made.path).eval()
    stored = open_tensors(made.file(WEIGHTS))
    model = _assemble(read_config(made.path), stored, made.path, device, dtype)
    if base is not None:
        tuning.quantize_base(model, base, lambda name: stored.read(name).to(device, dtype))
    return model.eval()


def load_for_inference(
    path: str | Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Transformer:
    """`load`, with updates merged into the weights and projections fused: the same results, made faster."""
    model = tuning.merge(load(path, device=device, dtype=dtype))
    return fuse_projections(tuning.float_base(model))


def load_adapter(model: Transformer, folder: str | Path) -> Transformer:
    """Put what an adapter's `folder` holds on the model."""
    return attach(model, read_adapter(folder), Path(folder) / ADAPTER_WEIGHTS)


def read_adapter(folder: str | Path) -> Adapter:
    """The adapter of a folder, apart from its model. Raises FormatError."""
    stored = open_tensors(Path(folder) / ADAPTER_WEIGHTS)
    head = read_config(folder).head
    whole = isinstance(head, Classifier) and any(name.startswith("head.") for name in stored)
    return Adapter(
        read_tuning(folder),
        {name: stored.read(name) for name in stored},
        head if whole and isinstance(head, Classifier) else None,
    )


def save(folder: str | Path, model: Transformer) -> None:
    """Write `model.json` and `model.safetensors`, each atomically."""
    save_tensors(folder, model.config, model.state_dict())


def save_tensors(folder: str | Path, config: ModelConfig, tensors: Mapping[str, Tensor]) -> None:
    """The same for the tensors of a model that are not in one place with it."""
    folder = Path(folder)
    write_json(folder / CONFIG, config.model_dump(mode="json"))
    _save_tensors(folder / WEIGHTS, tensors)


def save_adapter(folder: str | Path, model: Transformer, settings: Tuning) -> None:
    """Write `model.json`, `adapter.json` and `adapter.safetensors`: the settings, and all that is trained."""
    folder = Path(folder)
    adapter = taken(model, settings)
    write_json(folder / CONFIG, model.config.model_dump(mode="json"))
    write_json(folder / ADAPTER_CONFIG, adapter.settings.model_dump(mode="json"))
    _save_tensors(folder / ADAPTER_WEIGHTS, adapter.tensors)


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
