"""From the command to the first token: `matura generate` on models that are pulled, in new processes, disk warm."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks import record, reference
from benchmarks.options import Options

PROMPT = "Question: What is the capital of France?\nAnswer:"
LIMITS = {"smollm2-135m-instruct": 3.0, "gemma3-270m": 10.0}
"""Seconds to the first token."""


def run(options: Options) -> bool:
    """Measure, print and save; False when a first token comes too late."""
    found: dict[str, dict[str, Any]] = {}
    for model, limit in LIMITS.items():
        if options.quick and model != options.model:
            continue
        reference.find_model(model)
        _first_token(model, options.threads)  # warms the disk
        times = [_first_token(model, options.threads) for _ in range(1 if options.quick else 5)]
        found[model] = {
            "first_token": statistics.median(first for first, _, _ in times),
            "ended": statistics.median(end for _, end, _ in times),
            "answer": times[0][2],
            "limit": limit,
        }
    helped = statistics.median(_help() for _ in range(5))
    rows = [[model, f["first_token"], f["limit"], f["answer"]] for model, f in found.items()]
    record.table(["model", "first token after s", "limit", "answer"], rows)
    print(f"matura --help: {helped:.2f} s")
    checks = {f"{model} first token": f["first_token"] < f["limit"] for model, f in found.items()}
    record.save("startup", options, {"models": found, "help": helped, "checks": checks})
    return options.quick or all(checks.values())


def _first_token(model: str, threads: int) -> tuple[float, float, str]:
    """Seconds to the first output, seconds to the end of eight tokens, and the answer."""
    command = [sys.executable, "-m", "matura", "generate", model, PROMPT]
    began = time.perf_counter()
    with subprocess.Popen(
        [*command, "--max-new-tokens", "8", "--temperature", "0"],
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    ) as process:
        assert process.stdout is not None
        answer = os.read(process.stdout.fileno(), 4096)
        first = time.perf_counter() - began
        answer += process.stdout.read()
    if process.returncode:
        raise RuntimeError(f"matura generate {model} failed with {process.returncode}")
    return first, time.perf_counter() - began, answer.decode().strip()


def _help() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "matura", "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began
