"""Far sources for real: S3, HTTP, a hub and databases on loopback, each read by `matura curate`.

For each: the same texts come out as went in, a second run fetches nothing, and neither the workspace nor what is
printed holds the password. What is not installed is skipped and said so.
"""

from __future__ import annotations

import base64
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks import record, source_servers
from benchmarks.options import Options
from benchmarks.source_servers import SECRET
from matura.core.records import read_documents

TEXTS = 400


def run(options: Options) -> bool:
    """Run all that are there, print and save; False when one of them fails."""
    texts = _texts(40 if options.quick else TEXTS, options.seed)
    python = str(options.peer or sys.executable)
    sources = {
        "s3": lambda: source_servers.object_store(python, texts),
        "http": lambda: source_servers.web(texts),
        "hf": lambda: source_servers.hub(texts),
        "postgresql": lambda: source_servers.database("postgresql", texts),
        "mariadb": lambda: source_servers.database("mariadb", texts),
    }
    rows, skipped = [], {}
    for name, serve in sources.items():
        try:
            with serve() as (settings, environment):
                rows.append(_read(name, settings, environment, texts))
        except source_servers.Absent as absent:
            skipped[name] = str(absent)
            print(f"{name}: skipped, needs {absent}", flush=True)
    columns = ["source", "documents", "same texts", "no secret", "wrong password", "reused", "seconds"]
    record.table(columns, [[row[key] for key in columns] for row in rows])
    record.save("sources", options, {"texts": len(texts), "runs": rows, "skipped": skipped})
    return all(value is not False for row in rows for value in row.values())


def _texts(count: int, seed: int) -> list[str]:
    words = [
        "the",
        "quick",
        "brown",
        "fox",
        "jumps",
        "over",
        "lazy",
        "dogs",
        "while",
        "grüne",
        "Häuser",
        "stehen",
        "中文",
        "and",
        "100%",
        "of",
        "it",
        "ends",
    ]
    draw = random.Random(seed)
    return [f"Text {i}, a fox: " + " ".join(draw.choices(words, k=90)) + "." for i in range(count)]


def _read(name: str, settings: list[str], environment: dict[str, str], texts: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="matura-sources-") as folder:
        workspace = Path(folder, "workspace")
        began = time.monotonic()
        first = _curate(settings, environment, workspace)
        seconds = round(time.monotonic() - began, 2)
        plan = _curate(settings, environment, workspace, "--plan")
        again = _curate(settings, environment, workspace)
        wrong = {key: value if value != SECRET else "no-" + value for key, value in environment.items()}
        # A plain store of moto asks nobody for a password, so there is nothing to refuse.
        refused = _curate(settings, wrong, Path(folder, "refused")) if name != "s3" else None
        found = sorted(
            document.text for path in workspace.rglob("*.parquet") for document in _documents(path)
        )
        outputs = [one.stdout + one.stderr for one in (first, plan, again, refused) if one is not None]
        if first.returncode:
            print(first.stderr, flush=True)
        return {
            "source": name,
            "documents": len(found),
            "same texts": found == sorted(texts),
            "no secret": not (
                _leaks(Path(folder)) or any(form in text for text in outputs for form in _forms())
            ),
            "wrong password": None if refused is None else refused.returncode == 1,
            "reused": "reused" in again.stdout + again.stderr or "unchanged" in again.stdout + again.stderr,
            "seconds": seconds,
        }


def _documents(path: Path) -> Any:
    return read_documents(path) if path.name in ("train.parquet", "heldout.parquet") else ()


def _curate(
    settings: list[str], environment: dict[str, str], workspace: Path, *flags: str
) -> subprocess.CompletedProcess[str]:
    given = [f"sources.far.{setting}" for setting in settings]
    command = [sys.executable, "-m", "matura", "curate", *given, "pii=report", *flags]
    own = {**os.environ, **environment, "MATURA_WORKSPACE": str(workspace), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=own, capture_output=True, text=True, timeout=600)


def _forms() -> set[str]:
    pair = base64.b64encode(f"reader:{SECRET}".encode()).decode()
    return {SECRET, quote(SECRET, safe=""), quote(SECRET), base64.b64encode(SECRET.encode()).decode(), pair}


def _leaks(folder: Path) -> list[str]:
    forms = [form.encode() for form in _forms()]
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if any(form in path.read_bytes() for form in forms)]
