"""Reader for GGUF, the single-file model format of llama.cpp (versions 2 and 3, little-endian).

The layout is: magic, version, tensor count, metadata count; metadata as key, type, value; tensor names
with dimensions, type and offset; then the tensor data. A GGUF comes from strangers, so every count, length,
offset and product is checked against the file's size and against a cap before anything of that size is
allocated. What is broken raises FormatError with the byte position. Tensor data stays on disk: it is
memory-mapped, copy-on-write.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from matura.core.errors import FormatError
from matura.core.modelfiles import MAX_PIECES, is_part, pieces

if TYPE_CHECKING:
    import numpy as np

MAX_TENSORS = 100_000
MAX_METADATA = 20_000
MAX_NAME_BYTES = 1024
MAX_STRING_BYTES = 16 << 20
MAX_ARRAY_ITEMS = (
    4_000_000  # over all arrays of one file; the largest vocabularies have about 0.3 million tokens
)
MAX_ARRAY_DEPTH = 3
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 1 << 20

# number in the file -> (name, weights in a block, bytes of a block)
TENSOR_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}
# number in the file -> (struct format, numpy format) of a plain number; 7 is bool, 8 string, 9 array
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
_NUMPY = {"B": "u1", "b": "i1", "H": "<u2", "h": "<i2", "I": "<u4", "i": "<i4", "f": "<f4"} | {
    "Q": "<u8",
    "q": "<i8",
    "d": "<f8",
}
_BOOL, _STRING, _ARRAY = 7, 8, 9
_U64 = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies. `shape` is row-major (the file's dimensions reversed), `offset` counts from the
    start of the file, `nbytes` is the size on disk, `part` the file's number in a split model (else 0)."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    nbytes: int
    part: int = 0


@dataclass(frozen=True)
class Gguf:
    """An open GGUF file. In `metadata` numbers are int, float or bool, texts str, arrays of numbers numpy
    arrays, other arrays lists."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]
    maps: tuple[mmap.mmap, ...]

    def data(self, name: str) -> np.ndarray:
        """The raw bytes of a tensor: uint8 [nbytes], memory-mapped. Writing to it never changes the file.

        Raises FormatError when there is no such tensor.
        """
        import numpy as np

        info = self.tensors.get(name)
        if info is None:
            raise FormatError(f"{self.path}: no tensor named {name!r} in this file.")
        return np.frombuffer(self.maps[info.part], dtype=np.uint8, count=info.nbytes, offset=info.offset)


def read(path: str | Path) -> Gguf:
    """Open a GGUF file and check all of it but the values of the weights.

    A model split by llama.cpp (`name-00001-of-00003.gguf`) or cut in parts (`name.gguf.part00`) is opened whole
    when `path` is its first file. Raises FormatError with file, byte position and what was expected.
    """
    path = Path(path)
    first = _read_one(path)
    count = first.metadata.get("split.count", 1)
    if type(count) is not int or not 0 <= count <= MAX_PIECES:
        _fail(path, None, f"'split.count' from 0 to {MAX_PIECES}", repr(count))
    return first if count <= 1 else _join(first, count)


def _join(first: Gguf, count: int) -> Gguf:
    files = pieces(first.path)
    if len(files) != count or first.metadata.get("split.no", 0) != 0:
        raise FormatError(
            f"{first.path}: this file is one of {count} parts of a model. "
            f"Give the first part, named like 'model-00001-of-{count:05d}.gguf', with the others beside it."
        )
    tensors, maps = dict(first.tensors), list(first.maps)
    for part, path in enumerate(files[1:], start=1):
        other = _read_one(path)
        if (other.metadata.get("split.no"), other.metadata.get("split.count")) != (part, count):
            _fail(path, None, f"part {part + 1} of {count}", f"'split.no' {other.metadata.get('split.no')!r}")
        for name, info in other.tensors.items():
            if name in tensors:
                _fail(path, None, "every tensor in one part only", f"{name!r} again")
            tensors[name] = replace(info, part=part)
        maps += other.maps
    expected = first.metadata.get("split.tensors.count", len(tensors))
    if expected != len(tensors):
        _fail(first.path, None, f"{expected} tensors in all parts together", str(len(tensors)))
    return Gguf(first.path, first.metadata, tensors, tuple(maps))


def _mapped(path: Path) -> mmap.mmap:
    """The bytes of a file, copy-on-write; a file that was cut in parts is joined in memory."""
    files = pieces(path) if is_part(path.name) else [path]
    try:
        size = sum(file.stat().st_size for file in files)
        if size < 24:
            _fail(path, 0, "a GGUF header of 24 bytes", f"a file of {size} bytes")
        if len(files) == 1:
            with path.open("rb") as file:
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        data, at = mmap.mmap(-1, size), 0
        for part in files:
            with part.open("rb") as source, memoryview(data)[at:] as rest:
                at += source.readinto(rest)
        return data
    except OSError as error:
        reason = error.strerror or str(error)
        raise FormatError(f"{path}: cannot be read: {reason}. Check the path and its permissions.") from error


