"""Near duplicates at known Jaccard: how many are found, and how many drops are wrong.

Copies of documents are edited word by word until their index, computed here from sets of word tuples, is at a target
spread evenly over 0.8..1. Beside them lie decoys (pairs at 0.4..0.7) and chains in which each document is
near the one before while the ends are far apart: these would all be dropped for one by joining what hangs together.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.options import Options
from matura.core.corpus_settings import Engine, Fuzzy
from matura.core.records import Document, write_documents
from matura.data import dedup
from matura.data.dedup.shingles import words

BINS = 20
RECALL, WRONG = 0.98, 0.03
CHAIN = 6


def run(options: Options) -> bool:
    """Make, find, compare, print and save; False below the recall or above the share of wrong drops."""
    settings = Fuzzy(use="on")
    source = random.Random(options.seed)
    texts, pairs = _made(options, source, settings.words)
    with tempfile.TemporaryDirectory(prefix="dedup-recall-") as folder:
        part = Path(folder, "00000.parquet")
        write_documents(part, (Document(name, text, "made") for name, text in texts.items()))
        found = dedup.find(
            [part], exact=True, fuzzy=settings, folder=Path(folder, "work"), engine=Engine(workers=1)
        )
    rows = []
    for number in range(BINS):
        here = [pair for pair in pairs if int((pair[2] - 0.8) / 0.2 * BINS) == number]
        hits = sum(first in found.drop or second in found.drop for first, second, _ in here)
        rows.append(
            {"from": 0.8 + 0.2 * number / BINS, "pairs": len(here), "recall": hits / max(len(here), 1)}
        )
    recall = float(np.mean([row["recall"] for row in rows if row["pairs"]]))
    true = [_jaccard(texts[name], texts[pair.kept], settings.words) for name, pair in found.drop.items()]
    wrong = sum(index < 0.7 for index in true) / max(len(true), 1)
    off = max(
        (abs(index - pair.jaccard) for index, pair in zip(true, found.drop.values(), strict=True)),
        default=0.0,
    )
    record.table(["J from", "pairs", "recall"], [list(row.values()) for row in rows])
    good = recall >= RECALL and wrong < WRONG
    figures: dict[str, Any] = {
        "settings": settings.model_dump(),
        "recall": recall,
        "recall_of_all_pairs": sum(row["recall"] * row["pairs"] for row in rows) / len(pairs),
        "drops": len(true),
        "drops_below_0.7": wrong,
        "least_jaccard_of_a_drop": min(true, default=1.0),
        "largest_error_of_jaccard": off,
        "bins": rows,
        "clusters": {str(size): count for size, count in sorted(found.clusters.items())},
    }
    print(f"recall {recall:.4f} (least {RECALL}), drops below J 0.7: {wrong:.2%} of {len(true)}")
    record.save("dedup_recall", options, figures | {"good": good})
    return good


def _made(
    options: Options, source: random.Random, length: int
) -> tuple[dict[str, str], list[tuple[str, str, float]]]:
    """All texts by id, and the injected pairs at 0.8..1 with their index."""
    counted = Counter(word.decode() for word in words(options.read_text()[1]))
    vocabulary, weights = list(counted), list(counted.values())

    def fresh() -> str:
        return " ".join(source.choices(vocabulary, weights, k=source.randint(200, 700)))

    def edited(text: str, target: float) -> tuple[str, float]:
        listed, index = text.split(), 1.0
        original = _shingles(text, length)
        while index > target:
            # A change at the end costs one shingle, elsewhere up to five: fine steps for the highest targets.
            at = len(listed) if target > 0.97 else source.randrange(len(listed))
            listed[at : at + source.choice((0, 1, 1))] = source.choices(
                vocabulary, k=source.choice((0, 1, 1))
            )
            other = _shingles(" ".join(listed), length)
            index = len(original & other) / len(original | other)
        return " ".join(listed), index

    wanted = options.default(options.pairs, 6000, 200)
    texts: dict[str, str] = {}
    pairs: list[tuple[str, str, float]] = []
    for number in range(wanted):
        text = fresh()
        copy, index = edited(text, 0.8 + 0.2 * (number + 0.5) / wanted)
        if index >= 0.8 and index < 1:
            texts[f"{number}-a"], texts[f"{number}-b"] = text, copy
            pairs.append((f"{number}-a", f"{number}-b", index))
    for number in range(wanted // 10):
        texts[f"decoy-{number}-a"] = fresh()
        texts[f"decoy-{number}-b"], _ = edited(texts[f"decoy-{number}-a"], 0.4 + 0.3 * source.random())
    for number in range(wanted // 40):
        text = fresh()
        for link in range(CHAIN):
            texts[f"chain-{number}-{link}"] = text
            text, _ = edited(text, 0.87)
    return texts, pairs


def _shingles(text: str, length: int) -> set[tuple[str, ...]]:
    listed = text.split()
    return {tuple(listed[at : at + length]) for at in range(len(listed) - length + 1)}


def _jaccard(first: str, second: str, length: int) -> float:
    one, other = _shingles(first, length), _shingles(second, length)
    return len(one & other) / len(one | other)
