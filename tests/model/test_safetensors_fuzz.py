import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save

from matura.model.safetensors_file import open_tensors
from tests import fuzzing


def small_file() -> bytes:
    return save({"a": torch.ones(2, 3), "b": torch.zeros(5, dtype=torch.bfloat16)}, metadata={"format": "pt"})


def cases() -> Iterator[tuple[str, bytes]]:
    small = small_file()
    header = 8 + int.from_bytes(small[:8], "little")
    yield from fuzzing.damaged(small, header, seed=0)
    for text in (b"[" * 10**6, b'{"a":' * 10**6, b"[]," * 10**6, b'"' * 10**6, b"9" * 10**6):
        yield f"{text[:5]!r} a million times", len(text).to_bytes(8, "little") + text


def read(path: Path) -> None:
    for tensor in open_tensors(path).values():
        tensor.double().sum()


def test_damaged_files_never_crash_hang_or_exhaust_memory(tmp_path: Path) -> None:
    refused, accepted = fuzzing.run("tests.model.test_safetensors_fuzz", tmp_path / "fuzz.safetensors")
    assert refused > 500
    assert accepted > 0  # a flipped letter in a name


if __name__ == "__main__":
    good = Path(sys.argv[1])
    good.write_bytes(small_file())
    read(good)  # loads everything before the memory is limited
    fuzzing.survive(cases(), read, good)
