import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from matura.model.safetensors_file import open_tensors
from tests import fuzzing


def small_file() -> bytes:
    return save({"a": torch.ones(2, 3), "b": torch.zeros(5, dtype=torch.bfloat16)}, metadata={"format": "pt"})


NAMES = [
    "",
    "a",
    "b",
    "../../etc/passwd",
    "/",
    "a\0b",
    "\ud800",
    "__metadata__",
    "x" * 100_000,
    "é" * 300,
    "con",
]
NUMBERS = [*fuzzing.HUGE, -1, -(2**63), 2, 3, 5, 24, 1.5, 1e300, True, None, "8", [], {}, 10**400]


def lies(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Headers in valid JSON whose names, kinds, shapes and offsets are not those of the data."""
    random = np.random.default_rng(seed)

    def draw(values: list[Any]) -> Any:
        return values[int(random.integers(len(values)))]

    for n in range(count):
        entries: list[tuple[str, Any]] = []
        end = 0
        for _ in range(int(random.integers(1, 6))):
            shape = [int(i) for i in random.integers(0, 4, int(random.integers(0, 4)))]
            begin, end = end, end + 4 * math.prod(shape)
            entry: dict[str, Any] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
            match int(random.integers(8)):
                case 0:
                    entry["shape"] = [draw(NUMBERS) for _ in range(int(random.integers(10)))]
                case 1:
                    entry["data_offsets"] = [draw(NUMBERS) for _ in range(int(random.integers(4)))]
                case 2:
                    entry["dtype"] = draw(["F8_E4M3", "BOOL", "I64", "F4", "f32", "", None, 3, ["F32"]])
                case 3:
                    entry["data_offsets"] = [
                        begin + int(random.integers(-4, 5)),
                        end + int(random.integers(-4, 5)),
                    ]
                case 4:
                    entry[draw(["shape", "extra", "dtype"])] = draw(NUMBERS)
            entries.append((draw(NAMES) if random.integers(4) == 0 else f"t{len(entries)}", entry))
        # Written by hand, so that a name may come twice.
        text = "{" + ",".join(f"{json.dumps(name)}:{json.dumps(entry)}" for name, entry in entries) + "}"
        data = bytes(max(0, end + int(random.integers(-1, 2)) * int(random.integers(2))))
        yield f"lie {n}", len(text).to_bytes(8, "little") + text.encode() + data


def cases(rounds: int) -> Iterator[tuple[str, bytes]]:
    small = small_file()
    header = 8 + int.from_bytes(small[:8], "little")
    for seed in range(rounds):
        yield from fuzzing.damaged(small, header, seed)
    yield from lies(300 * rounds, seed=1)
    yield "no data behind a long header", (30 << 20).to_bytes(8, "little") + b"{" + b" " * (30 << 20)
    yield "a header longer than any", (99 << 20).to_bytes(8, "little") + b"{" + b" " * (99 << 20)
    for text in (b"[" * 10**6, b'{"a":' * 10**6, b"[]," * 10**6, b'"' * 10**6, b"9" * 10**6):
        yield f"{text[:5]!r} a million times", len(text).to_bytes(8, "little") + text


def read(path: Path) -> None:
    for tensor in open_tensors(path).values():
        assert tensor.nbytes <= path.stat().st_size
        tensor.double().sum()


def test_damaged_files_never_crash_hang_or_exhaust_memory(tmp_path: Path) -> None:
    refused, accepted = fuzzing.run("tests.model.test_safetensors_fuzz", tmp_path / "fuzz.safetensors")
    assert refused > 500
    assert accepted > 0  # a flipped letter in a name


if __name__ == "__main__":
    good = Path(sys.argv[1])
    good.write_bytes(small_file())
    read(good)  # loads everything before the memory is limited
    fuzzing.survive(cases(int((*sys.argv, 1)[2])), read, good)
