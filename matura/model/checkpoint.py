"""Other projects' checkpoints: Hugging Face folders in and out, GGUF files in.

Which tensor is which, and what the settings mean, is in `families/`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import torch
from safetensors.torch import save_file
from torch import Tensor

from matura.core import gguf
from matura.core.config import dotted
from matura.core.errors import ConfigError, FormatError
from matura.core.files import atomic_write, read_json, write_json
from matura.core.modelfiles import only_gguf
from matura.model.config import ModelConfig
from matura.model.dequantize import dequantize
from matura.model.families import registry
from matura.model.families.family import Family
from matura.model.families.weights import Entry
from matura.model.safetensors_file import DTYPES, open_tensors
from matura.model.transformer import Transformer

T = TypeVar("T")
ROPE_FREQS, MOST_FREQUENCIES = "rope_freqs.weight", 65_536
SHARD_BYTES = 5_000_000_000
QUANTIZED = ("Q2_K", "Q3_K", "Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0")
# general.file_type -> what llama.cpp calls such a mix of types
MIXES = {
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
} | {14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 21: "Q2_K_S"}


@dataclass(frozen=True)
class Checkpoint:
    """Another project's model: our settings, and its tensors under our names, made one at a time when iterated."""

    config: ModelConfig
    tensors: Iterator[tuple[str, Tensor]]
    quantization: str | None
    """The mix of quantized types that the weights had, like "Q4_K_M" or "Q4_1"; None when they were never quantized."""


def read(path: str | Path) -> Checkpoint:
    """Open a GGUF file or a Hugging Face folder with safetensors. Raises FormatError, naming the file."""
    path = Path(path)
    if path.is_dir() and not (path / "config.json").is_file():
        path = only_gguf(path)
    return _read_hf(path) if path.is_dir() else _read_gguf(path)


def _read_hf(folder: Path) -> Checkpoint:
    where = folder / "config.json"
    hf = read_json(where, limit=4 << 20, what="a model's settings")
    family = _named(where, lambda: registry.by_model_type(hf.get("model_type")))
    stored = open_tensors(folder)
    config = _named(where, lambda: family.from_hf(hf, set(stored)))
    plausible(config, len(stored), folder)
    entries = [entry.found(stored) for entry in _named(where, lambda: family.entries(config))]
    _all_there(entries, set(stored), family, folder)
    return Checkpoint(config, _ours(entries, stored.__getitem__, folder), None)


def _read_gguf(path: Path) -> Checkpoint:
    file = gguf.read(path)
    family, layout = _named(path, lambda: registry.by_architecture(file.metadata.get("general.architecture")))
    shapes = {name: tuple(info.shape) for name, info in file.tensors.items()}
    if len(shapes.get("token_embd.weight", ())) != 2:
        raise FormatError(
            f"{path}: expected a matrix token_embd.weight; the file does not hold a language model"
        )
    config = _named(path, lambda: layout.from_metadata(file.metadata, shapes, _rope_freqs(file)))
    plausible(config, len(shapes), path)
    entries = [entry for entry in _named(path, lambda: layout.entries(config)) if entry.ours]
    _all_there(entries, set(shapes) - {ROPE_FREQS}, family, path)

    def tensor(name: str) -> Tensor:
        info = file.tensors[name]
        return torch.from_numpy(dequantize(file.data(name), info.type, info.shape))

    return Checkpoint(config, _ours(entries, tensor, path), _quantization(file))


def _quantization(file: gguf.Gguf) -> str | None:
    """What the file calls its mix of types, else the type with the fewest bits of those with a tenth of the weights.

    Not the commonest type: a Q4_K_M file keeps rows that are no whole blocks of 256 in Q8_0, which may be most of it.
    """
    weights: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for info in file.tensors.values():
        weights[info.type] = weights.get(info.type, 0) + math.prod(info.shape)
        sizes[info.type] = sizes.get(info.type, 0) + info.nbytes
    mix = file.metadata.get("general.file_type")
    if type(mix) is int and mix in MIXES and not weights.keys().isdisjoint(QUANTIZED):
        return MIXES[mix]
    least = min(sum(weights.values()) / 10, max(weights.values()))
    common = [kind for kind, count in weights.items() if count >= max(least, 1)]
    smallest = min(common, key=lambda kind: sizes[kind] / weights[kind], default=None)
    return smallest if smallest in QUANTIZED else None


def _rope_freqs(file: gguf.Gguf) -> list[float] | None:
    """The divisors of the rotary frequencies that some files have."""
    info = file.tensors.get(ROPE_FREQS)
    if info is None:
        return None
    if len(info.shape) != 1 or info.shape[0] > MOST_FREQUENCIES:
        raise FormatError(f"{ROPE_FREQS} has shape {tuple(info.shape)}, expected a vector")
    values: list[float] = dequantize(file.data(info.name), info.type, info.shape).tolist()
    return values


def _ours(entries: list[Entry], tensor: Callable[[str], Tensor], where: Path) -> Iterator[tuple[str, Tensor]]:
    for entry in entries:
        try:
            found = entry.read(tensor(entry.theirs))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise FormatError(
                f"{where}: {entry.theirs} does not have the shape its settings say: {error}"
            ) from error
        yield from zip(entry.ours, found, strict=True)


