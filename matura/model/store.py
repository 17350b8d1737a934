"""Models on disk: our own artifacts in and out, other projects' checkpoints in.

A model artifact holds `model.json` (ModelConfig), `model.safetensors` (our tensor names) and the files of
`tokenizer/conversation.py`. The artifact of a LoRA run holds `adapter.json` and `adapter.safetensors` instead of
weights, and its parent as the input `model`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from matura.core import artifact as artifacts
from matura.core import gguf
from matura.core.config import parse
from matura.core.errors import FormatError
from matura.core.files import atomic_write, read_json, write_json
from matura.core.settings import LoraConfig
from matura.model.config import ModelConfig
from matura.model.dequantize import dequantize
from matura.model.families import llama
from matura.model.peft.lora import apply_lora, lora_state, merge_lora
from matura.model.safetensors_file import open_tensors
from matura.model.transformer import Transformer, fuse_projections

CONFIG, WEIGHTS = "model.json", "model.safetensors"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter.json", "adapter.safetensors"
QUANTIZED = ("Q2_K", "Q3_K", "Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0")


@dataclass(frozen=True)
class Checkpoint:
    """Another project's model: our settings, and its tensors under our names, made one at a time when iterated."""

    config: ModelConfig
    tensors: Iterator[tuple[str, Tensor]]
    quantization: str | None
    """The quantized type most weights had, like "Q4_1"; None when they were never quantized."""


def load(
    path: str | Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32, mapped: bool = True
) -> Transformer:
    """The model of an artifact, in evaluation mode. LoRA updates sit on the parent they were trained on.

    Weights are memory-mapped where device and dtype allow it, or read (`mapped=False`), which keeps no second copy
    in memory when they are laid out anew. Raises ArtifactError or FormatError.
    """
    made = artifacts.load(path)
    if made.kind != "model":
        raise FormatError(f"{made.path} is a {made.kind}, not a model")
    if ADAPTER_CONFIG in made.record["files"]:
        model = load(made.input("model").path, device=device, dtype=dtype, mapped=mapped)
        return load_adapter(model, made.path).eval()
    return _assemble(
        read_config(made.path), open_tensors(made.file(WEIGHTS), mapped=mapped), made.path, device, dtype
    ).eval()


