"""The same corpus by the native engine, by Ray on this machine, in other parts, and through kills: the same bytes.

Real text (`--text` names a folder; by default this machine's /usr/share/doc) is curated with all kinds of steps:
natively; on Ray; natively in smaller parts by another number of workers; and natively with SIGKILL to the whole process
group at seeded moments, each rerun going on from the last.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.options import Options
from matura.core import artifact
from matura.core.workspace import Workspace

SETTINGS = (
    "language.use=on",
    "language.keep=[en]",
    "code.use=on",
    "gopher.use=on",
    "repetition.use=on",
    "c4={use: on, terminal_punctuation: false, drop_curly_bracket: false}",
    "fineweb={use: on, min_lines_with_punctuation: 0, max_short_lines: 0.95, max_duplicate_line_characters: 0.1}",
    "toxicity={use: on, group_thresholds: equal-rates}",
    "balance=on",
    "fuzzy.use=on",
    "substring.use=on",
    "decontaminate.columns=[text]",
    "pii={action: pseudonymise, ip: true, national_ids: [ES, GB]}",
    "canary.rates=[1, 4]",
    "mixture={total: 5000000, unit: bytes}",
    "heldout=50",
)
"""All that runs without labelled examples. Web rules are loosened: documentation is full of lists and braces."""
DEFAULT_TEXT = Path("/usr/share/doc")
FILES = ("train.parquet", "heldout.parquet", "pairs.parquet", "dropped.parquet", "canaries.json")
RUNS = {
    "native": ("engine.kind=native", "engine.workers=2", "engine.part_bytes=4194304"),
    "ray": ("engine.kind=ray", "engine.workers=2", "engine.part_bytes=4194304"),
    "other parts": ("engine.kind=native", "engine.workers=3", "engine.part_bytes=1500000"),
}
PROBLEMS = 50
SMALLEST = 1 << 16  # bytes of a part


def run(options: Options) -> bool:
    """Run all, compare, print and save; False when a byte differs, a step had nothing to do, or no kill hit."""
    text = options.text or DEFAULT_TEXT
    files = [path for path in text.rglob("*") if path.is_file() and not path.is_symlink()]
    with tempfile.TemporaryDirectory(prefix="matura-engines-") as folder:
        problems = Path(folder, "problems.jsonl")
        problems.write_text(_problems(options.seed), encoding="utf-8")
        command = [sys.executable, "-m", "matura", "curate", f"path={text}", *SETTINGS]
        command.append(f"decontaminate.problems={problems}")
        small = (
            [f"engine.part_bytes={SMALLEST}"] if options.quick else []
        )  # several parts even of a few files
        rows = [_run(name, [*command, *engine, *small], Path(folder, name)) for name, engine in RUNS.items()]
        kills = options.default(options.kills, 4, 2)
        moments = [random.Random(f"{options.seed}/{n}").uniform(0.1, 0.9) for n in range(kills)]
        killed = Path(folder, "killed")
        again = [*command, *RUNS["native"], *small]
        landed = sum(_killed(again, killed, m * rows[0]["seconds"]) for m in moments)
        rows.append(_run("killed", again, killed))
    columns = ["run", "seconds", "documents", "resumed", *FILES]
    record.table(columns, [[row[key] for key in columns] for row in rows])
    steps = rows[0]["steps"]
    checks = {
        "the same bytes": all(row[name] == rows[0][name] for row in rows for name in FILES),
        "the same counts": all(row["steps"] == steps for row in rows),
        "a kill hit": landed > 0,
    }
    figures = {
        "text": text.name,
        "files": len(files),
        "bytes": sum(path.stat().st_size for path in files),
        "settings": SETTINGS,
        "runs": [{key: value for key, value in row.items() if key != "steps"} for row in rows],
        "steps": steps,
        "kills": landed,
        "checks": checks,
    }
    print(f"{figures['files']:,} files, {figures['bytes'] / 1e6:.1f} MB; kills that hit: {landed}; {checks}")
    record.save("corpus_engines", options, figures)
    return all(checks.values())


def _problems(seed: int) -> str:
    """Paragraphs of Python's language reference, as if they were test items: its documentation holds them too."""
    found = [one for one in Options().read_text()[1].split("\n\n") if 20 <= len(one.split()) <= 60]
    chosen = random.Random(seed).sample(found, PROBLEMS)
    return "".join(json.dumps({"text": one}) + "\n" for one in chosen)


def _environment(workspace: Path) -> dict[str, str]:
    return {**os.environ, "MATURA_WORKSPACE": str(workspace), "OMP_NUM_THREADS": "1"}


def _run(name: str, command: list[str], workspace: Path) -> dict[str, Any]:
    """One run to its end: time, documents and the hashes of its files."""
    began = time.monotonic()
    done = subprocess.run(command, env=_environment(workspace), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name} failed with {done.returncode}:\n{done.stderr[-3000:]}")
    seconds = time.monotonic() - began
    place = Workspace(workspace)
    (folder,) = place.read_run(place.recipes()[0]).values()
    made = artifact.load(folder)
    hashes = {file: made.record["files"][file]["sha256"][:12] for file in FILES}
    row = {"run": name, "seconds": round(seconds, 1), "documents": made.summary["files"]["kept"]}
    return {**row, "resumed": made.record["resumed"], **hashes, "steps": _steps(made)}


def _steps(made: artifact.Artifact) -> dict[str, Any]:
    """What every step did, without its time."""
    told = ("documents_in", "documents_out", "bytes_in", "bytes_out", "dropped", "counts")
    report = json.loads(made.file("report.json").read_bytes())
    return {step["name"]: {key: step[key] for key in told} for step in report["steps"]}


def _killed(command: list[str], workspace: Path, after: float) -> bool:
    """Start a run and kill its process group; whether it was still at work then."""
    process = subprocess.Popen(
        command,
        env=_environment(workspace),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(after)
    hit = process.poll() is None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return hit
