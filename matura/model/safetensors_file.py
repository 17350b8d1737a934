"""Opens safetensors files from strangers: the header is checked against the file before anything is loaded.

The layout is: eight bytes with the header's length, the header (JSON: tensor name -> dtype, shape,
data_offsets), then the tensor data. The files are memory-mapped, and a tensor is a view of its file's map.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import safetensors
import torch
from torch import Tensor

from matura.core.errors import FormatError

MAX_HEADER_BYTES = 32 << 20  # reading it takes a few times as much
MAX_TENSORS = 200_000
MAX_DIMENSIONS = 8
MAX_FILES = 1000

BITS = {
    **dict.fromkeys(("F64", "I64", "U64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"), 8),
}

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """What the header says of one tensor; `begin` and `end` count from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    tensors: dict[str, Entry]
    metadata: dict[str, str]


def read_header(path: str | Path) -> Header:
    """The checked header of a safetensors file. Raises FormatError: file, what was expected, what to do."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            if size < 10:
                _fail(path, "a safetensors header", f"a file of {size} bytes")
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
                possible = min(MAX_HEADER_BYTES, size - 8)
                _fail(path, f"a header of 2 to {possible} bytes (byte 0)", str(length))
            text = file.read(length)
    except OSError as error:
        reason = error.strerror or str(error)
        raise FormatError(f"{path}: cannot be read: {reason}. Check the path and its permissions.") from error
    values = _json(path, text)
    metadata = values.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        _fail(path, "'__metadata__' with texts only", "something else")
    if len(values) > MAX_TENSORS:
        _fail(path, f"at most {MAX_TENSORS} tensors", str(len(values)))
    tensors = {name: _entry(path, name, value, 8 + length, size) for name, value in values.items()}
    end, before = 8 + length, ""
    for name, entry in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != end:
            found = (
                "the two overlap" if entry.begin < end else f"{entry.begin - end} bytes of nothing between"
            )
            _fail(path, f"the data of {name!r} right after that of {before!r}", found)
        end, before = entry.end, name
    if end != size:
        _fail(path, f"a file of {end} bytes, as the header says", f"{size} bytes")
    return Header(tensors, metadata)


def _json(path: Path, text: bytes) -> dict[str, Any]:
    # Every value costs memory many times its length: count the structure before building it.
    if text.count(b"{") > MAX_TENSORS + 2 or text.count(b"[") + text.count(b",") > 16 * MAX_TENSORS:
        _fail(path, f"a header of at most {MAX_TENSORS} tensors", "a larger one")
    try:
        values = json.loads(text, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        _fail(path, "a header in JSON", str(error) or "another text")
    if not isinstance(values, dict):
        _fail(path, "a JSON object as header", type(values).__name__)
    return values


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name that occurs twice")
    return values


def _entry(path: Path, name: str, value: Any, start: int, size: int) -> Entry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        _fail(path, f"{name!r} with dtype, shape and data_offsets", "something else")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        _fail(path, f"a dtype for {name!r} out of {', '.join(BITS)}", repr(dtype))
    if not _naturals(shape) or len(shape) > MAX_DIMENSIONS:
        _fail(path, f"a shape for {name!r} of at most {MAX_DIMENSIONS} whole numbers", repr(shape))
    if not _naturals(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1] <= size - start:
        _fail(path, f"data_offsets for {name!r} between 0 and {size - start}", repr(offsets))
    needed = math.prod(shape) * BITS[dtype] // 8
    if offsets[1] - offsets[0] != needed:
        _fail(path, f"{needed} bytes for {name!r} ({dtype} {shape})", str(offsets[1] - offsets[0]))
    return Entry(dtype, tuple(shape), start + offsets[0], start + offsets[1])


def _naturals(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 2**63 for v in values)


class TensorFiles(Mapping[str, Tensor]):
    """The tensors of one or several safetensors files by name, each loaded when it is asked for.

    A tensor is a view of the file's memory map: nothing is read before it is used, neighbours in the file are
    neighbours in memory, and writing to one never changes the file.
    """

    def __init__(self, paths: list[Path]) -> None:
        self._paths: dict[str, Path] = {}
        self.entries: dict[str, Entry] = {}
        self.metadata: dict[str, str] = {}
        self._handles: dict[Path, Any] = {}
        self._maps: dict[Path, Tensor] = {}
        for path in paths:
            header = read_header(path)
            try:
                self._handles[path] = safetensors.safe_open(path, framework="pt")
            except (safetensors.SafetensorError, OSError) as error:
                _fail(path, "a file that the safetensors library opens", str(error))
            size = path.stat().st_size
            self._maps[path] = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
            for name, entry in header.tensors.items():
                if name in self.entries:
                    _fail(path, "every tensor in one file only", f"{name!r} again")
                self.entries[name] = entry
                self._paths[name] = path
            self.metadata |= header.metadata

    def __getitem__(self, name: str) -> Tensor:
        entry, path = self.entries[name], self._paths[name]
        dtype = DTYPES[entry.dtype]
        if entry.begin % dtype.itemsize:  # written without alignment: only a copy can be used
            tensor: Tensor = self._handles[path].get_tensor(name)
            return tensor
        return self._maps[path][entry.begin : entry.end].view(dtype).view(entry.shape)

    def read(self, name: str) -> Tensor:
        """The same tensor in memory of its own; the map is not touched, so its pages are not loaded."""
        entry = self.entries[name]
        values = torch.empty(entry.end - entry.begin, dtype=torch.uint8)
        with open(self._paths[name], "rb") as file:
            file.seek(entry.begin)
            file.readinto(values.numpy().data)
        return values.view(DTYPES[entry.dtype]).view(entry.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def open_tensors(path: str | Path) -> TensorFiles:
    """The tensors of a safetensors file, of an index (`model.safetensors.index.json`) or of a model's folder.

    Raises FormatError when a file is broken or missing.
    """
    path = Path(path)
    if path.is_dir():
        names = ("model.safetensors", "model.safetensors.index.json")
        found = [path / name for name in names if (path / name).is_file()]
        if not found:
            raise FormatError(f"{path}: no {' and no '.join(names)} in this folder.")
        path = found[0]
    if path.name.endswith(".index.json"):
        return TensorFiles(_shards(path))
    return TensorFiles([path])


def _shards(index: Path) -> list[Path]:
    try:
        if index.stat().st_size > MAX_HEADER_BYTES:
            _fail(index, f"an index of at most {MAX_HEADER_BYTES} bytes", str(index.stat().st_size))
        weight_map = _json(index, index.read_bytes()).get("weight_map")
    except OSError as error:
        raise FormatError(f"{index}: cannot be read: {error.strerror or error}.") from error
    if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
        _fail(index, "'weight_map': tensor name -> file name", "something else")
    names = sorted(set(weight_map.values()))
    # A name is a file beside the index and nothing else, so that an index cannot point out of its folder.
    strange = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    if strange or not 1 <= len(names) <= MAX_FILES:
        _fail(index, f"1 to {MAX_FILES} names of .safetensors files beside it", repr((strange or names)[:3]))
    return [index.with_name(name) for name in names]


def _fail(path: Path, expected: str, found: str) -> NoReturn:
    expected, found = (text if len(text) <= 200 else text[:200] + "..." for text in (expected, found))
    raise FormatError(
        f"{path}: not a valid safetensors file: expected {expected}, found {found}. "
        "The file is damaged, incomplete or of another kind: download it again."
    )
