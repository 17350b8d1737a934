"""The workspace: the directory where models, runs and downloads live, one process at a time.

models/<name>/                     models that were pulled or made under a name
runs/<recipe>/<stage>-<key12>/     what the stages of a recipe made
runs/<recipe>/run.json             the latest run: which directory holds which stage
downloads/                         raw files of models, as they came
lock                               held by the process at work
"""

import contextlib
import datetime
import difflib
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matura.core.artifact import Artifact, load
from matura.core.errors import ArtifactError, FormatError, MaturaError, ModelNotFound
from matura.core.files import free_bytes, read_json, size_text
from matura.core.manifest import DRAFT, RECORD
from matura.core.references import model_name, parse

VARIABLE = "MATURA_WORKSPACE"
RUN = "run.json"
MAX_RUN_BYTES = 4 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_POLL_SECONDS = 0.2


EARLIER = "earlier run"
"""Status in run.json of a stage that the latest run has not reached: its directory is from a run before."""


@dataclass(frozen=True)
class RunRecord:
    """What run.json says: directory and status of each stage, in running order; how the run stands ("running" also
    when it was killed; "interrupted", "failed", "gate failed" or "finished"; "" is not known); which stages it had not
    reached."""

    stages: dict[str, tuple[Path, str]]
    state: str = ""
    to_come: tuple[str, ...] = ()


