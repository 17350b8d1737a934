"""kill -9 at random moments of a recipe: the rerun goes on, and the end is bit for bit what it would have been.

One workspace is left alone, and the time of its stages is measured. In another the same recipe is killed (SIGKILL to
the whole process group) again and again, at a seeded moment of every stage, each rerun going on from the last, until it
completes. Then every stage's id and every file's hash are compared; logs with timings are no part of an id.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matura
from benchmarks import record
from benchmarks.options import Options
from matura.core import artifact as artifacts
from matura.core.artifact import Artifact, verify
from matura.core.files import canonical_hash, hash_file, read_json
from matura.core.workspace import Workspace

START_SECONDS = 1.0
"""Python and its imports: a rerun has to get past them before it can get any further."""
POLL_SECONDS = 0.02

SHORT = (
    "replay.conversations=20",
    "replay.texts=8",
    "replay.heldout=6",
    "replay.batch=4",
    "replay.answer.max_new_tokens=32",
    "replay.text.max_new_tokens=32",
    "replay.min_characters=1",
    "tuned.tokens=6000",
    "tuned.tokens_per_step=512",
    "tuned.sequence=256",
    "tuned.save_every=2",
    "tuned.meter_every=4",
    "exam.panel={hellaswag: 4, arc_easy: 4, piqa: 4}",
    "exam.texts={documents: 4, document_tokens: 128, control: 4}",
    "exam.answer_tokens=8",
    "exam.gates=[]",
)
"""The recipe adapt.yaml in a minute or two; no gate, for so little training proves nothing but its bits."""
QUICK = ("tuned.tokens=2048", "replay.conversations=8", "replay.texts=2", "replay.heldout=2")


def run(options: Options) -> bool:
    """Run, kill, compare, print and save; False when anything differs or a rerun fails."""
    overrides = (*(() if options.full else SHORT), *(QUICK if options.quick else ()), *options.overrides)
    command = [sys.executable, "-m", "matura", "run", str(options.recipe.absolute()), *overrides]
    code = _code()
    with tempfile.TemporaryDirectory(prefix="matura-kill-") as folder:
        alone, killed = (_workspace(Path(folder, name)) for name in ("alone", "killed"))
        began = time.monotonic()
        _finish(_start(command, alone, options.threads, Path(folder, "alone.log")), Path(folder, "alone.log"))
        seconds = time.monotonic() - began
        print(f"Uninterrupted: {seconds:.0f} s", flush=True)
        (name,) = alone.recipes()
        targets = _targets(alone, name, options.default(options.kills, 6, 2), random.Random(options.seed))
        kills = _kill(command, killed, targets, options, Path(folder))
        rows = [_compare(alone, killed, name, stage) for stage in alone.read_run(name)]
    record.table(
        ["kill", "after s", "stage", "progress", "the rerun said"],
        [[n + 1, k["after"], k["stage"], k["progress"], k["rerun"]] for n, k in enumerate(kills)],
    )
    print()
    record.table(
        ["stage", "id", "equal", "files equal", "resumed", "different files"],
        [
            [
                *(row["stage"], row["id"][:12], row["equal"], row["files_equal"], row["resumed"]),
                ", ".join(row["different"]),
            ]
            for row in rows
        ],
    )
    landed = sum(kill["stage"] != "finished before" for kill in kills)
    checks = {
        "every stage has the same id": all(row["equal"] for row in rows),
        "every file has the same bytes": all(row["files_equal"] for row in rows),
        "every kill hit": landed == len(kills),
        "the code stayed the same meanwhile": code == _code(),
    }
    figures = {"overrides": overrides, "seconds": seconds, "kills": kills, "stages": rows, "checks": checks}
    name = "kill" if options.recipe == Options.recipe else f"kill.{options.recipe.stem}"
    record.save(name, options, figures)
    return all(checks.values())


def _code() -> str:
    """A hash of the package's source: an edit during the runs would be blamed on the kills."""
    package = Path(matura.__file__).parent
    return canonical_hash({str(path): hash_file(path) for path in sorted(package.rglob("*.py"))})


def _workspace(root: Path) -> Workspace:
    """A new workspace that shares only the downloads with the usual one: everything else is made in it."""
    place, usual = Workspace(root), Workspace()
    place.downloads.mkdir(parents=True)
    for wheel in usual.downloads.glob("*.whl"):
        try:
            os.link(wheel, place.downloads / wheel.name)
        except OSError:
            shutil.copy(wheel, place.downloads / wheel.name)
    return place


