"""The page about a whole run, on demand and at the end of a run."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from matura.commands.running import short
from matura.core.errors import GateFailed, MaturaError
from matura.core.follow import rank
from matura.core.workspace import Workspace


def report(run: str, to: Path | None, workspace: Workspace) -> None:
    """Write the page and say where it is. Raises ModelNotFound when there is no such run."""
    from matura.evaluate.story import page

    if to is not None:
        to = to.expanduser()
        to = to / page.FILE if to.is_dir() else to
    print(f"Report: {short(page.write(workspace, run, to))}")


@contextlib.contextmanager
def told(run: str, workspace: Workspace) -> Iterator[None]:
    """Write the page when the block has run a recipe to its end, or to a gate that did not pass, and say where it is.

    A page that cannot be written costs nothing that was made: it is said, and no error.
    """
    try:
        yield
    except GateFailed:
        _refresh(run, workspace)
        raise
    _refresh(run, workspace)


def _refresh(run: str, workspace: Workspace) -> None:
    if rank():  # one of several processes that torchrun started: the first one tells
        return
    from matura.evaluate.story import page

    try:
        print(f"The whole story: {short(page.refresh(workspace, run))}", flush=True)
    except MaturaError as error:
        print(f"The report of the run could not be written: {error}", file=sys.stderr, flush=True)
