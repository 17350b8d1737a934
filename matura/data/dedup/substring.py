"""Long spans that occur again are cut out, except for the first (Lee et al., arXiv:2107.06499).

A run of N words is repeated if the same run occurs earlier: in a document with a smaller id, or before in the same one.
The hashes of all runs would be as many as there are words, so the search has two rounds. Winnowing (Schleimer et al.
2003) picks the smallest hash of runs of N / 2 words in every window of N words: two equal runs of N words pick the same
one. Only runs around a pick that occurs twice are hashed in full, so memory grows with what is repeated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matura.core.corpus_settings import Engine, Substring
from matura.core.files import atomic_write, write_json
from matura.core.records import Document, read_documents, write_documents
from matura.data.dedup.shingles import WORD, Counts, Hashes, Short, runs, within, word_hashes, words_in_place
from matura.data.dedup.signatures import batches
from matura.data.engine import run_parts
from matura.data.steps import drop

AT_ONCE = 1 << 23
"""Hashes that are sorted at a time."""
RUN = np.dtype([("hash", "<u8"), ("row", "<i8"), ("at", "<i8")])
CUT = np.dtype([("row", "<i8"), ("start", "<i8"), ("end", "<i8")])
_WHERE = "matura.data.dedup.substring"

Table = NDArray[Any]


def cut_repeats(
    parts: Sequence[Path],
    out_folder: Path,
    settings: Substring,
    *,
    min_characters: int = 0,
    folder: Path,
    engine: Engine,
    advance: Callable[[dict[str, Any]], None] = lambda result: None,
) -> list[dict[str, Any]]:
    """Write each part to `out_folder` under its own name without spans of `settings.words` words that came before.

    The first occurrence, by id and then by place, stays. Documents whose text was cut to less than `min_characters`
    are dropped. Beside each part: `<stem>.spans.parquet` (id, start, end: characters cut) and, written last,
    `<stem>.json`, which is also what is returned for each part: {"documents", "kept", "cut" (documents), "spans",
    "characters" (cut), "dropped": [steps.Dropped as mappings]}. `folder` takes the working files; `advance` hears the
    result of each part.
    """
    folder.mkdir(parents=True, exist_ok=True)
    out_folder.mkdir(parents=True, exist_ok=True)
    tasks = [
        {
            "documents": str(path),
            "stem": str(folder / f"{number:05d}"),
            "picks": str(folder / "picks.repeated"),
            "words": settings.words,
            "out": str(out_folder / path.name),
            "min_characters": min_characters,
        }
        for number, path in enumerate(parts)
    ]
    run_parts(f"{_WHERE}:pick", tasks, engine)
    stems = [task["stem"] for task in tasks]
    _store(folder / "picks.repeated", _repeated([_load(f"{stem}.picks", "<u8") for stem in stems]))
    run_parts(f"{_WHERE}:around", tasks, engine)
    cuts = _later([_load(f"{stem}.runs", RUN) for stem in stems], _order(parts), settings.words)
    for stem, part_cuts in zip(stems, cuts, strict=True):
        _store(Path(f"{stem}.cuts"), part_cuts)
    return run_parts(f"{_WHERE}:rewrite", tasks, engine, advance=advance)


def pick(task: dict[str, Any]) -> dict[str, Any]:
    """First round, in a worker: word hashes of a part, and the runs that winnowing picks."""
    stem, length = task["stem"], task["words"]
    if Path(f"{stem}.words").exists():  # written last
        return {}
    counts, picks = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    with atomic_write(f"{stem}.words") as temporary:
        with open(temporary, "wb") as file:
            for batch in batches(read_documents(task["documents"])):
                hashes, sizes = word_hashes([words_in_place(document.text) for document in batch])
                hashes.astype("<u4").tofile(file)
                counts.append(sizes)
                picks.append(winnow(hashes, sizes, length)[1])
        _store(Path(f"{stem}.counts"), np.concatenate(counts))
        _store(Path(f"{stem}.picks"), np.concatenate(picks))
    return {}


def winnow(hashes: Short, counts: Counts, length: int) -> tuple[Counts, Hashes]:
    """Places and hashes of picked runs of `length` // 2 words, at least one in every `length` words of a text."""
    half = length // 2
    grams = runs(hashes, half)
    window = length - half + 1
    if len(grams) < window:
        return np.empty(0, np.int64), np.empty(0, np.uint64)
    smallest = _sliding(grams, window, np.minimum)
    smallest[~within(counts, length)] = 0  # windows across the end of a text pick nothing
    edge = np.zeros(window - 1, np.uint64)
    # A run is picked if it is the smallest of a window; no window that it is in has a larger minimum.
    best = _sliding(np.concatenate([edge, smallest, edge]), window, np.maximum)
    places = np.flatnonzero(best == grams)
    return places, grams[places]