def _start(command: Sequence[str], workspace: Workspace, threads: int, log: Path) -> subprocess.Popen[bytes]:
    """The command in a process group of its own, so that a kill takes whatever it started with it."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MATURA_WORKSPACE": str(workspace.root)}
    with log.open("wb") as sink:
        return subprocess.Popen(
            command,
            stdout=sink,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )


def _finish(process: subprocess.Popen[bytes], log: Path) -> None:
    try:
        code = process.wait()
    finally:
        _kill_group(process)
    if code:
        raise RuntimeError(f"the run failed with {code}:\n{log.read_text(errors='replace')[-4000:]}")


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _targets(alone: Workspace, recipe: str, count: int, draw: random.Random) -> list[tuple[str, float]]:
    """(stage, seconds into it) of every kill: each stage once, the longest more often, at random moments."""
    models = [
        artifacts.load(path) for path in sorted(alone.models.glob("*/")) if (path / "artifact.json").is_file()
    ]
    stages = alone.read_run(recipe)
    seconds = {"pull": sum(made.record["seconds"] for made in models)}
    seconds |= {stage: alone.find(f"{recipe}/{stage}").record["seconds"] for stage in stages}
    longest = sorted(seconds, key=lambda stage: -seconds[stage])
    hits = dict.fromkeys(seconds, 0)
    for _, stage in zip(range(count), [*longest, *(longest[:2] * count)], strict=False):
        hits[stage] += 1
    targets = []
    for stage, times in hits.items():
        before = 0.0
        for share in sorted(draw.random() for _ in range(times)):
            targets.append((stage, (share - before) * seconds[stage]))  # the next one goes on from there
            before = share
    return targets


def _kill(
    command: Sequence[str],
    workspace: Workspace,
    targets: Sequence[tuple[str, float]],
    options: Options,
    folder: Path,
) -> list[dict[str, Any]]:
    """Kill at the given moments, then let it finish. Where each kill hit, and what the run after it said."""
    order = list(dict.fromkeys(stage for stage, _ in targets))
    kills: list[dict[str, Any]] = []
    for stage, seconds in targets:
        log = folder / f"killed-{len(kills)}.log"
        start = START_SECONDS if kills else 0.0
        process = _start(command, workspace, options.threads, log)
        began = time.monotonic()
        try:
            hit = _wait(process, workspace, order, stage, start, seconds)
            place = _where(workspace) if hit else ("finished before", "")
            if not hit:
                _finish(process, log)
        finally:
            _kill_group(process)
        after = time.monotonic() - began
        _said(kills, log)
        kills.append({"after": after, "aim": stage, "stage": place[0], "progress": place[1], "rerun": ""})
        print(f"  kill {len(kills)}/{len(targets)} after {after:.1f} s: {' '.join(place)}", flush=True)
    log = folder / "last.log"
    _finish(_start(command, workspace, options.threads, log), log)
    _said(kills, log)
    return kills


def _wait(
    process: subprocess.Popen[bytes],
    workspace: Workspace,
    order: Sequence[str],
    stage: str,
    start: float,
    seconds: float,
) -> bool:
    """Until the stage has been at work for `seconds`, or a later one has begun (True), or the process has ended.

    In the first `start` seconds the newest draft is still the one that the last kill left.
    """
    time.sleep(start)
    seen: float | None = None
    while process.poll() is None:
        place = _where(workspace)[0]
        if place == stage and seen is None:
            seen = time.monotonic()
        late = place in order and order.index(place) > order.index(stage)
        if late or (seen is not None and time.monotonic() - seen >= seconds):
            return True
        time.sleep(POLL_SECONDS)
    return False


def _where(workspace: Workspace) -> tuple[str, str]:
    """The stage at work and how far it is, as its draft tells."""
    drafts = workspace.drafts()
    if not drafts:
        return "between stages", ""
    draft = max(drafts, key=lambda path: (path / "draft.json").stat().st_mtime)
    steps = -1
    with contextlib.suppress(OSError, ValueError, IndexError, KeyError):
        steps = json.loads((draft / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    parts = len(list((draft / "resume").glob("*.json")))
    progress = f"step {steps}" if steps >= 0 else f"{parts} parts done" if parts else "no checkpoint yet"
    return draft.name.rpartition("-")[0] if draft.parent.name != "models" else "pull", progress


def _said(kills: list[dict[str, Any]], log: Path) -> None:
    """Keep with the last kill what the next run said of it."""
    if not kills:
        return
    lines = log.read_text(errors="replace").splitlines()
    reused = sum(" reused " in line for line in lines)
    resuming = [" ".join(line.split()) for line in lines if " resuming " in line]
    kills[-1]["rerun"] = f"{reused} reused" + (f"; {resuming[0]}" if resuming else "")


def _compare(alone: Workspace, killed: Workspace, recipe: str, stage: str) -> dict[str, Any]:
    """One stage in both workspaces; both are checked against their own recorded hashes first."""
    first, second = (place.find(f"{recipe}/{stage}") for place in (alone, killed))
    for one in (first, second):
        verify(one)
    different = [name for name, hash in _hashes(first).items() if _hashes(second).get(name) != hash]
    return {
        "stage": stage,
        "different": different,
        "id": first.id,
        "equal": first.id == second.id,
        "files_equal": _hashes(first) == _hashes(second),
        "files": _hashes(first),
        "resumed": read_json(second.path / "artifact.json", limit=64 << 20, what="a record").get("resumed"),
    }


def _hashes(made: Artifact) -> dict[str, str]:
    return {name: entry["sha256"] for name, entry in made.record["files"].items() if not entry["log"]}
