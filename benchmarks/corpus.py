"""The recipe of a real corpus, from Debian's packages to the report: time, memory, and what every step left.

Packages are fetched with `apt-get download`, as the recipe says, at the versions that this machine's sources list, so
figures move a little with them; the record names them. Memory is that of all processes together, read every second,
so pages that they share count more than once.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks import record
from benchmarks.options import Options
from matura.core.workspace import Workspace
from matura.data import sources
from matura.data.reading import unpack

RECIPE = Path(__file__).parents[1] / "recipes" / "corpus.yaml"
LEAST_RAW = 100_000_000  # bytes, unpacked
INTERVAL = 1.0  # seconds between looks at the memory


def run(options: Options) -> bool:
    """Whether at least 100 MB were read, and every source, step and figure of the report is there."""
    recipe = yaml.safe_load(RECIPE.read_text("utf-8"))
    settings = recipe["stages"]["corpus"]
    packages = _packages()
    if options.quick:
        settings["sources"] = {name: one for name, one in settings["sources"].items() if name == "policy"}
        packages = [name for name in packages if name == "debian-policy"]
    folder = Workspace().downloads / "debian"
    files = _fetch(folder, packages)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), "utf-8")
    raw = {name: _raw(folder, one) for name, one in settings["sources"].items()}
    figures = _timed(["run", str(path)], folder)
    (report,) = (folder / "workspace" / "runs").glob("*/corpus-*/report.json")
    figures |= {"packages": files, "raw": raw, **_told(json.loads(report.read_text("utf-8")))}
    _show(figures)
    record.save("corpus", options, figures)
    complete = set(figures["sources"]) == set(raw)
    return complete and (options.quick or sum(one["bytes"] for one in raw.values()) >= LEAST_RAW)


def _packages() -> list[str]:
    """What the head of the recipe tells to fetch."""
    comments = "".join(re.findall(r"^# {3}(.*\n)", RECIPE.read_text("utf-8"), re.MULTILINE))
    (line,) = re.findall(r"^apt-get download (.*)$", comments.replace("\\\n", ""), re.MULTILINE)
    return shlex.split(line)


def _fetch(folder: Path, packages: list[str]) -> list[str]:
    """Fetch what is not there and unpack all; the names of the files, which hold the versions."""
    folder.mkdir(parents=True, exist_ok=True)
    known = {file.name.partition("_")[0] for file in folder.glob("*.deb")}
    if missing := [name for name in packages if name not in known]:
        subprocess.run(["apt-get", "download", "-q", *missing], cwd=folder, check=True, timeout=900)
    files = [next(folder.glob(f"{name}_*.deb")) for name in packages]
    for file in files:
        subprocess.run(["dpkg-deb", "-x", file.name, "corpus-raw"], cwd=folder, check=True, timeout=300)
    return [file.name for file in files]


def _raw(folder: Path, source: dict[str, Any]) -> dict[str, int]:
    """Files of a source and their bytes unpacked; what several names link to counts once."""
    names = sources.paths(
        folder / source["path"], include=source.get("include", ()), exclude=source.get("exclude", ())
    )
    files = {path.resolve() for _, path in names if path.is_file()}
    size = 0
    for path in files:
        with unpack.opened(path, expansion=1e6) as read:
            while block := read():
                size += len(block)
    return {"files": len(files), "bytes": size}


def _timed(arguments: list[str], folder: Path) -> dict[str, Any]:
    """Run Matura in a workspace of its own; seconds, CPU seconds and the highest memory of its processes."""
    environment = {**os.environ, "MATURA_WORKSPACE": str(folder / "workspace")}
    subprocess.run(["rm", "-rf", str(folder / "workspace")], check=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began, peak = time.perf_counter(), 0
    command = [sys.executable, "-m", "matura", *arguments]
    process = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True)
    while process.poll() is None:
        peak = max(peak, _memory(process.pid))
        time.sleep(INTERVAL)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(
            after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            1,
        ),
        "peak_bytes": peak,
    }


def _memory(session: int) -> int:
    """Resident bytes of all processes of a session (Linux)."""
    pages = 0
    for place in Path("/proc").glob("[0-9]*"):
        try:
            fields = (place / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[3]) == session:
            pages += int(fields[21])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _told(report: dict[str, Any]) -> dict[str, Any]:
    """What the page shows of a report."""
    read = next(step["counts"] for step in report["steps"] if step["name"] == "read")
    kept = report["sources"]
    return {
        "sources": {
            name: {
                "documents_read": read.get(f"documents.{name}", 0),
                "bytes_read": read.get(f"bytes.{name}", 0),
                "passed_over": read.get(f"passed over.{name}", 0),
                "documents": kept.get(name, {}).get("documents", 0),
                "bytes": kept.get(name, {}).get("bytes", 0),
            }
            for name in sorted({key.partition(".")[2] for key in read})
        },
        "steps": [
            {
                key: step[key]
                for key in (
                    "name",
                    "documents_in",
                    "documents_out",
                    "bytes_in",
                    "bytes_out",
                    "seconds",
                    "dropped",
                )
            }
            for step in report["steps"]
        ],
        "clusters": report["clusters"],
        "pii": report["pii"],
        "train": report["train"],
        "heldout": {key: value for key, value in report["heldout"].items() if key != "files"},
    }


def tables(figures: dict[str, Any]) -> dict[str, tuple[list[str], list[list[str]]]]:
    """The tables of docs/corpus.md: heads and rows, from a record."""
    raw, kept = figures["raw"], figures["sources"]
    by_source = [
        [
            name,
            f"{raw[name]['files']:,}",
            _mb(raw[name]["bytes"]),
            f"{one['documents_read']:,}",
            _mb(one["bytes_read"]),
            f"{one['documents']:,}",
            _mb(one["bytes"]),
        ]
        for name, one in kept.items()
    ]
    steps = [
        [
            one["name"],
            f"{one['documents_in']:,}",
            f"{one['documents_out']:,}",
            _mb(one["bytes_out"]),
            ", ".join(f"{reason} {count:,}" for reason, count in _most(one["dropped"])),
            f"{one['seconds']:.0f}",
        ]
        for one in figures["steps"]
    ]
    size, train = sum(one["bytes"] for one in raw.values()), figures["train"]
    whole = [
        ["files read", f"{sum(one['files'] for one in raw.values()):,}, {_mb(size)} MB unpacked"],
        [
            "to learn from",
            f"{train['documents']:,} documents, {_mb(train['bytes'])} MB, {train['tokens']:,} tokens",
        ],
        ["time", f"{figures['seconds']:.0f} s, {figures['cpu_seconds']:.0f} CPU-seconds"],
        ["raw text by time of CPU", f"{size / 1e6 / figures['cpu_seconds']:.2f} MB per CPU-second"],
        ["peak memory of all processes", f"{figures['peak_bytes'] / 1e6:,.0f} MB"],
    ]
    return {
        "whole": (["", ""], whole),
        "sources": (["source", "files", "MB raw", "documents", "MB of text", "kept", "MB kept"], by_source),
        "steps": (["step", "documents in", "out", "MB out", "left out for", "seconds"], steps),
    }


def page(text: str, figures: dict[str, Any]) -> str:
    """A page with the tables between `<!-- corpus NAME -->` and `<!-- end -->` as they were recorded."""
    for name, (heads, rows) in tables(figures).items():
        lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        body = "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
        pattern = rf"(<!-- corpus {name} -->\n).*?(<!-- end -->)"
        text = re.sub(pattern, lambda found: f"{found[1]}\n{body}\n\n{found[2]}", text, flags=re.DOTALL)  # noqa: B023
    return text


def _most(dropped: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(dropped.items(), key=lambda one: (-one[1], one[0]))


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f}"


def _show(figures: dict[str, Any]) -> None:
    for heads, rows in tables(figures).values():
        record.table(heads, rows)


if __name__ == "__main__":  # write the recorded figures into the page
    place = record.RESULTS.parents[1] / "docs" / "corpus.md"
    stored = json.loads((record.RESULTS / "corpus.json").read_text(encoding="utf-8"))
    place.write_text(page(place.read_text(encoding="utf-8"), stored), encoding="utf-8")
