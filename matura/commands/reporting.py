"""The page about a whole run, on demand and at the end of a run."""

from __future__ import annotations

import sys
from pathlib import Path

from matura.commands.running import short
from matura.core.errors import MaturaError
from matura.core.follow import rank
from matura.core.workspace import Workspace


def report(run: str, to: Path | None, workspace: Workspace) -> None:
    """Write the page and say where it is. Raises ModelNotFound when there is no such run."""
    from matura.evaluate.story import page

    if to is not None:
        to = to.expanduser()
        to = to / page.FILE if to.is_dir() else to
    print(f"Report: {short(page.write(workspace, run, to))}")


def refresh(run: str, workspace: Workspace) -> None:
    """Write the page of a run that has ended, unless nothing has changed, and say where it is.

    A page that cannot be written costs nothing that was made: it is said, and no error.
    """
    if rank():  # one of several processes that torchrun started: the first one tells
        return
    from matura.evaluate.story import page

    try:
        print(f"The whole story: {short(page.refresh(workspace, run))}", flush=True)
    except MaturaError as error:
        print(f"The report of the run could not be written: {error}", file=sys.stderr, flush=True)
