import math
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from matura.core import gguf
from tests import fuzzing
from tests.gguf_files import Raw, Tensor, byte_level_vocabulary, gguf_bytes, small_tensors


def small_file() -> bytes:
    values = {"list": ["a", "bc"], "deep": Raw(9, struct.pack("<IQIQ2H", 9, 1, 2, 2, 7, 8)), "yes": True}
    return gguf_bytes(values, small_tensors())


NAMES = [
    "",
    "a",
    "../../etc/passwd",
    "/",
    b"a\0b",
    b"\xff\xfe",
    "x" * 2000,
    "é" * 500,
    "split.count",
    "general.alignment",
]


def lies(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Well-formed files whose names, types, dimensions and offsets are not those of the data."""
    random = np.random.default_rng(seed)

    def draw(values: Any) -> Any:
        return values[int(random.integers(len(values)))]

    for n in range(count):
        tensors, metadata = [], []
        for i in range(int(random.integers(5))):
            dims = tuple(int(d) for d in random.integers(1, 5, int(random.integers(5))))
            data, kind, offset = bytes(4 * math.prod(dims)), "F32", None
            match int(random.integers(7)):
                case 0:
                    dims = tuple(draw(fuzzing.HUGE) for _ in range(int(random.integers(6))))
                case 1:
                    dims = (2**32, 2**32, draw([1, 2, 2**32]))  # the product is 0 in 64 bits
                case 2:
                    offset = draw([*fuzzing.HUGE, 32, 64, 96])
                case 3:
                    kind = draw([*range(64), 2**32 - 1])
                case 4:
                    dims, kind = (256 * int(random.integers(1, 3)), 1), draw([12, 14, 20])
            tensors.append(
                Tensor(draw(NAMES) if random.integers(4) == 0 else f"t{i}", kind, dims, data, offset)
            )
        for i in range(int(random.integers(4))):
            key = draw(NAMES) if random.integers(3) == 0 else f"k{i}"
            metadata.append(
                (key, draw([1, 2**32 - 1, 0.5, True, "text", [], ["a"], Raw(13, b""), Raw(9, b"")]))
            )
        counts = [None if random.integers(6) else draw(fuzzing.HUGE) for _ in range(2)]
        yield f"lie {n}", gguf_bytes(metadata, tensors, tensor_count=counts[0], metadata_count=counts[1])


def cases(rounds: int) -> Iterator[tuple[str, bytes]]:
    small = small_file()
    header = small.index(b"output_norm.weight") + 60
    for seed in range(rounds):
        yield from fuzzing.damaged(small, header, seed)
    yield from lies(300 * rounds, seed=1)
    for depth in (4, 1000, 200_000):
        deep = Raw(9, struct.pack("<IQ", 9, 1) * depth + struct.pack("<IQ", 0, 0))
        yield f"arrays {depth} deep", gguf_bytes({"k": deep}, [])
    for count in (30_000, 200_000):
        wide = Raw(9, struct.pack("<IQ", 9, count) + struct.pack("<IQ", 8, 0) * count)
        yield f"{count} empty arrays", gguf_bytes({"k": wide}, [])
    empty = Raw(9, struct.pack("<IQ", 8, 2_000_000) + bytes(16_000_000))
    yield "many empty texts, twice and more", gguf_bytes({"a": empty, "b": empty, "c": empty}, [])
    overlapping = [Tensor(f"t{i}", "F32", (8,), bytes(32), offset=i % 7 * 32) for i in range(500)]
    yield "overlapping tensors", gguf_bytes({}, overlapping)
    # A vocabulary damaged inside its arrays, so that the tokenizer built from it must cope.
    whole = gguf_bytes(byte_level_vocabulary(), [])
    random = np.random.default_rng(1)
    for _ in range(300 * rounds):
        broken = bytearray(whole)
        for position in random.integers(24, len(whole), 3):
            broken[position] = int(random.integers(256))
        yield "a damaged vocabulary", bytes(broken)


def read(path: Path) -> None:
    from matura.model.dequantize import SUPPORTED, dequantize
    from matura.tokenizer.from_gguf import tokenizer_files

    opened = gguf.read(path)
    for name, info in opened.tensors.items():
        data = opened.data(name)
        assert data.nbytes == info.nbytes
        if info.type in SUPPORTED:
            dequantize(data, info.type, info.shape)
    if "tokenizer.ggml.tokens" in opened.metadata:
        tokenizer_files(opened.metadata)


def test_damaged_files_never_crash_hang_or_exhaust_memory(tmp_path: Path) -> None:
    refused, accepted = fuzzing.run("tests.core.test_gguf_fuzz", tmp_path / "fuzz.gguf")
    assert refused > 1000
    assert accepted > 100  # a changed weight or text is no damage that a reader can see


if __name__ == "__main__":
    good = Path(sys.argv[1])
    good.write_bytes(small_file())
    read(good)  # imports everything before the memory is limited
    fuzzing.survive(cases(int((*sys.argv, 1)[2])), read, good)
