"""What led to a model, as a report tells it: the stages and their time, the training, the tree of inputs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matura.core import lineage, provenance
from matura.core.artifact import Artifact, RawInput
from matura.core.conversation_settings import ConversationData
from matura.core.errors import ArtifactError, MaturaError
from matura.core.files import read_json, size_text
from matura.core.metrics import MetricsLog
from matura.core.raw import raw_input
from matura.core.records import Conversation, Document, read_conversations, read_documents
from matura.data import conversations
from matura.evaluate import costs
from matura.evaluate.report import Context


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


def trained_on(inputs: Mapping[str, Artifact | RawInput]) -> Iterator[Document]:
    """The text that a model comes from, and of the corpus that it is examined on: documents, and conversations a text
    each, as far as they are still there and what they were."""
    known = [one for name in ("model", "corpus") if isinstance(one := inputs.get(name), Artifact)]
    for one in ancestors(known):
        if one.kind == "corpus" and "train.parquet" in one.record["files"]:
            yield from read_documents(one.file("train.parquet"))
        elif one.kind == "conversations" and "train.jsonl" in one.record["files"]:
            yield from map(_said, read_conversations(one.file("train.jsonl")))
        elif one.record["stage"] == "finetune" and one.inputs.get("conversations", {}).get("kind") == "raw":
            yield from map(_said, _of_files(one))


def _of_files(tuned: Artifact) -> Sequence[Conversation]:
    """The conversations of people's files that a model learned; none where the files are gone or have changed."""
    entry = tuned.inputs["conversations"]
    with contextlib.suppress(MaturaError):
        if raw_input(entry["path"]).id == entry["id"]:
            return conversations.load(
                Path(entry["path"]), ConversationData(**tuned.config.get("data", {}))
            ).train
    return ()


def _said(row: Conversation) -> Document:
    return Document(row.id, "\n".join([row.text, *(one["content"] for one in row.messages)]), "conversations")


def quantization(models: Mapping[str, Artifact]) -> list[str]:
    """A label for figures of models whose weights came from a quantized file."""
    notes = []
    for who, one in models.items():
        kind = one.record.get("source_quantization") or one.summary.get("source_quantization")
        if kind:
            if str(kind).startswith("int4"):
                file = f"4-bit weights ({kind})"
            else:
                file = f"a 4-bit file ({kind})" if "4" in str(kind) else f"a quantized file ({kind})"
            notes.append(f"The {who}'s weights came from {file}: all figures are about those weights.")
    return notes


def tree(kind: str, path: Path, inputs: Mapping[str, Artifact | RawInput]) -> lineage.Node:
    """The lineage of an artifact that is still a draft, as `core.lineage.tree` gives it for finished ones."""
    nodes = {
        name: lineage.tree(one) if isinstance(one, Artifact) else _raw(one)
        for name, one in sorted(inputs.items())
    }
    head = {"kind": kind, "name": lineage.name_of(path), "path": str(path), "id": "", "line": ""}
    return {**head, "state": "here", "inputs": nodes}


def told(
    kind: str,
    path: Path,
    inputs: Mapping[str, Artifact | RawInput],
    settings: Mapping[str, Any],
    seconds: float,
) -> Context:
    """What the report of an exam in a draft tells besides its results; the exam itself took `seconds` so far."""
    model, parent, corpus = inputs["model"], inputs.get("parent"), inputs.get("corpus")
    learned = []
    if isinstance(model, Artifact) and isinstance(parent, Artifact):
        learned = training(model, parent)
    curation = None
    if isinstance(corpus, Artifact) and "report.json" in corpus.record["files"]:
        curation = read_json(corpus.file("report.json"), limit=64 << 20, what="the report of a corpus")
    given = ancestors(one for one in inputs.values() if isinstance(one, Artifact))
    return Context(
        model=lineage.name_of(model.path),
        parent=lineage.name_of(parent.path) if isinstance(parent, Artifact) else "",
        training=learned,
        curation=curation,
        lineage=tree(kind, path, inputs),
        costs=[*map(costs.of, given), costs.Cost(stage="evaluate", name="this exam", seconds=seconds)],
        settings=settings,
        environment=provenance.environment(),
    )


def _raw(one: RawInput) -> lineage.Node:
    line = f"{len(one.files)} file{'s' if len(one.files) != 1 else ''}, {size_text(one.bytes)}"
    head = {"kind": "raw", "name": str(one.path), "path": str(one.path), "id": one.id, "line": line}
    return {**head, "state": "here", "inputs": {}}
