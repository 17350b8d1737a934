"""Writes a model as one GGUF file, the format of llama.cpp.

Where a family's settings and tensors go is in `families/`; the tokenizer's part comes from `tokenizer/to_gguf.py`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from matura.core.errors import ConfigError, FormatError
from matura.core.files import atomic_write
from matura.model.checkpoint import same_names
from matura.model.families import registry
from matura.model.families.weights import Entry
from matura.model.transformer import Transformer

FILE_TYPES = {"F16": 1, "F32": 0, "Q8_0": 7, "Q4_0": 2, "Q4_1": 3}
"""What matrices can be stored as -> `general.file_type`."""

_BLOCK = 32  # weights that share a scale in Q8_0, Q4_0 and Q4_1
_LARGEST = 65504.0  # of half precision, which the scales of blocks have too


def write(path: str | Path, model: Transformer, metadata: Mapping[str, Any], *, weights: str = "F16") -> None:
    """Write settings, tokenizer and weights to `path`; the same model gives the same bytes.

    `metadata` is what `to_gguf.metadata` gives, with any other keys (`general.name`). Numbers become uint32 and
    float32, numpy arrays arrays of their own type, lists arrays of texts. `weights` is the type of all matrices, the
    embedding and the head included: F32, F16, Q8_0, Q4_0 or Q4_1 (one of the last three where rows are whole blocks
    of 32, else F16). Vectors and learned positions are F32. One tensor at a time is made and written.

    Raises ConfigError for other types; FormatError for a model that has no place in GGUF and for weights that the
    type cannot hold.
    """
    path = Path(path)
    if weights not in FILE_TYPES:
        near = difflib.get_close_matches(weights.upper(), FILE_TYPES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(FILE_TYPES)}"
        raise ConfigError(f"weights={weights!r} is no type that GGUF files are written in; {hint}")
    config = registry.home(model.config)
    family = registry.by_name(config.family)
    if not family.gguf:
        raise FormatError(
            f"{path}: models of the family {family.name} have no layout in GGUF; write the Hugging Face layout"
        )
    layout = family.gguf[0]
    settings, entries = layout.to_metadata(config), layout.entries(config)
    state = model.state_dict()
    same_names({name for entry in entries for name in entry.ours}, set(state), path)
    general = {
        "general.type": "model",
        "general.file_type": FILE_TYPES[weights],
        "general.quantization_version": 2,  # of the block formats; ggml has had no other since 2023
    }
    with atomic_write(path) as temporary:
        _write(temporary, layout.architecture, {**general, **settings, **metadata}, entries, state, weights)


def _write(
    path: Path,
    architecture: str,
    metadata: Mapping[str, Any],
    entries: list[Entry],
    state: Mapping[str, Tensor],
    weights: str,
) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, architecture)
    for key, value in metadata.items():
        _add(writer, key, value)
    kinds = []
    for entry in entries:
        shape, kind = _shape(entry, state), weights
        if len(shape) < 2 or entry.ours == ("decoder.positions.weight",):
            kind = "F32"
        elif weights.startswith("Q") and shape[-1] % _BLOCK:
            kind = "F16"
        number = gguf.GGMLQuantizationType[kind]
        block, size = gguf.GGML_QUANT_SIZES[number]
        writer.add_tensor_info(
            entry.theirs, shape, np.dtype(np.float32), shape.numel() // block * size, raw_dtype=number
        )
        kinds.append(number)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for entry, number in zip(entries, kinds, strict=True):
            values = entry.write(tuple(state[name] for name in entry.ours)).float().contiguous().numpy()
            _check(entry.theirs, values, number.name)
            writer.write_tensor_data(gguf.quants.quantize(values, number))
    finally:
        writer.close()


def _shape(entry: Entry, state: Mapping[str, Tensor]) -> torch.Size:
    """The shape of their tensor, without making it."""
    return entry.write(tuple(state[name].to("meta") for name in entry.ours)).shape


def _check(name: str, values: np.ndarray, kind: str) -> None:
    largest = max(float(values.max()), -float(values.min()))
    if not np.isfinite(largest) or (kind != "F32" and largest > _LARGEST):
        instead = "the model is broken" if kind == "F32" or not np.isfinite(largest) else "use weights=F32"
        raise FormatError(f"{name} holds {largest:g}, which {kind} cannot hold ({instead})")


def _add(writer: Any, key: str, value: Any) -> None:
    from gguf import GGUFValueType

    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case np.ndarray():
            kind = GGUFValueType[value.dtype.name.upper()]
            writer.add_key_value(key, value.tolist(), GGUFValueType.ARRAY, sub_type=kind)
        case list():
            writer.add_array(key, value)
        case _:
            raise TypeError(f"{key}: {type(value).__name__} has no form in GGUF")
