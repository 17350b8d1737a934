"""From what the phases counted to the funnel, the summary and the report."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from matura.core.errors import MaturaError
from matura.core.files import atomic_write, size_text, write_json
from matura.data import report, sources, tally
from matura.data.parts import Row, write_dropped
from matura.data.pipeline import Chosen, Phase, Repeated, over_share, shares
from matura.data.sources import Skipped
from matura.data.steps import Dropped
from matura.data.work import READ

LOGS = ("funnel.json", "report.json", "report.html", "README.md")
"""Files with timings, in which equal runs may differ, and the data card, which people fill in."""
SHOWN = 5  # examples of each reason in the report
LISTED = 200  # names of documents held out

DONE = {
    "mask": "masked",
    "report": "found and left in",
    "drop": "found",
    "pseudonymise": "replaced by made-up values",
}


def check_some_left(phase: Phase, place: Path) -> None:
    """Raise MaturaError, with examples of what was passed over, when the first phase left no document."""
    if phase.count:
        return
    read = next((step for step in phase.steps if step["name"] == READ), tally.empty(READ))
    if read["documents_out"] and not all(one.step in (READ, "length") for one in phase.dropped()):
        lines = [f"{step['name']}: {_counted(step['dropped'])}" for step in phase.steps if step["dropped"]]
        raise MaturaError(
            f"none of the {read['documents_out']:,} documents in {place} passed the filters. Loosen the thresholds of "
            "those that dropped them.\n" + "\n".join(f"  {line}" for line in lines)
        )
    raise sources.nothing_usable(
        place, [Skipped(one.source, one.reason, one.detail) for one in phase.dropped()]
    )


def _counted(reasons: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))


def gather(
    phases: Sequence[Phase],
    chosen: Chosen,
    repeated: Repeated | None,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """All numbers of the run as plain values."""
    steps = [step for phase in phases for step in phase.steps]
    for step in steps:
        if (
            repeated is not None and step["name"] == "duplicates"
        ):  # the step itself only leaves out what was found
            step["seconds"] = round(step["seconds"] + repeated.seconds, 3)
    over, _ = over_share(chosen)
    if chosen.over:
        steps.append(over)
    counts = {step["name"]: step["counts"] for step in steps}
    return {
        "steps": steps,
        **shares((*chosen.train, *chosen.heldout)),
        "clusters": {
            str(size): count for size, count in sorted((repeated.clusters if repeated else {}).items())
        },
        "pii": counts.get("pii", {}),
        "train": sizes(chosen.train),
        "heldout": {**sizes(chosen.heldout), "files": sorted(row.source for row in chosen.heldout)[:LISTED]},
        "settings": settings,
    }


def sizes(rows: Sequence[Row]) -> dict[str, int]:
    """Documents, characters, bytes and estimated tokens."""
    size = sum(row.bytes for row in rows)
    return {
        "documents": len(rows),
        "characters": sum(row.characters for row in rows),
        "bytes": size,
        "tokens": size // tally.BYTES_PER_TOKEN,
    }


def save(
    folder: Path, phases: Sequence[Phase], chosen: Chosen, repeated: Repeated | None, funnel: dict[str, Any]
) -> dict[str, Any]:
    """Write dropped.parquet, pairs.parquet, funnel.json and the report; returns the summary."""
    if repeated is not None:
        with atomic_write(folder / "pairs.parquet") as temporary:
            shutil.copyfile(repeated.pairs, temporary)
    dropped = [one for phase in phases for one in phase.dropped()] + over_share(chosen)[1]
    write_dropped(folder / "dropped.parquet", dropped)
    summary = summarise(funnel)
    funnel = {**summary, **funnel, "samples": _samples(dropped)}
    write_json(folder / "funnel.json", funnel)
    report.write(folder, funnel)
    return summary


def _samples(dropped: Sequence[Dropped]) -> dict[str, dict[str, list[dict[str, str]]]]:
    """The first few of each reason, by step and reason."""
    shown: dict[str, dict[str, list[dict[str, str]]]] = {}
    for (step, reason), rows in groupby(dropped, key=lambda one: (one.step, one.reason)):
        keys = ("id", "source", "detail", "sample")
        shown.setdefault(step, {})[reason] = [
            {key: getattr(one, key) for key in keys} for one in list(rows)[:SHOWN]
        ]
    return shown


def summarise(funnel: dict[str, Any]) -> dict[str, Any]:
    """A line for people and the main numbers, for the artifact's record."""
    train, heldout = (
        {key: value for key, value in funnel[side].items() if key != "files"} for side in ("train", "heldout")
    )
    dropped: Counter[str] = Counter()
    for step in funnel["steps"]:
        dropped.update(step["dropped"])
    pii = dict(funnel["pii"])
    touched = pii.pop("documents", 0)
    action = funnel["settings"]["pii"]["action"]
    line = f"{train['documents']} documents to learn from ({size_text(train['bytes'])}), "
    line += f"{heldout['documents']} held out ({size_text(heldout['bytes'])})"
    if dropped:
        line += f"; left out: {_counted(dropped)}"
    if pii:
        line += f"; personal data {DONE[action]}: {_counted_kinds(pii)}"
    read = next((step["documents_in"] for step in funnel["steps"] if step["name"] == READ), 0)
    return {
        "line": line,
        "files": {
            "seen": read,
            "kept": train["documents"] + heldout["documents"],
            "dropped": dict(sorted(dropped.items())),
        },
        "train": train,
        "heldout": heldout,
        "pii": {"policy": action, "documents": touched, "counts": pii},
    }


def _counted_kinds(kinds: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