def _all_there(entries: list[Entry], stored: set[str], family: Family, where: Path) -> None:
    ignored = {name for name in stored if name.startswith(family.ignored) or name.endswith(family.ignored)}
    expected = {entry.theirs for entry in entries}
    ignored |= {"lm_head.weight"} if "lm_head.weight" not in expected else set()  # a copy of the embedding
    same_names(expected, stored - (ignored - expected), where)


def _named(where: Path, read: Callable[[], T]) -> T:
    """The result of `read`, with the file named in whatever goes wrong."""
    try:
        return read()
    except KeyError as error:
        raise FormatError(f"{where}: the setting {error.args[0]!r} is missing") from error
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from error
    except pydantic.ValidationError as error:
        wrong = "; ".join(
            f"{dotted(one['loc'])} {one['msg'].lower()}, got {one['input']!r:.40}".strip()
            for one in error.errors()
        )
        raise FormatError(f"{where}: these settings describe no model: {wrong}") from error
    except (TypeError, ValueError, ZeroDivisionError, OverflowError, AttributeError) as error:
        raise FormatError(f"{where}: these settings describe no model: {error}") from error


def write_hf(
    folder: str | Path,
    model: Transformer,
    *,
    weights: str = "F32",
    settings: Mapping[str, Any] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write `config.json` and `model.safetensors` as `transformers` reads them; above `shard_bytes` several files
    with an index.

    `weights` is F32, F16 or BF16. `settings` go into config.json where the family says nothing of its own. Raises
    FormatError for a model whose settings have no place there, and for weights that F16 cannot hold.
    """
    folder = Path(folder)
    config = registry.home(model.config)
    family = registry.by_name(config.family)
    theirs, entries = family.to_hf(config), family.entries(config)
    if weights not in ("F32", "F16", "BF16"):
        raise ConfigError(f"a Hugging Face folder has no weights={weights}; it has F32, F16 and BF16")
    state, dtype = model.state_dict(), DTYPES[weights]
    same_names({name for entry in entries for name in entry.ours}, set(state), folder)
    folder.mkdir(parents=True, exist_ok=True)
    own = {key: value for key, value in theirs.items() if value is not None or key not in (settings or {})}
    write_json(
        folder / "config.json", {**(settings or {}), **own, "dtype": str(dtype).removeprefix("torch.")}
    )
    shards = _shards(entries, state, dtype.itemsize, shard_bytes)
    total = 0
    names: dict[str, str] = {}
    for i, shard in enumerate(shards, 1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{i:05}-of-{len(shards):05}.safetensors"
        tensors = {entry.theirs: _theirs(entry, state, dtype) for entry in shard}
        total += sum(tensor.nbytes for tensor in tensors.values())
        names |= dict.fromkeys(tensors, file)
        with atomic_write(folder / file) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": names}
        write_json(folder / "model.safetensors.index.json", index)


def _shards(
    entries: list[Entry], state: Mapping[str, Tensor], itemsize: int, limit: int
) -> list[list[Entry]]:
    """Entries in groups of at most `limit` bytes; a larger tensor has a group of its own."""
    shards: list[list[Entry]] = [[]]
    used = 0
    for entry in entries:
        size = itemsize * sum(state[name].numel() for name in entry.ours)
        if shards[-1] and used + size > limit:
            shards.append([])
            used = 0
        shards[-1].append(entry)
        used += size
    return shards


def _theirs(entry: Entry, state: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
    tensor = entry.write(tuple(state[name] for name in entry.ours))
    small = tensor.to(dtype).contiguous()
    if dtype is torch.float16 and small.isinf().any() and not tensor.isinf().any():
        raise FormatError(
            f"{entry.theirs} holds {tensor.abs().max():g}, more than F16 can (65504); use weights=BF16 or F32"
        )
    return small


def plausible(config: ModelConfig, tensors: int, where: Path) -> None:
    """Settings from outside may claim any number of layers; each would cost time and memory before it is missed."""
    layers = sum(stack.layers for stack in (config.encoder, config.decoder) if stack)
    if layers > tensors:
        raise FormatError(f"{where}: its settings say {layers} layers, but it holds only {tensors} tensors")


def same_names(expected: set[str], found: set[str], where: Path) -> None:
    """Refuse tensors that are missing or unknown."""
    missing, extra = sorted(expected - found), sorted(found - expected)
    if missing or extra:
        parts = [
            f"{len(names)} {what}: {', '.join(names[:3])}"
            for what, names in (("missing", missing), ("unknown", extra))
            if names
        ]
        raise FormatError(f"{where}: its tensors are not those of its settings ({'; '.join(parts)})")


def same_shape(name: str, expected: Any, found: Any, where: Path) -> None:
    """Refuse a tensor of another shape."""
    if tuple(expected) != tuple(found):
        raise FormatError(f"{where}: {name} has shape {tuple(found)}, its settings say {tuple(expected)}")
