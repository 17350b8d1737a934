"""Writes small GGUF files for tests, right ones and wrong ones."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from matura.core.gguf import TENSOR_TYPES
from matura.tokenizer.tokenizer import byte_letters

_TYPE_NUMBERS = {name: number for number, (name, _, _) in TENSOR_TYPES.items()}
_ARRAY_TYPES = {"uint8": 0, "int8": 1, "uint16": 2, "int16": 3, "uint32": 4, "int32": 5, "float32": 6} | {
    "bool": 7,
    "uint64": 10,
    "int64": 11,
    "float64": 12,
}


@dataclass(frozen=True)
class Raw:
    """A value written as it is: a type number and bytes."""

    type: int
    data: bytes


@dataclass(frozen=True)
class Tensor:
    """`dims` in ggml's order (the reverse of the shape); `offset` None means after the tensor before."""

    name: str
    type: str | int
    dims: tuple[int, ...]
    data: bytes
    offset: int | None = None


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def value(item: Any) -> bytes:
    """Type number and data of a metadata value."""
    match item:
        case Raw():
            return struct.pack("<I", item.type) + item.data
        case bool():
            return struct.pack("<IB", 7, item)
        case int():
            return struct.pack("<II", 4, item)
        case float():
            return struct.pack("<If", 6, item)
        case str():
            return struct.pack("<I", 8) + text(item)
        case np.ndarray():
            return struct.pack("<IIQ", 9, _ARRAY_TYPES[item.dtype.name], len(item)) + item.tobytes()
        case list():
            return struct.pack("<IIQ", 9, 8, len(item)) + b"".join(map(text, item))
    raise TypeError(type(item))


def gguf_bytes(
    metadata: Mapping[str, Any] | list[tuple[str, Any]],
    tensors: list[Tensor],
    version: int = 3,
    alignment: int = 32,
    tensor_count: int | None = None,
    metadata_count: int | None = None,
) -> bytes:
    """A whole file; the counts can be made to lie."""
    items = list(metadata.items() if isinstance(metadata, Mapping) else metadata)
    header = b"GGUF" + struct.pack(
        "<IQQ",
        version,
        len(tensors) if tensor_count is None else tensor_count,
        len(items) if metadata_count is None else metadata_count,
    )
    header += b"".join(text(key) + value(item) for key, item in items)
    data = b""
    for tensor in tensors:
        offset = len(data) if tensor.offset is None else tensor.offset
        number = _TYPE_NUMBERS[tensor.type] if isinstance(tensor.type, str) else tensor.type
        header += text(tensor.name) + struct.pack("<I", len(tensor.dims))
        header += b"".join(struct.pack("<Q", dim) for dim in tensor.dims)
        header += struct.pack("<IQ", number, offset)
        data += tensor.data + bytes(-len(tensor.data) % alignment)
    return header + bytes(-len(header) % alignment) + data


def write_gguf(path: Path, *args: Any, **settings: Any) -> Path:
    path.write_bytes(gguf_bytes(*args, **settings))
    return path


def byte_level_vocabulary(pre: str = "smollm", **more: Any) -> dict[str, Any]:
    """Metadata of a byte-level tokenizer: special tokens, all bytes, a few merges, a user-defined token."""
    letters = list(byte_letters())
    merges = ["h e", "l l", "he ll", "hell o", "Ġ hello", "Ġ Ġ", "1 2", "e n", "en d"]
    joined = [merge.replace(" ", "") for merge in merges]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*special, *letters, *joined, "<think>"]
    types = [3] * 3 + [1] * (len(letters) + len(joined)) + [4]
    return {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": "{{ messages[0]['content'] }}<|im_end|>",
    } | more


def sentencepiece_vocabulary(**more: Any) -> dict[str, Any]:
    """Metadata of a SentencePiece-type tokenizer with byte fallback."""
    words = ["▁hello", "hello", "hell", "he", "ll", "▁", "▁w", "or", "ld", "▁wor", "▁world"]
    letters = list("helowrd")
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "  "]
    types = [3, 3, 3, 2, 3, 3, 4]
    tokens += [f"<0x{byte:02X}>" for byte in range(256)] + words + letters
    types += [6] * 256 + [1] * (len(words) + len(letters))
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.scores": -np.arange(len(tokens), dtype=np.float32),
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.unknown_token_id": 3,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.chat_template": "<start_of_turn>{{ messages[0]['content'] }}<end_of_turn>",
    } | more


def small_tensors() -> list[Tensor]:
    random = np.random.default_rng(0)
    return [
        Tensor("token_embd.weight", "F32", (4, 3), np.arange(12, dtype=np.float32).tobytes()),
        Tensor("blk.0.attn_q.weight", "Q4_1", (64, 2), random.integers(0, 60, 80, np.uint8).tobytes()),
        Tensor("output_norm.weight", "F16", (5,), np.ones(5, np.float16).tobytes()),
    ]
