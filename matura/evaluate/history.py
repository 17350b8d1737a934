"""What led to a model, as a report tells it: the stages and their time, the training, the tree of inputs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from matura.core import lineage
from matura.core.artifact import Artifact, RawInput
from matura.core.errors import ArtifactError
from matura.core.files import size_text
from matura.core.metrics import MetricsLog


def ancestors(artifacts: Iterable[Artifact]) -> Iterator[Artifact]:
    """The artifacts and all that is still there of what they were made from, each once, the oldest first."""
    seen: set[str] = set()

    def visit(one: Artifact) -> Iterator[Artifact]:
        if one.id in seen:
            return
        seen.add(one.id)
        for name, entry in one.inputs.items():
            if entry["kind"] != "raw":
                with contextlib.suppress(ArtifactError):
                    yield from visit(one.input(name))
        yield one

    for artifact in artifacts:
        yield from visit(artifact)


def training(model: Artifact, parent: Artifact) -> list[dict[str, Any]]:
    """The metrics of the training between parent and model: of the last one, if there were several."""
    before = {one.id for one in ancestors([parent])}
    rows: list[dict[str, Any]] = []
    for one in ancestors([model]):
        if one.kind == "model" and one.id not in before:
            rows = MetricsLog(one.path / "metrics.jsonl").rows() or rows
    return rows


def tree(kind: str, path: Path, inputs: Mapping[str, Artifact | RawInput]) -> lineage.Node:
    """The lineage of an artifact that is still a draft, as `core.lineage.tree` gives it for finished ones."""
    nodes = {
        name: lineage.tree(one) if isinstance(one, Artifact) else _raw(one)
        for name, one in sorted(inputs.items())
    }
    head = {"kind": kind, "name": lineage.name_of(path), "path": str(path), "id": "", "line": ""}
    return {**head, "state": "here", "inputs": nodes}


def _raw(one: RawInput) -> lineage.Node:
    line = f"{len(one.files)} file{'s' if len(one.files) != 1 else ''}, {size_text(one.bytes)}"
    head = {"kind": "raw", "name": str(one.path), "path": str(one.path), "id": one.id, "line": line}
    return {**head, "state": "here", "inputs": {}}
