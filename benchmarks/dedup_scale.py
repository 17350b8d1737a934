"""Exact and fuzzy deduplication of 10 thousand to a million short documents: time by document and peak memory.

The documents are made by a seeded program from the words of real text with their real frequencies, about 1 KB each;
one in ten is a near copy (two words changed) and one in twenty a copy in capitals, at every size. Each size runs in a
process of its own with one worker, after a small run that loads the libraries; its peak memory is that of the process,
mapped files included.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.options import Options
from matura.core.corpus_settings import Engine, Fuzzy
from matura.core.picture import svg
from matura.core.records import Document, write_documents
from matura.data import dedup
from matura.data.dedup.shingles import words

SIZES = (10_000, 100_000, 1_000_000)
QUICK_SIZES = (2_000, 10_000)
PART = 20_000
BLOCK = 1_000
WORDS = 165
NEAR, SAME = 100, 50  # copies among the documents of a block
MEMORY = 4 << 30
RATIO = 1.3


def run(options: Options) -> bool:
    """Measure every size, print and save; False when memory or the growth of the cost is above its limit."""
    sizes = QUICK_SIZES if options.quick else SIZES
    rows = [_measured(size, options) for size in sizes]
    costs = [row["cpu_us_per_document"] for row in rows]
    ratio, peak = max(costs[1:]) / costs[0], max(row["peak_bytes"] for row in rows)
    record.table(
        ["documents", "MB", "wall s", "CPU s", "CPU us/document", "peak MiB", "dropped %", "found %"],
        [
            [
                row["documents"],
                row["text_bytes"] / 1e6,
                row["wall_s"],
                row["cpu_s"],
                row["cpu_us_per_document"],
                row["peak_bytes"] >> 20,
                100 * row["dropped"] / row["documents"],
                100 * row["found"],
            ]
            for row in rows
        ],
    )
    good = peak < MEMORY and ratio <= RATIO
    print(
        f"cost by document against the smallest size: {ratio:.2f} (limit {RATIO}); {'good' if good else 'NOT good'}"
    )
    if not options.quick:
        (record.RESULTS / "dedup_scale.svg").write_text(picture(rows), encoding="utf-8")
    record.save("dedup_scale", options, {"rows": rows, "ratio": ratio, "peak_bytes": peak, "good": good})
    return good


def picture(rows: list[dict[str, Any]]) -> str:
    """Time of a document by the number of documents, as SVG: flat is linear."""

    def draw(axes: Any) -> None:
        sizes = [row["documents"] for row in rows]
        axes.plot(sizes, [row["cpu_us_per_document"] for row in rows], "o-", color="#3b82c4")
        axes.set_xscale("log")
        axes.set_ylim(0, None)
        axes.set_xlabel("documents of about 1 KB")
        axes.set_ylabel("CPU-microseconds a document")

    drawn = svg(2.4, draw, "Cost of deduplication by document")
    return drawn.replace("currentColor", "#5d6878")


def _measured(size: int, options: Options) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="dedup-scale-") as folder:
        _, text = options.read_text()
        parts = Path(folder, "parts")
        parts.mkdir()
        copies, made = 0, 0
        documents = corpus(text, size, options.seed)
        for number in range(0, size, PART):
            batch = [next(documents) for _ in range(min(PART, size - number))]
            write_documents(parts / f"{number // PART:05d}.parquet", batch)
            copies += sum(document.source == "copy" for document in batch)
            made += sum(len(document.text) for document in batch)
        command = [sys.executable, "-m", "benchmarks.dedup_scale", folder]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        found = json.loads(answer.stdout.splitlines()[-1])
    row = {"documents": size, "text_bytes": made, **found, "found": found["dropped"] / copies}
    row["cpu_us_per_document"] = 1e6 * row["cpu_s"] / size
    print(row, flush=True)
    return row


def corpus(text: str, size: int, seed: int) -> Iterator[Document]:
    """Documents in blocks, each with its copies behind the originals."""
    random = np.random.default_rng(seed)
    counted = Counter(word.decode() for word in words(text))
    vocabulary = np.array(sorted(counted))
    edges = np.cumsum([counted[word] for word in vocabulary.tolist()])
    for start in range(0, size, BLOCK):
        count = min(BLOCK, size - start)
        drawn = np.searchsorted(edges, random.integers(0, edges[-1], (count, WORDS)), side="right")
        originals = count - (NEAR + SAME) * count // BLOCK
        for row in range(originals, count):
            drawn[row] = drawn[random.integers(originals)]
            if row < originals + NEAR * count // BLOCK:
                drawn[row, random.integers(0, WORDS, 2)] = random.integers(0, len(vocabulary), 2)
        for row in range(count):
            written = " ".join(vocabulary[drawn[row]].tolist())
            if row >= originals + NEAR * count // BLOCK:
                written = written.upper()
            yield Document(f"{start + row:09d}", written, "original" if row < originals else "copy")


def _work(folder: Path) -> dict[str, Any]:
    settings, engine = Fuzzy(use="on"), Engine(workers=1)
    warm = folder / "warm.parquet"
    write_documents(
        warm, [Document(str(i), f"some words to load what is needed {i}", "warm") for i in range(100)]
    )
    dedup.find([warm], exact=True, fuzzy=settings, folder=folder / "warm", engine=engine)
    cpu, wall = time.process_time(), time.perf_counter()
    parts = sorted((folder / "parts").glob("*.parquet"))
    found = dedup.find(parts, exact=True, fuzzy=settings, folder=folder / "work", engine=engine)
    return {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "dropped": len(found.drop),
        "kinds": dict(Counter(pair.kind for pair in found.drop.values())),
        "clusters": {str(key): value for key, value in sorted(found.clusters.items())},
    }


if __name__ == "__main__":
    print(json.dumps(_work(Path(sys.argv[1]))))
