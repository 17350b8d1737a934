"""`report.html` of a run: one self-contained page that tells what came in, what was learned, what exams said, what it
cost, and where the last model comes from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import matura
from matura.core import lineage, page
from matura.core.artifact import Artifact
from matura.core.errors import MaturaError
from matura.core.files import atomic_write, canonical_hash
from matura.core.workspace import Workspace
from matura.data import figures
from matura.evaluate import costs, report
from matura.evaluate.story import chapters, intake, learning, verdicts
from matura.evaluate.story.chapters import DONE, Chapter, Run

FILE = "report.html"
TEMPLATE = Path(__file__).with_name("page.html")
KEY = re.compile(r'<meta name="matura-run" content="([0-9a-f]{64})">')
KEY_WITHIN = 4096
"""Bytes of a page in which its key stands."""
ABOUT = {
    "curate": "Documents were read, cleaned and chosen.",
    "synthesize": "Text was written to learn from.",
    "prompt": "A prompt was put together.",
    "tokenizer": "A tokenizer was made for the text.",
    "encode": "The text became tokens.",
    "pretrain": "A model from first weights.",
    "finetune": "A model learned from examples.",
    "sample": "A model answered prompts.",
    "rank": "Answers were judged.",
    "reward": "A reward model learned what is preferred.",
    "dpo": "A model learned from what is preferred.",
    "ppo": "A model practised what rewards ask for.",
    "grpo": "A model practised on tasks that can be checked.",
    "evaluate": "A model sat an exam.",
    "merge": "An update became part of the weights.",
    "export": "A model was written for other programs.",
}
STATES = {
    "finished": ("passed", "Finished.", "Every stage has done its work."),
    "gate failed": ("failed", "A gate did not pass.", "The run stopped there."),
    "failed": ("failed", "Not finished.", "A stage failed. Run the recipe again: it goes on from there."),
    "interrupted": ("note", "Interrupted.", "Run the recipe again: it goes on from there."),
    "running": (
        "note",
        "Not finished.",
        "The run is at work, or was killed; run again, it goes on from there.",
    ),
}


def write(workspace: Workspace, name: str, to: Path | None = None) -> Path:
    """Write the page of the latest run `name`, to runs/NAME/report.html or to a file of one's own; where it is.

    Raises ModelNotFound when there is no such run, ArtifactError when its record is broken, MaturaError when the page
    cannot be written there.
    """
    run = chapters.read(workspace, name)
    return _write(run, run.folder / FILE if to is None else to)


def refresh(workspace: Workspace, name: str) -> Path:
    """The same, unless the page in the workspace already tells of this run as it is."""
    run = chapters.read(workspace, name)
    place = run.folder / FILE
    return place if _key_in(place) == key(run) else _write(run, place)


def _write(run: Run, place: Path) -> Path:
    text = render(run, place.parent)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(place) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise MaturaError(
            f"Cannot write {place}: {error.strerror}. Choose another place with --to."
        ) from error
    return place


def key(run: Run) -> str:
    """A hash of all that the page of a run depends on."""
    told = [
        (one.name, "done" if one.status in DONE else one.status, one.made.id if one.made else one.lost)
        for one in run.chapters
    ]
    return canonical_hash([matura.__version__, run.name, run.state, told, list(run.to_come)])


def _key_in(place: Path) -> str:
    try:
        with open(place, "rb") as file:
            found = KEY.search(file.read(KEY_WITHIN).decode("utf-8", "replace"))
    except OSError:
        return ""
    return found[1] if found else ""


def render(run: Run, folder: Path) -> str:
    """The page, for a file in `folder`: links to the pages of the stages are relative to it."""
    spent = {one.name: costs.of(one.made) for one in run.chapters if one.made}
    links = {one.name: _link(one, folder) for one in run.chapters}
    state, head, words = STATES.get(
        run.state, ("note", "Not finished.", "It is not known how the run ended.")
    )
    last = run.last
    names = {one.made.id: one.name for one in run.chapters if one.made}
    return page.render(
        TEMPLATE,
        filters={"seconds": page.seconds},
        key=key(run),
        run=run,
        state=state,
        head=head,
        words=words,
        summary=_summary(run, list(spent.values())),
        stopped=[one for one in run.chapters if one.status not in DONE or one.lost],
        failed=run.chapters[-1] if run.state == chapters.GATE_FAILED else None,
        story=[_told(one, names, spent.get(one.name)) for one in run.chapters],
        links=links,
        came_in=intake.came_in(run),
        curations=list(intake.curations(run.chapters)),
        left_out=intake.left_out(run.chapters),
        trainings=list(learning.trainings(run.chapters)),
        verdicts=list(verdicts.verdicts(run.chapters)),
        costs=costs.table(list(spent.values()), list(spent)) if spent else None,
        about_costs=costs.NOTE,
        last=last,
        lineage=lineage.tree(last) if last else None,
        places=_places(run.chapters),
        environment=report.table(last.record.get("environment") or {}) if last else [],
    )


def _summary(run: Run, spent: list[costs.Cost]) -> str:
    """The whole run in a few words."""
    told = [f"{len(run.chapters)} stage{'s' * (len(run.chapters) != 1)}"]
    told.append(page.seconds(sum(one.seconds for one in spent)))
    learned = sum(one.tokens or 0 for one in spent if one.stage in costs.LEARNING)
    if learned:
        told.append(f"{learned:,} tokens learned from")
    if arithmetic := sum(one.flops or 0.0 for one in spent):
        told.append(f"{arithmetic:.3g} FLOP")
    return ", ".join(told)


def _told(one: Chapter, names: Mapping[str, str], cost: costs.Cost | None) -> dict[str, Any]:
    """A stage as a paragraph. `names` are those of the run's stages, by the id of what they made."""
    inputs = one.made.inputs.items() if one.made else ()
    return {
        "name": one.name,
        "stage": one.stage,
        "about": ABOUT.get(one.stage, ""),
        "line": page.visible(one.line, figures.MAX_DETAIL * 3),
        "inputs": list(dict.fromkeys(names.get(entry["id"]) or _short(one, key) for key, entry in inputs)),
        "status": one.status,
        "done": one.status in DONE,
        "passed": one.passed if one.reasons or one.stage != "evaluate" or _compares(one.made) else None,
        "lost": one.lost,
        "seconds": cost.seconds if cost else None,
    }


