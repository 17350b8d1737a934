"""What came into a run, and what was left out on the way and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matura.core import lineage
from matura.core.errors import MaturaError
from matura.core.files import size_text
from matura.data import figures
from matura.data import report as corpus_report
from matura.evaluate.story.chapters import Chapter, Run

DROPPED = ("dropped", "dropped_pairs")
"""How counts by reason are called in summaries."""


def came_in(run: Run) -> figures.Table:
    """Every raw input, and every artifact from outside of the run, with the stage that took it and its size."""
    ours = {one.id for one in run.artifacts}
    taken: dict[str, tuple[str, list[str], str]] = {}
    for chapter in run.chapters:
        if chapter.made is None:
            continue
        for key, entry in chapter.made.inputs.items():
            if entry["id"] not in ours:
                name, size = _from_outside(entry)
                name = lineage.fetched(chapter.made, key) or name
                taken.setdefault(entry["id"], (name, [], size))[1].append(chapter.name)
    rows = [(name, ", ".join(dict.fromkeys(stages)), size) for name, stages, size in taken.values()]
    return {**figures.table(["what", "for", "size"], rows), "words": 2}


def _from_outside(entry: Mapping[str, Any]) -> tuple[str, str]:
    """Name and size of an input."""
    if entry["kind"] == "raw":
        count, size = entry.get("count"), entry.get("bytes")
        if isinstance(count, int) and isinstance(size, int):
            return entry["path"], f"{count:,} file{'s' * (count != 1)}, {size_text(size)}"
        return entry["path"], "–"
    return f"{entry['kind']} {lineage.name_of(Path(entry['path']))}", "–"


def curations(chapters: Sequence[Chapter]) -> Iterator[dict[str, Any]]:
    """The funnel of each corpus: its name and line, and figures as the corpus's own report has them."""
    for one in chapters:
        if one.made is None or one.made.kind != "corpus":
            continue
        told: dict[str, Any] = {"name": one.name, "line": one.line, "figures": [], "problem": ""}
        try:
            funnel = one.read("report.json", "the report of a corpus")
            if funnel is not None:
                told["figures"] = list(corpus_report.dropping(funnel))
        except MaturaError as error:
            told["problem"] = str(error)
        except (KeyError, TypeError):
            told["problem"] = "its report.json has another form than this version of matura reads"
        yield told


def left_out(chapters: Sequence[Chapter]) -> figures.Table:
    """What stages after curation left out: stage, reason, count."""
    rows = [
        (f"{one.name}: {reason}", f"{count:,}")
        for one in chapters
        if one.made is not None and one.made.kind != "corpus"
        for reason, count in _reasons(one.made.summary)
        if count
    ]
    return figures.table(["stage and reason", "left out"], rows)


def _reasons(summary: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Counts by reason, of the summary and of its groups."""
    for name, value in summary.items():
        if not isinstance(value, Mapping):
            continue
        if name in DROPPED:
            yield from ((str(why), count) for why, count in value.items() if isinstance(count, int))
        else:
            yield from _reasons(value)
