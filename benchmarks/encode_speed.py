"""`matura encode` beside the tokenizers library alone: MB of text in a second, on all cores.

The library encodes texts that lie in memory and throws the result away (`encode_batch`, and the faster
`encode_batch_fast` without offsets). Matura reads the same documents from Parquet and writes shards with their hashes;
starting its processes is in its time. The tokenizer is a byte-level BPE trained on the texts before.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.curation_texts import sample
from benchmarks.record import save, table

if TYPE_CHECKING:
    from benchmarks.options import Options
    from matura.core.artifact import Artifact

GOAL = 0.8  # of the library's own speed
VOCABULARY = 16_384
DOCUMENTS, TRAINED = 6_000, 1_000


def run(options: Options) -> bool:
    """Interleaved runs, medians. False when Matura reaches less than `GOAL` of `encode_batch`."""
    import tokenizers

    from matura.data import shards

    os.environ.pop("TOKENIZERS_PARALLELISM", None)
    texts = sample(300 if options.quick else DOCUMENTS, options.seed, options.text)
    size = sum(len(text.encode()) for text in texts) / 1e6
    print(f"{len(texts)} documents, {size:.1f} MB", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        corpus, trained = _inputs(Path(folder), texts)
        backend = tokenizers.Tokenizer.from_file(str(trained.file("tokenizer.json")))
        backend.encode_special_tokens = True
        made: list[Artifact] = []
        sides: dict[str, Callable[[], Any]] = {
            "encode_batch": lambda: backend.encode_batch(texts, add_special_tokens=False),
            "encode_batch_fast": lambda: backend.encode_batch_fast(texts, add_special_tokens=False),
            "matura": lambda: made.append(_encode(Path(folder) / f"out{len(made)}", corpus, trained)),
        }
        backend.encode_batch(texts[:200])
        times: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
        for _ in range(options.default(options.pairs, 3, 1)):
            for side, work in sides.items():
                times[side].append(_timed(work))
        tokens = shards.load(made[0].path).totals("train")["tokens"]
        found = sum(len(one.ids) for one in backend.encode_batch_fast(texts, add_special_tokens=False))
    wall = {side: statistics.median(one[0] for one in each) for side, each in times.items()}
    cpu = {side: statistics.median(one[1] for one in each) for side, each in times.items()}
    ratio = wall["encode_batch"] / wall["matura"]
    table(
        ("", "s", "CPU s", "MB/s", "MB per CPU-second"),
        [[side, wall[side], cpu[side], size / wall[side], size / cpu[side]] for side in sides],
    )
    print(f"{ratio:.2f} of the library's speed; to be {GOAL}")
    figures = {
        "documents": len(texts),
        "mb": size,
        "vocabulary": VOCABULARY,
        "tokens": tokens,
        "same_tokens": tokens - len(texts) == found,
        "seconds": wall,
        "cpu_seconds": cpu,
        "of_encode_batch": ratio,
        "of_encode_batch_fast": wall["encode_batch_fast"] / wall["matura"],
        "cpu_of_encode_batch": cpu["encode_batch"] / cpu["matura"],
        "cpu_of_encode_batch_fast": cpu["encode_batch_fast"] / cpu["matura"],
        "load": os.getloadavg()[0],
        "goal": GOAL,
    }
    save("encode_speed", options, figures)
    return options.quick or (bool(figures["same_tokens"]) and ratio >= GOAL)


def _inputs(folder: Path, texts: list[str]) -> tuple[Artifact, Artifact]:
    """A corpus of the texts, and a tokenizer trained on some of them."""
    from benchmarks import staging
    from matura.core import artifact
    from matura.core.records import Document, write_documents
    from matura.stages import tokenizer

    made = []
    for name, some in (("corpus", texts), ("some", texts[:TRAINED])):
        draft = artifact.begin(folder / name, kind="corpus", stage="curate", version=1, config={}, inputs={})
        rows = [Document(f"{n}", text, "") for n, text in enumerate(some)]
        write_documents(draft.path / "train.parquet", rows)
        write_documents(draft.path / "heldout.parquet", rows[:10])
        made.append(draft.commit({}))
    settings = {"vocabulary": VOCABULARY, "compare": []}
    return made[0], staging.run(tokenizer, folder / "tokenizer", {"corpus": made[1]}, settings)


def _encode(folder: Path, corpus: Artifact, trained: Artifact) -> Artifact:
    from benchmarks import staging
    from matura.stages import encode

    return staging.run(encode, folder, {"corpus": corpus, "tokenizer": trained}, {})


def _timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds by the clock and of processors, those of ended child processes included."""
    start, before = time.perf_counter(), os.times()
    result = work()
    wall, after = time.perf_counter() - start, os.times()
    del result
    return wall, sum(after[:4]) - sum(before[:4])