def _sliding(values: Hashes, width: int, reduce: Callable[[Hashes, Hashes], Hashes]) -> Hashes:
    """The smallest or largest of every `width` values in a row, by windows that double."""
    done = 1
    while done < width:
        step = min(done, width - done)
        values = reduce(values[:-step], values[step:])
        done += step
    return values


def around(task: dict[str, Any]) -> dict[str, Any]:
    """Second round, in a worker: the full runs that hold a pick which occurs twice."""
    stem, length = task["stem"], task["words"]
    known = np.asarray(_load(task["picks"], "<u8"))
    counts, words = np.asarray(_load(f"{stem}.counts", "<i8")), np.asarray(_load(f"{stem}.words", "<u4"))
    found = [np.empty(0, RUN)]
    ends = np.cumsum(counts)
    for low, high in _row_ranges(ends) if len(known) else []:
        start = int(ends[low - 1]) if low else 0
        hashes, sizes = words[start : int(ends[high - 1])], counts[low:high]
        places, picks = winnow(hashes, sizes, length)
        places = places[_among(picks, known)] if len(places) else places
        full, inside = runs(hashes, length), within(sizes, length)
        covered = np.zeros(len(full) + 1, np.int64)
        np.add.at(covered, np.maximum(places - (length - length // 2), 0), 1)
        np.add.at(covered, np.minimum(places + 1, len(full)), -1)
        at = np.flatnonzero((np.cumsum(covered[:-1]) > 0) & inside)
        row = np.searchsorted(ends[low:high], start + at, side="right")
        table = np.empty(len(at), RUN)
        table["hash"], table["row"] = full[at], low + row
        table["at"] = start + at - (ends - counts)[low + row]
        found.append(table)
    _store(Path(f"{stem}.runs"), np.concatenate(found))
    return {}


def _row_ranges(ends: Counts) -> Iterator[tuple[int, int]]:
    """Rows of about a million words together."""
    groups = np.flatnonzero(np.diff(ends // (1 << 20))) + 1
    edges = [0, *groups.tolist(), len(ends)]
    yield from ((low, high) for low, high in pairwise(edges) if low < high)


def rewrite(task: dict[str, Any]) -> dict[str, Any]:
    """Third round, in a worker: the part without its repeated spans."""
    out = Path(task["out"])
    marker = out.with_suffix(".json")
    if marker.exists():
        return dict(json.loads(marker.read_bytes()))
    cuts = np.asarray(_load(f"{task['stem']}.cuts", CUT))
    spans: list[tuple[str, int, int]] = []
    result: dict[str, Any] = {"documents": 0, "kept": 0, "cut": 0, "spans": 0, "characters": 0, "dropped": []}

    def kept() -> Iterator[Document]:
        for row, document in enumerate(read_documents(task["documents"])):
            result["documents"] += 1
            at, to = np.searchsorted(cuts["row"], [row, row + 1])
            if at == to:
                yield document
                continue
            ranges = _characters(document.text, cuts[at:to])
            spans.extend((document.id, start, end) for start, end in ranges)
            shorter = replace(document, text=_without(document.text, ranges))
            result["cut"] += 1
            if len(shorter.text) < max(task["min_characters"], 1):
                detail = f"{len(shorter.text)} of {len(document.text)} characters are left"
                result["dropped"].append(asdict(drop(document, "substring", "repeated", detail)))
            else:
                yield shorter

    result["kept"] = write_documents(out, kept())
    result["spans"] = len(spans)
    result["characters"] = sum(end - start for _, start, end in spans)
    _write_spans(out.with_suffix(".spans.parquet"), spans)
    write_json(marker, result)
    return result


def _characters(text: str, cuts: Table) -> list[tuple[int, int]]:
    """Ranges of words as ranges of characters: from the first word to the word after the last, none overlapping."""
    starts = [match.start() for match in WORD.finditer(text)] + [len(text)]
    merged: list[tuple[int, int]] = []
    for start, end in sorted(zip(cuts["start"].tolist(), cuts["end"].tolist(), strict=True)):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return [(starts[start], starts[end]) for start, end in merged]


def _without(text: str, ranges: Sequence[tuple[int, int]]) -> str:
    pieces, at = [], 0
    for start, end in ranges:
        pieces.append(text[at:start])
        at = end
    return "".join([*pieces, text[at:]]).strip()


def _repeated(picks: Sequence[Hashes]) -> Hashes:
    """The hashes that occur at least twice in all, sorted."""
    found = [np.empty(0, np.uint64)]
    for values in _buckets(picks, lambda each: each):
        values.sort()
        again = values[1:] == values[:-1]
        found.append(np.unique(values[1:][again]))
    return np.concatenate(found)


def _later(tables: Sequence[Table], order: Sequence[NDArray[np.int64]], length: int) -> list[Table]:
    """By part, the word ranges to cut: every run but the first of its hash, in the order of ids and places."""
    numbered = []
    for part, table in enumerate(tables):
        rows = np.empty(len(table), [*RUN.descr, ("rank", "<i8"), ("part", "<i8")])
        for name in RUN.names or ():
            rows[name] = table[name]
        rows["part"] = part
        rows["rank"] = order[part][table["row"]]
        numbered.append(rows)
    found: list[list[Table]] = [[np.empty(0, CUT)] for _ in tables]
    for rows in _buckets(numbered, lambda each: each["hash"]):
        rows = rows[np.lexsort((rows["at"], rows["rank"], rows["hash"]))]
        new = np.ones(len(rows), bool)
        new[1:] = rows["hash"][1:] != rows["hash"][:-1]
        first = rows[np.flatnonzero(new)][np.cumsum(new) - 1]
        start, end = rows["at"].copy(), rows["at"] + length
        own = rows["rank"] == first["rank"]  # a run that overlaps its first occurrence must leave it whole
        start[own] = np.maximum(start[own], first["at"][own] + length)
        for part in np.unique(rows["part"]).tolist():
            at = np.flatnonzero(~new & (rows["part"] == part) & (start < end))
            table = np.empty(len(at), CUT)
            table["row"], table["start"], table["end"] = rows["row"][at], start[at], end[at]
            found[part].append(table)
    joined = [np.concatenate(each) for each in found]
    return [each[np.argsort(each["row"], kind="stable")] for each in joined]


def _buckets(tables: Sequence[Table], hashes: Callable[[Table], Hashes]) -> Iterator[Table]:
    """All rows in memory-sized buckets by their hashes, lower hashes first."""
    total = sum(len(table) for table in tables)
    count = total // AT_ONCE + 1
    width = (1 << 64) // count + 1
    for bucket in range(count if total else 0):
        low, high = np.uint64(bucket * width), np.uint64(min((bucket + 1) * width, (1 << 64) - 1))
        last = bucket == count - 1
        chosen = []
        for table in tables:
            values = hashes(table)
            chosen.append(np.array(table[(values >= low) & ((values < high) | last)]))
        yield np.concatenate(chosen)


def _order(parts: Sequence[Path]) -> list[NDArray[np.int64]]:
    """By part, the place of each document among all ids."""
    import pyarrow
    import pyarrow.compute
    import pyarrow.parquet

    columns = [pyarrow.parquet.read_table(path, columns=["id"]).column("id") for path in parts]
    if not columns:
        return []
    ids = pyarrow.chunked_array([chunk for column in columns for chunk in column.chunks], pyarrow.string())
    places = np.empty(len(ids), np.int64)
    places[pyarrow.compute.sort_indices(ids).to_numpy()] = np.arange(len(ids))
    return np.split(places, np.cumsum([len(column) for column in columns])[:-1])


def _among(values: Hashes, known: Hashes) -> NDArray[np.bool_]:
    at = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return np.asarray(known[at] == values)


def _store(path: Path, values: Table) -> None:
    with atomic_write(path) as temporary:
        values.tofile(temporary)


def _load(path: str, dtype: Any) -> Table:
    return np.memmap(path, dtype, "r") if Path(path).stat().st_size else np.empty(0, dtype)


def _write_spans(path: Path, spans: Sequence[tuple[str, int, int]]) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = {
        "id": pyarrow.array([identity for identity, _, _ in spans], pyarrow.string()),
        "start": pyarrow.array([start for _, start, _ in spans], pyarrow.int64()),
        "end": pyarrow.array([end for _, _, end in spans], pyarrow.int64()),
    }
    with atomic_write(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.table(columns), temporary, compression="zstd")