class Workspace:
    """A workspace at `root`: given, or from the variable MATURA_WORKSPACE, or ./workspace. Made when first
    needed.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        chosen = root if root is not None else os.environ.get(VARIABLE) or "workspace"
        self.root = Path(os.path.abspath(Path(chosen).expanduser()))

    @property
    def models(self) -> Path:
        """Where models with a name are."""
        return self.root / "models"

    @property
    def runs(self) -> Path:
        """Where runs of recipes are."""
        return self.root / "runs"

    @property
    def downloads(self) -> Path:
        """Where raw files of models are."""
        return self.root / "downloads"

    def model(self, name: str) -> Path:
        """The directory of the model `name`. Raises MaturaError for what cannot be a name."""
        return self.models / _checked(name, "a model")

    def stage(self, recipe: str, stage: str, key: str) -> Path:
        """The directory for one stage of a recipe; `key` is from :func:`matura.core.artifact.key`."""
        return self.runs / _checked(recipe, "a recipe") / f"{_checked(stage, 'a stage')}-{key[:12]}"

    def read_run(self, recipe: str) -> dict[str, Path]:
        """The stages of the latest run of a recipe and their directories; empty when it never ran.

        Raises ArtifactError when run.json is broken.
        """
        return {stage: place for stage, (place, _) in self.latest(recipe).stages.items()}

    def latest(self, recipe: str) -> "RunRecord":
        """The latest run of a recipe; without any stage when it never ran. Raises ArtifactError when it is broken."""
        directory = self.runs / _checked(recipe, "a recipe")
        path = directory / RUN
        try:
            record = read_json(path, limit=MAX_RUN_BYTES, what="the record of a run")
        except (FileNotFoundError, NotADirectoryError):
            return RunRecord({})
        except (FormatError, OSError) as error:
            raise ArtifactError(
                f"{str(error).rstrip('.')}. Delete it and run the recipe again: what is finished is reused."
            ) from error
        stages = record.get("stages")
        found = {}
        for name, entry in stages.items() if isinstance(stages, dict) else [("", None)]:
            if not isinstance(entry, dict) or not isinstance(entry.get("dir"), str):
                raise ArtifactError(f"{path} has no table of stages. Delete it and run the recipe again.")
            place = Path(os.path.normpath(directory / entry["dir"]))
            found[name] = place, str(entry.get("status", ""))
        to_come = record.get("to_come")
        names = tuple(map(str, to_come)) if isinstance(to_come, list) else ()
        return RunRecord(found, str(record.get("state", "")), names)

    def recipes(self) -> list[str]:
        """The recipes that have a recorded run."""
        return sorted(path.parent.name for path in self.runs.glob(f"*/{RUN}"))

    def artifacts(self) -> list[Path]:
        """Every directory of models/ and runs/ that holds a finished artifact."""
        return self._holding(RECORD)

    def drafts(self) -> list[Path]:
        """Every directory of models/ and runs/ that holds an artifact that was interrupted."""
        return [path for path in self._holding(DRAFT) if not (path / RECORD).is_file()]

    def _holding(self, name: str) -> list[Path]:
        places = [*self.models.glob(f"*/{name}"), *self.runs.glob(f"*/*/{name}")]
        return sorted(path.parent for path in places if not path.parent.name.startswith("."))

    def find(self, reference: str) -> Artifact:
        """The artifact that a person means: a path, recipe/stage of the latest run, or a model in models/.

        A model is named by its directory, or by the reference it was pulled from. Raises ModelNotFound, with
        the nearest known names, when there is no such artifact (there may be raw files of a model at that
        path), ArtifactError when there is one but it was interrupted or is damaged.
        """
        path = Path(reference).expanduser()
        if (path / RECORD).exists() or (path / DRAFT).exists() or path.name == RECORD:
            return load(path)
        recipe, slash, stage = reference.rstrip("/").partition("/")
        if slash and _NAME.fullmatch(recipe):
            stages = self.latest(recipe).stages
            if stage in stages:
                return self._stage_artifact(reference, *stages[stage])
            if _NAME.fullmatch(stage) and (self.runs / recipe / stage / RECORD).exists():
                return load(self.runs / recipe / stage)  # as lineages name it: STAGE-HASH
        name = model_name(parse(reference))
        if (self.models / name / RECORD).exists():  # an interrupted pull counts as not pulled: it goes on
            return load(self.models / name)
        raise ModelNotFound(self._not_found(reference, path))

    def _stage_artifact(self, reference: str, directory: Path, status: str) -> Artifact:
        if status == EARLIER:
            raise ArtifactError(
                f"{reference} was not made by the latest run, which did not get that far: run it again. What an "
                f"earlier run made is {directory}."
            )
        if not directory.exists():
            raise ArtifactError(
                f"The stage {reference} was planned but has not run yet. Run the recipe again to make it."
            )
        return load(directory)

    def _not_found(self, reference: str, path: Path) -> str:
        if path.exists():
            return f"{path} is not an artifact: it has no {RECORD}."
        if reference in self.recipes() and (stages := list(self.read_run(reference))):
            return (
                f"{reference!r} is a whole run; name one of its stages, such as {reference}/{stages[-1]}. "
                f"`matura report {reference}` tells of all of them."
            )
        known = self.names()
        close = difflib.get_close_matches(reference, known, n=1)
        if close:
            return f"There is no artifact {reference!r}; did you mean {close[0]}?"
        listed = ", ".join(known) if known else "nothing yet"
        return f"There is no artifact {reference!r}. The workspace {self.root} has: {listed}."

    def names(self, kind: str = "") -> list[str]:
        """What `find` knows by a name: models, and RUN/STAGE of the latest runs; of one kind only, if it is given."""
        known = {path.parent.name: path.parent for path in sorted(self.models.glob(f"*/{RECORD}"))}
        for recipe in self.recipes():
            with contextlib.suppress(ArtifactError):
                known |= {f"{recipe}/{stage}": place for stage, place in self.read_run(recipe).items()}
        return [name for name, place in known.items() if not kind or _is(kind, place)]

    def check_disk(self, bytes_needed: int, what: str) -> None:
        """Raise ArtifactError when less than `bytes_needed` is free; `what` completes "... needs about"."""
        free = free_bytes(self.root)
        if free < bytes_needed:
            raise ArtifactError(
                f"{what} needs about {size_text(bytes_needed)} of disk, but only {size_text(free)} is free "
                f"at {self.root}. Free some space (`matura gc` lists what can go) or choose another place "
                f"with --workspace or {VARIABLE}."
            )

    @contextlib.contextmanager
    def lock(self, wait: bool = False) -> Iterator[None]:
        """Hold the workspace for the block. It is free again when the process ends, however it ends.

        `wait` waits for another process to finish; without it, raises MaturaError that names the holder. Not
        to be taken twice by one process.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            # Never removed: a waiting process would go on to lock a file that is not there for the next one.
            descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise MaturaError(
                f"The workspace {self.root} cannot be used: {error.strerror}. It must be a folder that you may write "
                f"in; choose another with --workspace or {VARIABLE}."
            ) from error
        try:
            self._acquire(descriptor, wait)
            _write_holder(descriptor, {"pid": os.getpid(), "command": _command(), "since": _now()})
            yield
            os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)

    def _acquire(self, descriptor: int, wait: bool) -> None:
        import fcntl

        announced = False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                holder = _holder_text(self.root / "lock")
            if not wait:
                raise MaturaError(
                    f"The workspace {self.root} is in use by {holder}. Wait until it ends, or use another "
                    f"workspace (--workspace or {VARIABLE})."
                )
            if not announced:
                print(f"Waiting for the workspace {self.root}, in use by {holder} ...", file=sys.stderr)
                announced = True
            time.sleep(_POLL_SECONDS)


def _is(kind: str, place: Path) -> bool:
    with contextlib.suppress(ArtifactError):
        return load(place).kind == kind
    return False


def _checked(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise MaturaError(
            f"{name!r} cannot be the name of {what}: use letters, digits, '.', '_' and '-', "
            "starting with a letter or digit."
        )
    return name


def _write_holder(descriptor: int, holder: dict[str, Any]) -> None:
    content = json.dumps(holder).encode("ascii")
    # Who holds it is a courtesy: a full disk must not keep anybody from working.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, content, 0)


def _holder_text(path: Path) -> str:
    try:
        holder = read_json(path, limit=1 << 16, what="a lock")
        return f"process {holder['pid']} ({holder['command']}) since {holder['since']}"
    except (FormatError, OSError, KeyError):
        return "another process"


def _command() -> str:
    words = [os.path.basename(sys.argv[0]) if sys.argv else "", *sys.argv[1:]]
    return " ".join(words)[:200].strip() or "python"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
