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


def size(documents: Sequence[Document]) -> int:
    """Bytes of the texts in UTF-8."""
    return sum(len(document.text.encode("utf-8", "surrogatepass")) for document in documents)


def note(step: StepTally, came: tuple[int, int], outcome: Outcome, seconds: float) -> int:
    """Add a batch; `came` is documents and bytes that went in. Returns the bytes that went on."""
    left = size(outcome.kept)
    step["documents_in"] += came[0]
    step["bytes_in"] += came[1]
    step["documents_out"] += len(outcome.kept)
    step["bytes_out"] += left
    step["seconds"] += seconds
    _add(step["dropped"], Counter(one.reason for one in outcome.dropped))
    _add(step["counts"], outcome.counts)
    for measure, values in outcome.measures.items():
        _add(step["measures"].setdefault(measure, {}), _histogram(values))
    return left


def note_mentions(step: StepTally, way: str, groups: Counter[str]) -> None:
    """Add how often groups of people are mentioned in what went in, or out; `way` is "in" or "out"."""
    _add(step["mentions"], {f"{way}.{group}": count for group, count in groups.items()})


def _histogram(values: Sequence[float]) -> dict[str, int]:
    """Bin number (as JSON wants its keys) to count."""
    import numpy

    bins = numpy.searchsorted(EDGES, numpy.asarray(values, dtype=float), side="right") - 1
    return {
        str(max(0, int(one))): int(count)
        for one, count in zip(*numpy.unique(bins, return_counts=True), strict=True)
    }


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
                _add(sums["measures"].setdefault(measure, {}), bins)
    return [_finished(step) for step in total.values()]


def _finished(step: StepTally) -> StepTally:
    """Tokens added, histograms as edges and counts up to the last bin that holds something."""
    measures = {}
    for measure, bins in sorted(step["measures"].items()):
        last = max(map(int, bins))
        edges = [*EDGES, EDGES[-1] * 10][: last + 2]
        measures[measure] = {"edges": edges, "counts": [bins.get(str(i), 0) for i in range(last + 1)]}
    tokens = {f"tokens_{way}": step[f"bytes_{way}"] // BYTES_PER_TOKEN for way in ("in", "out")}
    ordered = {key: dict(sorted(step[key].items())) for key in ("dropped", "counts", "mentions")}
    return {**step, **tokens, **ordered, "seconds": round(step["seconds"], 3), "measures": measures}
