"""One side of a comparison in a process of its own: its time and its memory are nobody else's."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SIDES = ("ours", "theirs")


def measure(module: str, side: str, settings: Mapping[str, Any], threads: int) -> dict[str, Any]:
    """Run `python -m benchmarks.<module> <side> <settings as JSON>`; the last line it prints is its result.

    It imports from where this process does. Raises RuntimeError with what it said where it fails.
    """
    words = [sys.executable, "-m", f"benchmarks.{module}", side, json.dumps(settings)]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(words, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} failed:\n{done.stderr[-4000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def pairs(
    module: str, settings: Mapping[str, Any], count: int, threads: int, show: Any = print
) -> list[dict[str, dict[str, Any]]]:
    """`count` times both sides, one after the other, the first alternating: what drifts hits both alike."""
    made = []
    for n in range(count):
        order = SIDES if n % 2 == 0 else SIDES[::-1]
        found = {side: measure(module, side, settings, threads) for side in order}
        show(
            f"  {settings.get('case', '')} pair {n + 1}/{count}: "
            + ", ".join(f"{side} {found[side]['tokens_per_second']:.1f} tok/s" for side in SIDES),
            flush=True,
        )
        made.append(found)
    return made


def compare(made: list[dict[str, dict[str, Any]]], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Medians over the pairs, the ratio of every pair, and the highest memory of each side in MB; the pairs themselves,
    and the settings as a record tells them: of a text the name, not where it is."""
    speeds = {side: [pair[side]["tokens_per_second"] for pair in made] for side in SIDES}
    ratios = [ours / theirs for ours, theirs in zip(speeds["ours"], speeds["theirs"], strict=True)]
    return {
        "tokens_per_second": {side: statistics.median(values) for side, values in speeds.items()},
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "peak_mb": {side: max(pair[side]["peak_mb"] for pair in made) for side in SIDES},
        "settings": {**settings, "text": settings["text"] and Path(settings["text"]).name},
        "pairs": made,
    }


def memory_mb(which: str) -> float:
    """This process's memory: `VmHWM` is its peak, `VmRSS` what it holds now (Linux)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name == which:
            return int(value.split()[0]) * 1024 / 1e6
    raise RuntimeError(f"/proc/self/status has no {which}")


COLUMNS = ("case", "ours tok/s", "theirs tok/s", "ratio", "goal", "ours MB", "theirs MB")


def row(case: str, found: Mapping[str, Any]) -> list[Any]:
    """What `compare` gave, under COLUMNS."""
    numbers = [found[what][side] for what in ("tokens_per_second", "peak_mb") for side in SIDES]
    return [case, *numbers[:2], found["ratio"], found["goal"], *numbers[2:]]
