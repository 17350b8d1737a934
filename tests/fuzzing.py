"""Breaks files in many ways and reads them under limits of memory and time.

Runs in a process of its own, so that a crash or an exhausted limit fails one test and not all.
"""

import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from matura.core.errors import FormatError

HUGE = [0, 1, 7, 0x7F, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1]


def damaged(data: bytes, header: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Versions of a file whose first `header` bytes describe the rest: cut, flipped, overwritten, doubled."""
    random = np.random.default_rng(seed)
    for cut in [*range(header + 1), *range(header, len(data), 7)]:
        yield f"cut at {cut}", data[:cut]
    for position in range(header):
        bit = int(random.integers(8))
        yield f"bit {bit} of byte {position}", _put(data, position, bytes([data[position] ^ (1 << bit)]))
    for position in range(header - 8):
        number = HUGE[int(random.integers(len(HUGE)))]
        width = 4 if number < 2**32 and random.integers(2) else 8
        yield f"{number} at {position}", _put(data, position, number.to_bytes(width, "little"))
    for _ in range(300):
        count = int(random.integers(1, 20))
        broken = bytearray(data)
        for position in random.integers(0, header, count):
            broken[position] = int(random.integers(256))
        yield f"{count} random bytes", bytes(broken)
    for _ in range(100):
        begin, end = sorted(int(i) for i in random.integers(0, header, 2))
        yield f"bytes {begin} to {end} doubled", data[:end] + data[begin:]
        yield f"bytes {begin} to {end} left out", data[:begin] + data[end:]


def _put(data: bytes, position: int, new: bytes) -> bytes:
    return data[:position] + new + data[position + len(new) :]


def survive(cases: Iterator[tuple[str, bytes]], read: Callable[[Path], None], path: Path) -> None:
    """Reads every case with little memory and time: FormatError or success and nothing else."""
    warnings.simplefilter("error")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + (256 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    counts = {"refused": 0, "read": 0}
    for name, data in cases:
        path.write_bytes(data)
        start = time.process_time()
        try:
            read(path)
            counts["read"] += 1
        except FormatError:
            counts["refused"] += 1
        except BaseException as error:
            raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
        seconds = time.process_time() - start
        assert seconds < 5, f"{name}: {seconds:.1f} s"
    print(counts["refused"], counts["read"])


def run(module: str, path: Path, *numbers: int, seconds: float = 60) -> tuple[int, int]:
    """Runs `python -m module path numbers`, which must end within `seconds`, and returns how many cases were refused
    and how many read."""
    done = subprocess.run(
        [sys.executable, "-m", module, str(path), *map(str, numbers)],
        capture_output=True,
        text=True,
        timeout=seconds,
        cwd=Path(__file__).parent.parent,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    refused, read = done.stdout.split()
    return int(refused), int(read)
