"""The records inside artifacts, `artifact.json` and `draft.json`: reading and checking them, and the ids.

Records are read as if from a stranger: bounded, every field checked, no file name may lead out of the
directory.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from matura.core.errors import ArtifactError, FormatError
from matura.core.files import canonical_hash, is_temporary, plain, read_json

SCHEMA = 1
RECORD, DRAFT, RESUME = "artifact.json", "draft.json", "resume"
MAX_RECORD_BYTES = 64 << 20
_RECORD_TYPES: dict[str, type] = {
    "schema": int,
    "kind": str,
    "stage": str,
    "stage_version": int,
    "id": str,
    "inputs": dict,
    "config": dict,
    "files": dict,
    "summary": dict,
}


def read_record(place: Path) -> dict[str, Any]:
    """The checked `artifact.json` of the directory `place`. Raises ArtifactError that says what is the
    matter.
    """
    record_path = place / RECORD
    if not record_path.is_file():
        raise ArtifactError(_why_not_an_artifact(place))
    try:
        record = read_json(record_path, limit=MAX_RECORD_BYTES, what="an artifact's record")
    except FormatError as error:
        raise ArtifactError(
            f"{str(error).rstrip('.')}. The artifact was damaged; delete {place} and make it again."
        ) from error
    except OSError as error:
        raise ArtifactError(f"Cannot read {record_path}: {error.strerror}.") from error
    schema = record.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise ArtifactError(
            f"{record_path} has schema {schema}, this version of matura reads up to {SCHEMA}: upgrade matura."
        )
    problem = _record_problem(record)
    if problem:
        raise ArtifactError(f"{record_path} is not an artifact's record: {problem}.")
    return record


def _why_not_an_artifact(place: Path) -> str:
    if not place.exists():
        return f"There is no artifact at {place}: the directory does not exist."
    if not place.is_dir():
        return f"{place} is a file; an artifact is a directory with {RECORD}."
    if (place / DRAFT).is_file():
        return (
            f"{place} was interrupted before it was finished. Run the same command again: it goes on from "
            "the last checkpoint. Or remove what is left with `matura gc`."
        )
    return f"{place} is not an artifact: it has no {RECORD}."


def _record_problem(record: dict[str, Any]) -> str | None:
    for name, expected in _RECORD_TYPES.items():
        if name not in record:
            return f"{name!r} is missing"
        if not isinstance(record[name], expected):
            return f"{name!r} should be {expected.__name__}, not {type(record[name]).__name__}"
    for name, entry in record["files"].items():
        pure = PurePosixPath(name)
        if not name or pure.is_absolute() or ".." in pure.parts or "\\" in name:
            return f"the file name {name!r} leads out of the directory"
        if not (
            isinstance(entry, dict)
            and isinstance(entry.get("bytes"), int)
            and isinstance(entry.get("sha256"), str)
        ):
            return f"files[{name!r}] should have bytes and sha256"
    for name, entry in record["inputs"].items():
        if not (
            isinstance(entry, dict)
            and all(isinstance(entry.get(part), str) for part in ("kind", "path", "id"))
        ):
            return f"inputs[{name!r}] should have kind, path and id"
    return None


def read_draft(directory: Path) -> dict[str, Any] | None:
    """The interrupted draft's request in `directory`, None when it is empty. Raises when it is not ours."""
    if all(is_temporary(entry.name) for entry in directory.iterdir()):
        return None
    try:
        previous = read_json(directory / DRAFT, limit=MAX_RECORD_BYTES, what="a draft")
        if isinstance(previous.get("key"), str):
            return previous
    except (FormatError, OSError):
        pass
    raise ArtifactError(
        f"{directory} holds files that matura did not make; choose another place, or empty it yourself."
    )


def key(stage: str, version: int, config: Any, inputs: Mapping[str, str]) -> str:
    """What decides whether a result can be reused: stage, version, settings and the ids of the inputs (name
    -> id).

    Settings that name an input count through its id, not through the path written there.
    """
    return canonical_hash(
        {
            "schema": SCHEMA,
            "stage": stage,
            "version": version,
            "config": _without_inputs(resolved(config), inputs),
            "inputs": dict(inputs),
        }
    )


def identity(record: Mapping[str, Any]) -> str:
    inputs = {name: entry["id"] for name, entry in record["inputs"].items()}
    return canonical_hash(
        {
            "schema": record["schema"],
            "kind": record["kind"],
            "stage": record["stage"],
            "version": record["stage_version"],
            "config": _without_inputs(record["config"], inputs),
            "inputs": inputs,
            "files": {
                name: entry["sha256"]
                for name, entry in record["files"].items()
                if not entry.get("log", False)
            },
        }
    )


def resolved(config: Any) -> dict[str, Any]:
    values = config.model_dump(mode="json") if hasattr(config, "model_dump") else dict(config)
    resolved = plain(values)
    assert isinstance(resolved, dict)
    return resolved


def _without_inputs(config: dict[str, Any], inputs: Iterable[str]) -> dict[str, Any]:
    """The settings without those that name an input (dotted when nested): their paths change no result."""
    stripped = dict(config)
    for name in inputs:
        head, _, rest = name.partition(".")
        if rest and isinstance(stripped.get(head), dict):
            stripped[head] = _without_inputs(stripped[head], [rest])
        else:
            stripped.pop(head, None)
    return stripped
