"""What the steps did to a part: documents, bytes, reasons, counts and histograms, as plain values that add up.

The bins of a histogram are the same for every measure and every part, so the sums do not depend on how a corpus
was cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from matura.core.records import Document
from matura.data.steps import Outcome

EDGES: tuple[float, ...] = (
    *(i / 100 for i in range(101)),
    *(m * 10.0**e for e in range(6) for m in (1.5, 2, 3, 4, 5, 6, 8, 10)),
)
"""Hundredths up to 1, for shares and scores; then eight bins for each power of ten, for counts. The last is open."""

BYTES_PER_TOKEN = 4
"""A rough figure for English and the tokenizers in use: tokens are estimated, for no tokenizer is chosen yet."""

StepTally = dict[str, Any]


def empty(name: str) -> StepTally:
    """A step that saw nothing yet."""
    sizes = dict.fromkeys(("documents_in", "documents_out", "bytes_in", "bytes_out"), 0)
    return {
        "name": name,
        **sizes,
        "seconds": 0.0,
        "dropped": {},
        "counts": {},
        "mentions": {},
        "measures": {},
    }


def sizes(documents: Sequence[Document]) -> list[int]:
    """Bytes of each text in UTF-8."""
    return [len(document.text.encode("utf-8", "surrogatepass")) for document in documents]


def note(step: StepTally, came: Sequence[int], outcome: Outcome, seconds: float) -> list[int]:
    """Add a batch; `came` has the bytes of every document that went in. Returns those of the ones that went on."""
    left = sizes(outcome.kept)
    step["documents_in"] += len(came)
    step["bytes_in"] += sum(came)
    step["documents_out"] += len(left)
    step["bytes_out"] += sum(left)
    step["seconds"] += seconds
    _add(step["dropped"], Counter(one.reason for one in outcome.dropped))
    _add(step["counts"], outcome.counts)
    for measure, values in outcome.measures.items():
        bins = step["measures"].setdefault(measure, {"counts": {}, "bytes": {}})
        for key, found in _histogram(values, came).items():
            _add(bins[key], found)
    return left


def note_mentions(step: StepTally, way: str, groups: Counter[str]) -> None:
    """Add how often groups of people are mentioned in what went in, or out; `way` is "in" or "out"."""
    _add(step["mentions"], {f"{way}.{group}": count for group, count in groups.items()})


def _histogram(values: Sequence[float], sizes: Sequence[int]) -> dict[str, dict[str, int]]:
    """Bin number (as JSON wants its keys) to documents, and to their bytes. Documents without the measure are NaN."""
    import numpy

    found, weights = numpy.asarray(values, dtype=float), numpy.asarray(sizes, dtype=float)
    there = ~numpy.isnan(found)  # raises below unless there is one value for every document
    bins = (numpy.searchsorted(EDGES, found, side="right") - 1).clip(0)[there]
    held = numpy.flatnonzero(numpy.bincount(bins))
    # Sums of whole numbers below 2^53, so they are exact in any order.
    both = {"counts": numpy.bincount(bins), "bytes": numpy.bincount(bins, weights[there])}
    return {key: {str(one): int(sums[one]) for one in held} for key, sums in both.items()}


def _add(total: dict[str, int], more: Any) -> None:
    for key, count in more.items():
        total[key] = total.get(key, 0) + count


def merge(parts: Iterable[Sequence[StepTally]]) -> list[StepTally]:
    """The sums over all parts, step by step in the order of the first part; keys sorted."""
    total: dict[str, StepTally] = {}
    for steps in parts:
        for step in steps:
            sums = total.setdefault(step["name"], empty(step["name"]))
            for key in ("documents_in", "documents_out", "bytes_in", "bytes_out", "seconds"):
                sums[key] += step[key]
            for key in ("dropped", "counts", "mentions"):
                _add(sums[key], step[key])
            for measure, bins in step["measures"].items():
                there = sums["measures"].setdefault(measure, {"counts": {}, "bytes": {}})
                for key in there:
                    _add(there[key], bins[key])
    return [_finished(step) for step in total.values()]


def _finished(step: StepTally) -> StepTally:
    """Tokens added, histograms as edges and counts up to the last bin that holds something."""
    measures = {}
    for measure, bins in sorted(step["measures"].items()):
        last = max(map(int, bins["counts"]), default=0)
        edges = [*EDGES, EDGES[-1] * 10][: last + 2]
        filled = {key: [sums.get(str(i), 0) for i in range(last + 1)] for key, sums in bins.items()}
        measures[measure] = {"edges": edges, **filled}
    tokens = {f"tokens_{way}": step[f"bytes_{way}"] // BYTES_PER_TOKEN for way in ("in", "out")}
    ordered = {key: dict(sorted(step[key].items())) for key in ("dropped", "counts", "mentions")}
    return {**step, **tokens, **ordered, "seconds": round(step["seconds"], 3), "measures": measures}