def load_for_inference(
    path: str | Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Transformer:
    """`load`, with updates merged into the weights and projections fused: the same results, made faster."""
    return fuse_projections(merge_lora(load(path, device=device, dtype=dtype, mapped=False)))


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
    _same_names(set(state), set(stored), folder / ADAPTER_WEIGHTS)
    with torch.no_grad():
        for name, tensor in state.items():
            _same_shape(name, tensor.shape, stored[name].shape, folder / ADAPTER_WEIGHTS)
            tensor.copy_(stored[name])
    return model


def save(folder: str | Path, model: Transformer) -> None:
    """Write `model.json` and `model.safetensors`, each atomically."""
    folder = Path(folder)
    write_json(folder / CONFIG, model.config.model_dump(mode="json"))
    _save_tensors(folder / WEIGHTS, model.state_dict())


def save_adapter(folder: str | Path, model: Transformer, config: LoraConfig) -> None:
    """Write `model.json`, `adapter.json` and `adapter.safetensors`."""
    folder = Path(folder)
    write_json(folder / CONFIG, model.config.model_dump(mode="json"))
    write_json(folder / ADAPTER_CONFIG, config.model_dump(mode="json"))
    _save_tensors(folder / ADAPTER_WEIGHTS, lora_state(model))


def _save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    with atomic_write(path) as temporary:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, temporary)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Open a GGUF file or a Hugging Face folder with safetensors. Raises FormatError, naming the file."""
    path = Path(path)
    if path.is_dir() and not (path / "config.json").is_file():
        files = sorted(path.glob("*.gguf"))
        if len(files) != 1:
            raise FormatError(
                f"{path}: expected a config.json or one .gguf file, found {len(files)} .gguf files"
            )
        path = files[0]
    return _read_hf(path) if path.is_dir() else _read_gguf(path)


def build(checkpoint: Checkpoint, where: str | Path, *, dtype: torch.dtype = torch.float32) -> Transformer:
    """The model of a checkpoint, all in memory."""
    return _assemble(checkpoint.config, dict(checkpoint.tensors), Path(where), "cpu", dtype).eval()


def _read_hf(folder: Path) -> Checkpoint:
    hf = read_json(folder / "config.json", limit=4 << 20, what="a model's settings")
    if hf.get("model_type") != "llama":
        raise FormatError(
            f"{folder / 'config.json'}: model_type {hf.get('model_type')!r} is not supported; llama is"
        )
    config = _settings(lambda: llama.from_hf_config(hf), folder / "config.json")
    stored = open_tensors(folder)
    _plausible(config, len(stored), folder)
    names = llama.hf_names(config)
    ignored = {name for name in stored if name.endswith("rotary_emb.inv_freq")}
    ignored |= {"lm_head.weight"} if config.tied else set()
    _same_names(set(names), set(stored) - ignored, folder)
    tensors = ((ours, stored[theirs]) for theirs, ours in names.items())
    return Checkpoint(config, tensors, None)


def _read_gguf(path: Path) -> Checkpoint:
    file = gguf.read(path)
    architecture = file.metadata.get("general.architecture")
    if architecture != "llama":
        raise FormatError(f"{path}: general.architecture {architecture!r} is not supported; llama is")
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise FormatError(
            f"{path}: expected a matrix token_embd.weight; the file does not hold a language model"
        )
    present = set(file.tensors)
    config = _settings(lambda: llama.from_gguf_config(file.metadata, present, embedding.shape[0]), path)
    _plausible(config, len(present), path)
    names = llama.gguf_names(config)
    if "rope_freqs.weight" in present:
        factors = file.tensors["rope_freqs.weight"]
        if (dequantize(file.data(factors.name), factors.type, factors.shape) != 1).any():
            raise FormatError(
                f"{path}: rope_freqs.weight scales the positions (Llama 3.1); that is not supported yet"
            )
    _same_names(set(names), present - {"rope_freqs.weight"}, path)

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for theirs, ours in names.items():
            info = file.tensors[theirs]
            weight = torch.from_numpy(dequantize(file.data(theirs), info.type, info.shape))
            yield ours, llama.unpermute(config, ours, weight)

    sizes: dict[str, int] = {}
    for info in file.tensors.values():
        sizes[info.type] = sizes.get(info.type, 0) + info.nbytes
    largest = max(sizes, key=lambda kind: sizes[kind])
    return Checkpoint(config, tensors(), largest if largest in QUANTIZED else None)


def _settings(read: Callable[[], ModelConfig], where: Path) -> ModelConfig:
    try:
        return read()
    except KeyError as error:
        raise FormatError(f"{where}: the setting {error.args[0]!r} is missing") from error
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from error
    except (TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise FormatError(f"{where}: these settings describe no model: {error}") from error


def _assemble(
    config: ModelConfig, tensors: Mapping[str, Tensor], where: Path, device: str, dtype: torch.dtype
) -> Transformer:
    """A model around existing tensors: nothing is initialized, and nothing copied that fits as it is."""
    _plausible(config, len(tensors), where)
    try:
        with torch.device("meta"):
            model = Transformer(config)
    except RuntimeError as error:  # sizes beyond what a tensor can have
        raise FormatError(f"{where}: these settings describe no model: {error}") from error
    expected = model.state_dict()
    _same_names(set(expected), set(tensors), where)
    state = {}
    for name, slot in expected.items():
        tensor = tensors[name]
        _same_shape(name, slot.shape, tensor.shape, where)
        state[name] = tensor.to(device=device, dtype=dtype)
    model.load_state_dict(state, assign=True)
    return model


def _plausible(config: ModelConfig, tensors: int, where: Path) -> None:
    """Settings from outside may claim any number of layers; each would cost time and memory before it is missed."""
    layers = sum(stack.layers for stack in (config.encoder, config.decoder) if stack)
    if layers > tensors:
        raise FormatError(f"{where}: its settings say {layers} layers, but it holds only {tensors} tensors")


def _same_names(expected: set[str], found: set[str], where: Path) -> None:
    missing, extra = sorted(expected - found), sorted(found - expected)
    if missing or extra:
        parts = [
            f"{len(names)} {what}: {', '.join(names[:3])}"
            for what, names in (("missing", missing), ("unknown", extra))
            if names
        ]
        raise FormatError(f"{where}: its tensors are not those of its settings ({'; '.join(parts)})")


def _same_shape(name: str, expected: Any, found: Any, where: Path) -> None:
    if tuple(expected) != tuple(found):
        raise FormatError(f"{where}: {name} has shape {tuple(found)}, its settings say {tuple(expected)}")


def adapter_settings(folder: str | Path) -> LoraConfig | None:
    """The LoRA settings of a model's folder, or None when it holds a whole model."""
    path = Path(folder) / ADAPTER_CONFIG
    return parse(LoraConfig, _read(path, "LoRA settings"), str(path)) if path.is_file() else None
