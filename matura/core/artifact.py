"""Artifacts: directories that hold the finished output of a stage, and the drafts they grow from.

A directory is an artifact when, and only when, it holds `artifact.json`, which is written last, by atomic
rename. A draft holds `draft.json` instead and a folder `resume` for checkpoints; a draft that was killed is
taken up again by :func:`begin` with the same settings and inputs.
"""

import datetime
import difflib
import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matura.core import provenance
from matura.core.errors import ArtifactError
from matura.core.files import (
    atomic_write,
    hash_file,
    is_disk_full,
    is_temporary,
    last_change,
    plain,
    remove,
    saving,
    sync,
    write_json,
)
from matura.core.manifest import (
    DRAFT,
    RECORD,
    RESUME,
    SCHEMA,
    identity,
    key,
    read_draft,
    read_record,
    resolved,
)
from matura.core.metrics import MetricsLog
from matura.core.raw import LISTED_FILES, RawInput, raw_input
from matura.core.usage import Meter

__all__ = [
    "Artifact",
    "Draft",
    "RawInput",
    "atomic_write",
    "begin",
    "check_files",
    "is_disk_full",
    "key",
    "load",
    "raw_input",
    "saving",
    "verify",
]


METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: where it is, and what its `artifact.json` says."""

    path: Path
    record: dict[str, Any] = field(hash=False, repr=False)

    @property
    def kind(self) -> str:
        """What it is: corpus, conversations, model, evaluation, ..."""
        return str(self.record["kind"])

    @property
    def id(self) -> str:
        """Hash of what it was made of and of what came out: equal results have equal ids."""
        return str(self.record["id"])

    @property
    def summary(self) -> dict[str, Any]:
        """What the stage found worth telling; `line` is one line for a person, `gate` a verdict."""
        return dict(self.record["summary"])

    @property
    def config(self) -> dict[str, Any]:
        """The resolved settings of the stage that made it."""
        return dict(self.record["config"])

    @property
    def inputs(self) -> dict[str, dict[str, Any]]:
        """Per input name: kind, path and id (raw inputs also: bytes, count, and files if not too many)."""
        return dict(self.record["inputs"])

    def file(self, name: str) -> Path:
        """The path of one of its files. Raises ArtifactError when it has no such file, or lost it."""
        if name not in self.record["files"]:
            close = difflib.get_close_matches(name, self.record["files"], n=1)
            hint = f"did you mean {close[0]}?" if close else f"it has: {', '.join(self.record['files'])}."
            raise ArtifactError(f"The {self.kind} {self.path} has no file {name}; {hint}")
        path = self.path / name
        if not path.is_file():
            raise ArtifactError(f"The {self.kind} {self.path} lost its file {name}. {self._remake()}")
        return path

    def input(self, name: str) -> "Artifact":
        """Load one of its inputs, which must be an artifact and still be the one it was made from.

        It is looked for beside this artifact first, so a workspace may be moved as a whole.
        """
        entry = self.record["inputs"].get(name)
        if entry is None:
            raise ArtifactError(
                f"{self.path} has no input {name!r} (it has: {', '.join(self.inputs) or 'none'})."
            )
        found = None
        for place in self.input_places(name):
            if (place / RECORD).is_file():
                found = load(place)
                if found.id == entry["id"]:
                    return found
        if found is None:
            raise ArtifactError(f"{self.path} was made from {entry['path']}, which is gone. {self._remake()}")
        raise ArtifactError(
            f"{self.path} was made from {entry['kind']} {entry['id'][:6]}, "
            f"but {found.path} now holds {found.id[:6]}. {self._remake()}"
        )

    def input_places(self, name: str) -> tuple[Path, ...]:
        """Where an input may be: relative to this artifact as when it was made, then at its full path."""
        entry = self.record["inputs"][name]
        places = [Path(entry["path"])]
        if entry.get("relative"):
            places.insert(0, Path(os.path.normpath(self.path / entry["relative"])))
        return tuple(dict.fromkeys(places))

    def _remake(self) -> str:
        return f"Delete {self.path} and run the stage {self.record['stage']!r} again."


def load(path: str | os.PathLike[str]) -> Artifact:
    """Read an artifact; nothing but its `artifact.json` is opened.

    Raises ArtifactError when there is none (and says whether it was interrupted), when it is broken, or when
    it was written by a newer version.
    """
    place = Path(path).expanduser()
    place = place.parent if place.name == RECORD else place
    return Artifact(place.resolve(), read_record(place))


def check_files(artifact: Artifact) -> None:
    """Check that every file is there with its recorded size: cheap, for reuse. Raises ArtifactError."""
    _raise_problems(artifact, _size_problems(artifact))


def verify(artifact: Artifact) -> None:
    """Check size and SHA-256 of every file, and the id. Raises one ArtifactError that lists all that is
    wrong.
    """
    problems = _size_problems(artifact)
    for name, entry in artifact.record["files"].items():
        if name not in problems and hash_file(artifact.path / name) != entry["sha256"]:
            problems[name] = "its content was changed"
    if not problems and identity(artifact.record) != artifact.id:
        problems[RECORD] = "its id does not follow from what it records"
    _raise_problems(artifact, problems)


def _size_problems(artifact: Artifact) -> dict[str, str]:
    problems = {}
    for name, entry in artifact.record["files"].items():
        path = artifact.path / name
        if not path.is_file():
            problems[name] = "is missing"
        elif path.stat().st_size != entry["bytes"]:
            problems[name] = f"has {path.stat().st_size} bytes instead of {entry['bytes']}"
    return problems


def _raise_problems(artifact: Artifact, problems: dict[str, str]) -> None:
    if problems:
        listed = "\n".join(f"  {name}: {problem}" for name, problem in problems.items())
        raise ArtifactError(
            f"The {artifact.kind} {artifact.path} was changed after it was made:\n{listed}\n"
            f"{artifact._remake()}"
        )


@dataclass
class Draft:
    """An artifact in the making. The stage writes its files into `path` and its checkpoints into `resume`.

    `resume` outlives a kill and is removed on commit; `metrics` writes `metrics.jsonl`. Files outside
    `resume` also outlive a kill, but only atomically written ones can be trusted then.
    """

    path: Path
    resume: Path
    metrics: MetricsLog
    request: dict[str, Any] = field(repr=False)
    meter: Meter = field(default_factory=Meter.start, repr=False)

    def commit(self, summary: Mapping[str, Any], logs: Iterable[str] = ()) -> Artifact:
        """Hash and sync every file, write `artifact.json`, remove the checkpoints.

        `logs` are files whose content may differ between equal runs (timings, reports with dates); they are
        hashed but are no part of the id. Raises ArtifactError when the disk is full: nothing is lost then.
        """
        with saving(f"the {self.request['kind']} {self.path.name}", self.path):
            files = self._files({METRICS, *logs})
            record = {
                "schema": SCHEMA,
                "kind": self.request["kind"],
                "stage": self.request["stage"],
                "stage_version": self.request["version"],
                "id": "",
                "created": _now(),
                "inputs": self.request["inputs"],
                "config": self.request["config"],
                "code": provenance.code_version(),
                "environment": provenance.environment(),
                "files": files,
                "summary": plain(summary),
                "seconds": round(self.request["spent"] + self.meter.seconds, 3),
                "cpu_seconds": round(self.meter.cpu_seconds, 3),
                "peak_memory": self.meter.peak_memory,
                "resumed": self.request["resumed"],
            }
            record["id"] = identity(record)
            write_json(self.path / RECORD, record)
            remove(self.path / DRAFT)
            remove(self.resume)
            sync(self.path)
        return load(self.path)

    def _files(self, logs: set[str]) -> dict[str, dict[str, Any]]:
        """Sync and hash everything the stage made; temporary files that a kill left are removed."""
        files = {}
        for directory, folders, names in os.walk(self.path):
            here = Path(directory)
            for name in filter(is_temporary, folders):
                remove(here / name)
            folders[:] = [
                name for name in folders if not is_temporary(name) and (here != self.path or name != RESUME)
            ]
            for name in [*names, *(name for name in folders if (here / name).is_symlink())]:
                path = here / name
                relative = path.relative_to(self.path).as_posix()
                if relative in (DRAFT, RECORD):
                    continue
                if path.is_symlink() or not path.is_file():
                    raise ArtifactError(
                        f"{path} is not a plain file: an artifact holds files only, no links."
                    )
                sync(path)
                files[relative] = {
                    "bytes": path.stat().st_size,
                    "sha256": hash_file(path),
                    "log": relative in logs,
                }
            sync(here)
        unknown = logs - files.keys() - {METRICS}
        if unknown:
            raise ArtifactError(f"{self.path}: named as logs but not written: {', '.join(sorted(unknown))}.")
        return dict(sorted(files.items()))


def begin(
    path: str | os.PathLike[str],
    *,
    kind: str,
    stage: str,
    version: int,
    config: Any,
    inputs: Mapping[str, Artifact | RawInput],
) -> Draft:
    """Start an artifact at `path`, or take up the interrupted one there when stage, settings and inputs are
    the same.

    `config` is the stage's config (a pydantic model or a mapping). An interrupted draft of something else is
    cleared. Raises ArtifactError when the directory already holds an artifact, or files that were not made
    here.
    """
    directory = Path(os.path.abspath(Path(path).expanduser()))
    request = _request(directory, kind, stage, version, config, inputs)
    if (directory / RECORD).exists():
        raise ArtifactError(f"{directory} already holds a finished artifact; it is never written over.")
    if directory.exists() and not directory.is_dir():
        raise ArtifactError(f"{directory} is a file; an artifact needs a directory of its own.")
    with saving(f"the draft of {directory.name}", directory):
        directory.mkdir(parents=True, exist_ok=True)
        previous = read_draft(directory)
        if previous is not None and previous.get("key") == request["key"]:
            request["resumed"] = int(previous.get("resumed", 0)) + 1
            request["spent"] = _spent(directory, previous)
        elif previous is not None:
            # draft.json goes last, so that a kill in between leaves something that is known to be ours.
            for entry in sorted(directory.iterdir(), key=lambda entry: entry.name == DRAFT):
                remove(entry)
        write_json(directory / DRAFT, request)
        for entry in directory.iterdir():
            if is_temporary(entry.name):
                remove(entry)
        (directory / RESUME).mkdir(exist_ok=True)
    return Draft(directory, directory / RESUME, MetricsLog(directory / METRICS), request)


def _request(
    directory: Path,
    kind: str,
    stage: str,
    version: int,
    config: Any,
    inputs: Mapping[str, Artifact | RawInput],
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "key": key(stage, version, config, {name: made.id for name, made in inputs.items()}),
        "kind": kind,
        "stage": stage,
        "version": version,
        "created": _now(),
        "began": time.time(),
        "spent": 0.0,
        "resumed": 0,
        "inputs": {name: _input_entry(directory, made) for name, made in inputs.items()},
        "config": resolved(config),
    }


def _spent(directory: Path, previous: Mapping[str, Any]) -> float:
    """Seconds that earlier sessions worked on a draft. A session that was killed ends with the last file it wrote."""
    latest = last_change(directory) - float(previous.get("began", math.inf))
    return float(previous.get("spent", 0.0)) + max(0.0, latest)


def _input_entry(directory: Path, made: Artifact | RawInput) -> dict[str, Any]:
    entry: dict[str, Any] = {"kind": made.kind, "path": str(made.path), "id": made.id}
    if isinstance(made, Artifact):
        return {**entry, "relative": os.path.relpath(made.path, directory.resolve())}
    entry |= {"bytes": made.bytes, "count": len(made.files)}
    return {**entry, "files": made.files} if len(made.files) <= LISTED_FILES else entry


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
