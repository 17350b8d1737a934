"""Running and planning recipes from the terminal: what is printed while stages work, and at the end."""

import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from matura.core import planning
from matura.core.artifact import Artifact
from matura.core.errors import GateFailed
from matura.core.follow import follow, rank
from matura.core.plan import duration, table
from matura.core.recipe import Recipe
from matura.core.run import Event, run
from matura.core.workspace import Workspace

COLOURS = {
    "reused": "cyan",
    "made": "green",
    "running": "bold",
    "resuming": "bold yellow",
    "damaged": "yellow",
    "gate failed": "bold red",
    "rounds end": "bold yellow",
}


def execute(
    recipe: Recipe,
    workspace: Workspace,
    *,
    wait: bool,
    keep_others: bool,
    again: Sequence[str],
    options: Sequence[str],
    ended: Callable[[], None] = lambda: None,
) -> dict[str, Artifact]:
    """Run `recipe`, say what happened, and return what each stage made.

    `again` is the command that goes on after Ctrl-C, `options` are for every command that is suggested. `ended` is
    called when the recipe has ended, also at a gate that did not pass.
    """
    if rank():  # one of several processes that torchrun started: the first one tells
        return follow(recipe, workspace)
    width = max(len(step.name) for step in recipe.steps)
    finished: list[Event] = []

    def show(event: Event) -> None:
        _say(event, width)
        if event.made:
            finished.append(event)

    try:
        with _interruptible(again):
            made = run(recipe, workspace, pull, show=show, wait=wait, keep_others=keep_others)
    except GateFailed:
        ended()
        raise
    ended()
    _close(recipe, finished, made, options)
    return made


def show_plan(recipe: Recipe, workspace: Workspace) -> None:
    """Print what `execute` would do, and why; nothing is changed."""
    print(table(planning.plan(recipe, workspace)))


def pull(reference: str, workspace: Workspace) -> Artifact:
    """Bring a model into the workspace."""
    from matura import api

    found: Artifact = api.pull(reference, workspace)
    return found


def copy_export(made: Artifact, place: Path) -> None:
    """Copy exported files out of the workspace and say where they are."""
    from matura.stages import export

    written = export.copy_to(made, place)
    print(f"Copied {len(written)} file{'s' * (len(written) != 1)} to {place}")


def _say(event: Event, width: int) -> None:
    columns = [event.stage.ljust(width), event.status.ljust(8)]
    if event.made:
        columns += [event.made.id[:6], duration(event.seconds)]
    if event.detail:
        columns.append(event.detail)
    line = "  ".join(columns)
    if not sys.stdout.isatty():
        print(line, flush=True)
        return
    from rich.console import Console
    from rich.text import Text

    text = Text(line)
    start = len(columns[0]) + 2
    text.stylize(COLOURS.get(event.status, ""), start, start + len(event.status))
    Console(highlight=False, soft_wrap=True).print(text)


def _close(
    recipe: Recipe, finished: list[Event], standing: dict[str, Artifact], options: Sequence[str]
) -> None:
    """Where the reports are, and what to do next with the last model that stands."""
    if all(event.status == "reused" for event in finished):
        seconds = sum(event.seconds for event in finished)
        what = f"all {len(finished)} stages were reused" if len(finished) > 1 else "the stage was reused"
        print(f"Nothing had changed: {what} ({duration(seconds)}).")
    models: list[tuple[str, Artifact]] = []
    for event in finished:
        made = event.made
        if made and (made.path / "report.html").is_file():
            print(f"Report: {short(made.path / 'report.html')}")
        if made and made.kind == "export":
            print(f"Exported: {short(made.path / made.summary['files'])}")
        if made and _speaks(made) and event.stage in standing:
            models.append((event.stage, made))
    if models:
        stage, model = models[-1]
        verb, *rest = _use(model)
        said = "Talk to it" if verb == "chat" else "Try it"
        print(f"{said}: {shlex.join(['matura', verb, f'{recipe.name}/{stage}', *rest, *options])}")


def _speaks(made: Artifact) -> bool:
    """Whether it is a model that one can try; a reward model only judges."""
    return made.kind == "model" and made.record["stage"] != "reward"


def _use(model: Artifact) -> list[str]:
    """The command that suits a model: one that was only pre-trained continues texts, or fills masks, or answers."""
    if model.record["stage"] != "pretrain":
        return ["chat"]
    encoder = model.config["shape"]["kind"] == "encoder"
    return ["fill", "some [MASK] text"] if encoder else ["generate", "some text"]


def short(path: Path) -> str:
    """A path as seen from here when that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)


@contextlib.contextmanager
def _interruptible(again: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print(
            f"\nStopped. Finished stages and the last checkpoint are saved; to go on: {shlex.join(again)}",
            file=sys.stderr,
            flush=True,
        )
        raise SystemExit(130) from None
