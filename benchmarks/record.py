"""Results as JSON with where they were measured, and as a table for a person."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matura.core.files import read_json, write_json
from matura.core.provenance import code_version, cpu_model

if TYPE_CHECKING:
    from benchmarks.options import Options

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "transformers", "peft", "tokenizers", "safetensors", "numpy", "lm-eval")


def save(name: str, options: Options, figures: Mapping[str, Any]) -> None:
    """Write `<results>/<name>.json`; a quick run goes to `<name>.quick.json`, so it never replaces a real one."""
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / f"{name}{'.quick' if options.quick else ''}.json"
    settings = {
        key: value.name if isinstance(value, Path) else value
        for key, value in asdict(options).items()
        if key != "results"
    }
    settings["overrides"] = list(map(_without_folders, options.overrides))
    record = {
        "benchmark": name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(options.threads),
        "code": code_version(),
        "options": settings,
        **figures,
    }
    write_json(path, record)
    print(f"Written: {os.path.relpath(path)}\n", flush=True)


def kept(
    name: str,
    options: Options,
    make: Callable[[], dict[str, Any]],
    holds: Callable[[dict[str, Any]], bool] = lambda found: True,
) -> dict[str, Any]:
    """What an earlier run left as `<results>/<name>.json`, where it still holds; else what `make` makes, left there. A
    quick run leaves nothing and reads nothing."""
    if options.quick:
        return make()
    place = options.results / f"{name}.json"
    if place.exists():
        found: dict[str, Any] = read_json(place, limit=1 << 20, what="a run")
        if holds(found):
            return found
    place.parent.mkdir(parents=True, exist_ok=True)
    write_json(place, made := make())
    return made


def _without_folders(override: str) -> str:
    """`stage.key=/where/it/is/mine.jsonl` as `stage.key=mine.jsonl`."""
    key, equals, value = override.partition("=")
    return f"{key}{equals}{Path(value).name if Path(value).is_absolute() else value}"


def machine(threads: int) -> dict[str, Any]:
    """Processor, cores, memory, threads in use, and the versions that matter."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "memory_gb": round(pages * size / 1e9, 1),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "threads": threads,
        "packages": {package: _version(package) for package in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows under their columns: numbers to the right, words to the left."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(columns), *cells]) for i in range(len(columns))]
    right = [all(not isinstance(row[i], str) for row in rows) for i in range(len(columns))]
    for row in [list(columns), *cells]:
        padded = (
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row, widths, right, strict=True)
        )
        print("  ".join(padded).rstrip(), flush=True)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if not isinstance(value, float):
        return str(value)
    if value == 0 or 0.01 <= abs(value) < 1000:
        return f"{value:.3g}"
    return f"{value:.2e}" if abs(value) < 0.01 else f"{value:,.0f}"
