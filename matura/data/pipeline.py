"""The phases of curation, each over part files in worker processes; what is finished is not done again.

read and filter -> find duplicates -> (cut repeats) -> clean -> choose -> write. Only light rows (`parts.Row`) of all
documents are ever in memory at once.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matura.core.corpus_settings import Engine, Fuzzy, Mixture, Substring
from matura.core.files import hash_file
from matura.core.metrics import progress
from matura.core.records import Document, read_documents, write_documents
from matura.data import selection, tally
from matura.data.engine import run_parts
from matura.data.parts import PartFiles, Row, Sampler, merged, read_dropped, read_rows, write_dropped
from matura.data.split import held_out
from matura.data.steps import Dropped, Step
from matura.data.work import shown

if TYPE_CHECKING:
    from matura.data.dedup import Pair

Steps = Sequence[tuple[str, dict[str, Any]]]
"""Factories (`package.module:callable`) and their settings, in the order in which they are applied."""

WORK = "matura.data.work:work"


@dataclass(frozen=True)
class Phase:
    """A finished phase: its parts and their markers, in order."""

    parts: tuple[PartFiles, ...]
    markers: tuple[dict[str, Any], ...]

    @property
    def documents(self) -> list[Path]:
        """The part files that hold documents."""
        both = zip(self.parts, self.markers, strict=True)
        return [part.path(".parquet") for part, marker in both if marker["documents"]]

    @property
    def count(self) -> int:
        """Documents in all parts."""
        return sum(marker["documents"] for marker in self.markers)

    @property
    def steps(self) -> list[tally.StepTally]:
        """What every step did."""
        return tally.merge(marker["steps"] for marker in self.markers)

    def dropped(self) -> list[Dropped]:
        """Examples of what was dropped, the same ones however the corpus was cut."""
        return samples(part.path(".dropped.parquet") for part in self.parts)

    def rows(self) -> list[Row]:
        """The light index of all documents (a phase that made one)."""
        return [row for part in self.parts for row in read_rows(part.path(".index.parquet"))]


@dataclass(frozen=True)
class Workshop:
    """Where phases run: a folder for their part files, which outlives a kill, and the engine. With `balance`, mentions
    of groups of people are counted before and after every step; `names` finds names in what is shown of documents."""

    folder: Path
    engine: Engine
    balance: bool = False
    names: str | None = None

    def run(self, name: str, inputs: Sequence[dict[str, Any]], steps: Steps, *, index: bool = False) -> Phase:
        """Do a phase: each input is {"task": ...} or {"input": path}. Parts with a marker are taken as they are."""
        files = tuple(PartFiles(self.folder / name, number) for number in range(len(inputs)))
        shared = {
            "folder": str(self.folder / name),
            "steps": [list(step) for step in steps],
            "index": index,
            "balance": self.balance,
            "names": self.names,
        }
        markers = [part.finished() for part in files]
        open_parts = [i for i, marker in enumerate(markers) if marker is None]
        with progress(name, len(files), unit="parts", start=len(files) - len(open_parts)) as bar:
            done = run_parts(
                WORK,
                [{**shared, **inputs[i], "number": i} for i in open_parts],
                self.engine,
                advance=lambda marker: bar.advance(1, documents=marker["documents"]),
            )
        for i, marker in zip(open_parts, done, strict=True):
            markers[i] = marker
        return Phase(files, tuple(marker for marker in markers if marker is not None))

    def alone(self) -> Workshop:
        """The same, in this process alone: for steps that workers should not make, such as one that holds a model."""
        return replace(self, engine=self.engine.model_copy(update={"kind": "native", "workers": 1}))

    def duplicates(
        self, phase: Phase, *, exact: bool, fuzzy: Fuzzy | None, against: Path | None, index: Path | None
    ) -> Repeated:
        """Documents that repeat others. What was found before is read again."""
        from matura.data import dedup

        marker = PartFiles(self.duplicates_folder, 0)
        listed, pairs = marker.path(".dropped.parquet"), marker.path(".pairs.parquet")
        found = marker.finished()
        if found is None:
            marker.folder.mkdir(parents=True, exist_ok=True)
            began = time.perf_counter()
            with progress("duplicates", phase.count, unit="documents") as bar:
                made = dedup.find(
                    phase.documents,
                    exact=exact,
                    fuzzy=fuzzy,
                    against=against,
                    index=index,
                    folder=marker.folder / "signatures",
                    engine=self.engine,
                    advance=lambda done: bar.advance(done["documents"]),
                )
            names = _sources(phase.documents, {pair.kept for pair in made.drop.values()})
            rows = [
                _duplicate(id, pair, names.get(pair.kept, pair.kept))
                for id, pair in sorted(made.drop.items())
            ]
            write_dropped(listed, rows)
            dedup.write_pairs(made, pairs)
            clusters = {str(size): n for size, n in sorted(made.clusters.items())}
            found = marker.finish({"clusters": clusters, "seconds": time.perf_counter() - began})
        sizes = {int(size): count for size, count in found["clusters"].items()}
        return Repeated(listed, pairs, sizes, found["seconds"])

    @property
    def duplicates_folder(self) -> Path:
        """Where `duplicates` works."""
        return self.folder / "duplicates"

    def write_index(self, kept: Container[str], destination: Path, index: Path | None) -> None:
        """The signatures of the corpus, for later ones that add to it."""
        from matura.data import dedup

        dedup.write_index(self.duplicates_folder / "signatures", destination, _Others(kept), index=index)

    def without_repeats(self, phase: Phase, settings: Substring, least: int) -> tuple[list[Path], Phase]:
        """Part files in which long repeated spans are cut, and what that did, as a phase."""
        from matura.data import dedup

        folder, files, began = self.folder / "repeats", phase.documents, time.perf_counter()
        with progress("repeats", len(files), unit="parts") as bar:
            results = dedup.cut_repeats(
                files,
                folder,
                settings,
                min_characters=least,
                folder=self.folder / "spans",
                engine=self.engine,
                advance=lambda result: bar.advance(1),
            )
        done = PartFiles(self.folder / "repeated", 0)
        done.folder.mkdir(parents=True, exist_ok=True)
        dropped = [Dropped(**one) for result in results for one in result["dropped"]]
        sampler = Sampler()
        sampler.add(dropped)
        step = {
            **tally.empty("substring"),
            "documents_in": sum(result["documents"] for result in results),
            "documents_out": sum(result["kept"] for result in results),
            "dropped": dict(Counter(one.reason for one in dropped)),
            "counts": {key: sum(result[key] for result in results) for key in ("cut", "spans", "characters")},
        }
        step |= {
            "bytes_in": _text_bytes(files),
            "bytes_out": _text_bytes([folder / path.name for path in files]),
            "seconds": round(time.perf_counter() - began, 3),
        }
        write_dropped(done.path(".dropped.parquet"), shown(sampler.rows(), self.names))
        marker = done.finish({"documents": 0, "steps": [step]})
        return [folder / path.name for path in files], Phase((done,), (marker,))


@dataclass(frozen=True)
class Repeated:
    """`listed` is for `selection.listed`, `pairs` holds (dropped, kept, jaccard, kind), `clusters` counts by size;
    finding them took `seconds`."""

    listed: Path
    pairs: Path
    clusters: dict[int, int]
    seconds: float = 0.0


@dataclass(frozen=True)
class _Others:
    """All ids but these."""

    ids: Container[str]

    def __contains__(self, id: object) -> bool:
        return id not in self.ids


def _text_bytes(files: Iterable[Path]) -> int:
    return sum(sum(tally.sizes([document])) for path in files for document in read_documents(path))


def _duplicate(id: str, pair: Pair, kept: str) -> Dropped:
    reason = "duplicate" if pair.kind == "exact" else "near duplicate"
    near = "" if pair.kind == "exact" else f", Jaccard index {pair.jaccard:.2f}"
    there = " in the reference corpus" if pair.reference else ""
    return Dropped(id, "", "duplicates", reason, f"of {kept}{there}{near}")


def _sources(files: Iterable[Path], wanted: set[str]) -> dict[str, str]:
    """The names of some documents."""
    import pyarrow.parquet

    names: dict[str, str] = {}
    for path in files if wanted else ():
        table = pyarrow.parquet.read_table(path, columns=["id", "source"])
        both = zip(*(table[name].to_pylist() for name in ("id", "source")), strict=True)
        names |= {id: source for id, source in both if id in wanted}
    return names


def samples(files: Iterable[Path]) -> list[Dropped]:
    """The examples of many parts, bounded again."""
    sampler = Sampler()
    for path in files:
        sampler.add(read_dropped(path))
    return sampler.rows()


@dataclass(frozen=True)
class Chosen:
    """What becomes of the documents that passed all steps."""

    train: list[Row]
    heldout: list[Row]
    over: list[Row]

    @property
    def ids(self) -> set[str]:
        """Of the documents in the corpus, on both sides."""
        return {row.id for row in (*self.train, *self.heldout)}


def choose(
    rows: Iterable[Row], *, heldout: int, seed: int, mixture: Mixture, weights: dict[str, float]
) -> Chosen:
    """Divide the corpus by the weights of its sources, then hold some out. Raises as `split.held_out`."""
    unique = {row.id: row for row in rows}
    out: set[str] = set()
    if mixture.total is not None:
        out = selection.mixture(unique.values(), weights, mixture.total, mixture.unit, seed)
    left = [row for row in unique.values() if row.id not in out]
    copies = held_out(((row.copy, row.rank, row.characters) for row in left), heldout, seed)
    train = [row for row in left if row.copy not in copies]
    return Chosen(
        train, [row for row in left if row.copy in copies], [row for row in unique.values() if row.id in out]
    )


def over_share(chosen: Chosen) -> tuple[tally.StepTally, list[Dropped]]:
    """The mixture as a step like the others."""
    kept, over = [*chosen.train, *chosen.heldout], chosen.over
    step = {
        **tally.empty("mixture"),
        "documents_in": len(kept) + len(over),
        "documents_out": len(kept),
        "bytes_in": sum(row.bytes for row in (*kept, *over)),
        "bytes_out": sum(row.bytes for row in kept),
        "dropped": {"over its share": len(over)} if over else {},
    }
    sampler = Sampler()
    sampler.add(Dropped(row.id, row.source, "mixture", "over its share", row.origin) for row in over)
    return step, sampler.rows()


def write(
    workshop: Workshop, phase: Phase, chosen: Chosen, folder: Path, canary: dict[str, Any] | None = None
) -> None:
    """train.parquet and heldout.parquet, in the order of sources and ids, whatever the parts were.

    Secrets are planted here, for only now it is known what is trained on; canaries.json tells which.

    Each is written once: a marker beside the part files holds their hashes, so that a rerun knows a whole file.
    """
    for name, rows in (("train", chosen.train), ("heldout", chosen.heldout)):
        target, marker = folder / f"{name}.parquet", PartFiles(workshop.folder / name, 0)
        known = marker.finished()
        if known and target.exists() and hash_file(target) == known["sha256"]:
            continue
        marker.folder.mkdir(parents=True, exist_ok=True)
        ids = {row.id for row in rows}
        plant = _planter(ids, canary, folder) if canary and name == "train" else None
        _write(target, phase.documents, ids, marker.folder, plant)
        marker.finish({"sha256": hash_file(target)})


def _planter(ids: set[str], settings: dict[str, Any], folder: Path) -> Step:
    from matura.data import canary

    canary.save(folder, canary.plan(ids, **settings))
    return canary.make(ids=sorted(ids), **settings)


def _write(target: Path, files: list[Path], ids: set[str], between: Path, plant: Step | None = None) -> None:
    def wanted() -> Iterable[Document]:
        for document in merged(files, between):
            if document.id in ids:
                yield replace(document, meta={key: value for key, value in document.meta.items() if value})

    write_documents(target, wanted() if plant is None else _planted(wanted(), plant))


def _planted(documents: Iterable[Document], step: Step) -> Iterable[Document]:
    """The documents as a step that drops none leaves them."""
    for document in documents:
        yield from step([document]).kept


def shares(rows: Iterable[Row]) -> dict[str, dict[str, dict[str, int]]]:
    """Documents, bytes and tokens of the corpus by source, language and licence; "" is what has none, beside others."""
    totals: dict[str, dict[str, Counter[str]]] = {"sources": {}, "languages": {}, "licenses": {}}
    for row in rows:
        for group, key in (("sources", row.origin), ("languages", row.language), ("licenses", row.license)):
            totals[group].setdefault(key, Counter()).update(documents=1, bytes=row.bytes)
    for group, kinds in totals.items():
        if group != "sources" and set(kinds) == {""}:
            kinds.clear()
        for counts in kinds.values():
            counts["tokens"] = counts["bytes"] // tally.BYTES_PER_TOKEN
    plain: dict[str, dict[str, dict[str, int]]] = json.loads(json.dumps(totals, sort_keys=True))
    return plain
