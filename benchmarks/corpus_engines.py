"""The same corpus by the native engine, by Ray on this machine, and through kills: the same bytes.

Real text (`--text` names a folder; by default this machine's /usr/share/doc) is curated three times: natively, on Ray,
and natively with SIGKILL to the whole process group at seeded moments, each rerun going on from the last.
"""

from __future__ import annotations

import contextlib
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

SETTINGS = ("gopher.use=on", "repetition.use=on", "engine.workers=2")
DEFAULT_TEXT = Path("/usr/share/doc")
FILES = ("train.parquet", "heldout.parquet", "dropped.parquet")


def run(options: Options) -> bool:
    """Run all three, compare, print and save; False when a byte differs."""
    text = options.text or DEFAULT_TEXT
    part = "engine.part_bytes=262144" if options.quick else "engine.part_bytes=4194304"
    command = [sys.executable, "-m", "matura", "curate", f"path={text}", part, *SETTINGS]
    with tempfile.TemporaryDirectory(prefix="matura-engines-") as folder:
        rows = [
            _run(name, [*command, f"engine.kind={name}"], Path(folder, name)) for name in ("native", "ray")
        ]
        kills = options.default(options.kills, 4, 2)
        moments = [random.Random(f"{options.seed}/{n}").uniform(0.1, 0.9) for n in range(kills)]
        killed = Path(folder, "killed")
        landed = sum(
            _killed([*command, "engine.kind=native"], killed, m * rows[0]["seconds"]) for m in moments
        )
        rows.append(_run("killed", [*command, "engine.kind=native"], killed))
    columns = ["engine", "seconds", "documents", "resumed", *FILES]
    record.table(columns, [[row[key] for key in columns] for row in rows])
    checks = {
        "the same bytes": all(row[name] == rows[0][name] for row in rows for name in FILES),
        "a kill hit": landed > 0,
    }
    record.save(
        "corpus_engines", options, {"text": str(text), "runs": rows, "kills": landed, "checks": checks}
    )
    return all(checks.values())


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
    row = {"engine": name, "seconds": round(seconds, 1), "documents": made.summary["files"]["kept"]}
    return {**row, "resumed": made.record["resumed"], **hashes}


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