def _compares(made: Artifact | None) -> bool:
    return made is not None and "parent" in made.inputs


def _short(one: Chapter, key: str) -> str:
    """An input from outside of the run, by the last part of its name, or as the recipe names what is fetched."""
    assert one.made is not None
    entry = one.made.inputs[key]
    if entry["kind"] != "raw":
        return lineage.name_of(Path(entry["path"]))
    return lineage.fetched(one.made, key).partition("#")[0] or Path(entry["path"]).name


def _link(one: Chapter, folder: Path) -> str:
    """The page that a stage made, as seen from `folder`; "" for none."""
    if one.made is None or not (one.path / FILE).is_file():
        return ""
    return quote(Path(os.path.relpath(one.path / FILE, folder.resolve())).as_posix())


def _places(told: tuple[Chapter, ...]) -> figures.Table:
    """On which machines and with which code the stages were made."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for one in told:
        if one.made:
            groups.setdefault(tuple(_place(one.made)), []).append(one.name)
    rows = [(", ".join(stages), *place) for place, stages in groups.items()]
    return {**figures.table(["stages", "processor", "threads", "torch", "code"], rows), "words": 5}


def _place(made: Artifact) -> Iterator[str]:
    environment, code = made.record.get("environment") or {}, made.record.get("code") or {}
    for name in ("cpu", "threads", "torch"):
        yield str(environment.get(name) or "–")
    commit = str(code.get("commit") or "")[:12]
    yield f"{code.get('version', '–')} {commit}{' and changes' if commit and code.get('dirty') else ''}".strip()