def _read_one(path: Path) -> Gguf:
    data = _mapped(path)
    size = len(data)
    cursor = _Cursor(data, path)
    tensor_count, metadata_count = _header(cursor)
    metadata: dict[str, Any] = {}
    for _ in range(metadata_count):
        at = cursor.position
        key = cursor.string(MAX_NAME_BYTES, "a metadata key")
        if not key or key in metadata:
            cursor.fail("a new, non-empty metadata key", repr(key), at)
        metadata[key] = _value(cursor, cursor.number("I", "a value type"), key, depth=0)
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        _fail(path, None, f"'general.alignment' a power of two up to {MAX_ALIGNMENT}", repr(alignment))
    tensors = [_tensor(cursor) for _ in range(tensor_count)]
    start = -(-cursor.position // alignment) * alignment
    return Gguf(path, metadata, _place(path, tensors, start, alignment, size), (data,))


def _header(cursor: _Cursor) -> tuple[int, int]:
    """Tensor count and metadata count, both possible for a file of this size."""
    magic = bytes(cursor.data[:4])
    if magic != b"GGUF":
        cursor.fail("the four letters 'GGUF'", repr(magic), 0)
    cursor.position = 4
    version = cursor.number("I", "a version")
    if version and version & 0xFFFF == 0:
        cursor.fail("a little-endian file", "a big-endian one (not supported)", 4)
    if version not in (2, 3):
        cursor.fail("GGUF version 2 or 3", str(version), 4)
    counts = []
    # The smallest possible entries: a tensor of one letter without dimensions; a key of one letter, one byte.
    for what, cap, smallest in (("tensors", MAX_TENSORS, 25), ("metadata entries", MAX_METADATA, 14)):
        count = cursor.number("Q", f"the number of {what}")
        possible = min(cap, (len(cursor.data) - cursor.position) // smallest)
        if count > possible:
            cursor.fail(f"at most {possible} {what} in a file of this size", str(count), cursor.position - 8)
        counts.append(count)
    return counts[0], counts[1]


def _value(cursor: _Cursor, kind: int, key: str, depth: int) -> Any:
    if kind == _STRING:
        return cursor.string(MAX_STRING_BYTES, f"the text of {key!r}")
    if kind == _ARRAY:
        return _array(cursor, key, depth + 1)
    if kind not in _NUMBERS:
        cursor.fail(f"a value type from 0 to 12 for {key!r}", str(kind), cursor.position - 4)
    number = cursor.number(_NUMBERS[kind], f"the value of {key!r}")
    if kind == _BOOL:
        if number not in (0, 1):
            cursor.fail(f"0 or 1 for {key!r}", str(number), cursor.position - 1)
        return bool(number)
    return number


def _array(cursor: _Cursor, key: str, depth: int) -> Any:
    if depth > MAX_ARRAY_DEPTH:
        cursor.fail(
            f"arrays nested at most {MAX_ARRAY_DEPTH} deep in {key!r}", "a deeper one", cursor.position
        )
    kind = cursor.number("I", f"the array type of {key!r}")
    if kind not in _NUMBERS and kind not in (_STRING, _ARRAY):
        cursor.fail(f"an array type from 0 to 12 for {key!r}", str(kind), cursor.position - 4)
    count = cursor.number("Q", f"the array length of {key!r}")
    smallest = {_STRING: 8, _ARRAY: 12}.get(kind) or struct.calcsize(_NUMBERS[kind])
    cost = 100 if kind == _ARRAY else 1  # no known file nests arrays, and each takes a while
    possible = min(cursor.items_left // cost, (len(cursor.data) - cursor.position) // smallest)
    if count > possible:
        cursor.fail(f"at most {possible} items in {key!r}", str(count), cursor.position - 8)
    cursor.items_left -= count * cost
    if kind == _STRING:
        return cursor.strings(count, f"a text of {key!r}")
    if kind == _ARRAY:
        return [_array(cursor, key, depth + 1) for _ in range(count)]
    import numpy as np

    numbers = np.frombuffer(cursor.data, _NUMPY[_NUMBERS[kind]], count, cursor.position).copy()
    if kind == _BOOL and numbers.max(initial=0) > 1:
        cursor.fail(f"only 0 and 1 in {key!r}", str(numbers.max()), cursor.position)
    cursor.position += numbers.nbytes
    return numbers.astype(bool) if kind == _BOOL else numbers


def _tensor(cursor: _Cursor) -> tuple[TensorInfo, int]:
    """One tensor, its offset still relative to the data; and the byte where its entry begins, for errors."""
    at = cursor.position
    name = cursor.string(MAX_NAME_BYTES, "a tensor's name")
    if not name:
        cursor.fail("a tensor's name", "an empty one", at)
    count = cursor.number("I", f"the number of dimensions of {name!r}")
    if count > MAX_DIMENSIONS:
        cursor.fail(f"at most {MAX_DIMENSIONS} dimensions for {name!r}", str(count), cursor.position - 4)
    dims = [cursor.number("Q", f"a dimension of {name!r}") for _ in range(count)]
    number = cursor.number("I", f"the type of {name!r}")
    if number not in TENSOR_TYPES:
        cursor.fail(f"a known tensor type for {name!r}", f"number {number}", cursor.position - 4)
    kind, block, block_bytes = TENSOR_TYPES[number]
    elements = math.prod(dims)
    if elements == 0 or elements > len(cursor.data) * block:
        cursor.fail(f"dimensions of {name!r} that fit in the file", " x ".join(map(str, dims)), at)
    row = dims[0] if dims else 1
    if row % block:
        cursor.fail(f"rows of {name!r} in whole blocks of {block} weights for {kind}", str(row), at)
    offset = cursor.number("Q", f"the offset of {name!r}")
    return TensorInfo(name, tuple(reversed(dims)), kind, offset, elements // block * block_bytes), at


def _place(
    path: Path, entries: list[tuple[TensorInfo, int]], start: int, alignment: int, size: int
) -> dict[str, TensorInfo]:
    """The tensors by name, offsets from the start of the file, once none lies about its place."""
    tensors: dict[str, TensorInfo] = {}
    for info, at in entries:
        if info.name in tensors:
            _fail(path, at, "every tensor name once", f"{info.name!r} again")
        if info.offset % alignment:
            _fail(path, at, f"an offset of {info.name!r} that is a multiple of {alignment}", str(info.offset))
        if start + info.offset + info.nbytes > size:
            found = f"bytes {start + info.offset} to {start + info.offset + info.nbytes}"
            _fail(path, at, f"the data of {info.name!r} inside the file's {size} bytes", found)
        tensors[info.name] = replace(info, offset=start + info.offset)
    end, before = start, ""
    for info in sorted(tensors.values(), key=lambda info: info.offset):
        if info.offset < end:
            _fail(path, info.offset, f"the data of {info.name!r} after that of {before!r}", "the two overlap")
        end, before = info.offset + info.nbytes, info.name
    return tensors


class _Cursor:
    """Reads values one after the other, never beyond the end of the file."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data = data
        self.path = path
        self.position = 0
        self.items_left = MAX_ARRAY_ITEMS

    def fail(self, expected: str, found: str, at: int) -> NoReturn:
        _fail(self.path, at, expected, found)

    def number(self, code: str, what: str) -> Any:
        size = struct.calcsize(code)
        if self.position + size > len(self.data):
            self.fail(what, "the end of the file", self.position)
        (number,) = struct.unpack_from("<" + code, self.data, self.position)
        self.position += size
        return number

    def string(self, limit: int, what: str) -> str:
        return self.strings(1, what, limit)[0]

    def strings(self, count: int, what: str, limit: int = MAX_STRING_BYTES) -> list[str]:
        """`count` texts. A vocabulary has hundreds of thousands, so this loop does as little as it can."""
        data, end, position, unpack = self.data, len(self.data), self.position, _U64.unpack_from
        texts: list[str] = []
        append = texts.append
        with self._position_in_errors(what):
            for _ in range(count):
                self.position = position
                (length,) = unpack(data, position)
                start = position + 8
                position = start + length
                if length > limit or position > end:
                    left = min(limit, end - start)
                    self.fail(f"{what} of at most {left} bytes", f"a length of {length}", self.position)
                append(str(data[start:position], "utf-8"))
        self.position = position
        return texts

    @contextmanager
    def _position_in_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except struct.error:
            self.fail(what, "the end of the file", self.position)
        except UnicodeDecodeError:
            self.fail(f"{what} in UTF-8", "other bytes", self.position + 8)


def _fail(path: Path, at: int | None, expected: str, found: str) -> NoReturn:
    where = "" if at is None else f" at byte {at}"
    found = found if len(found) <= 200 else found[:200] + "..."
    raise FormatError(
        f"{path}: not a valid GGUF file{where}: expected {expected}, found {found}. "
        "The file is damaged, incomplete or of another kind: download it again."
    )
