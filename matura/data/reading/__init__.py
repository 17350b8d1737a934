"""Sources of a corpus: what there is to read, cut into tasks, and the documents of one task.

`fetch` brings what is far away here, `plan` lists and cuts, `read` reads one task in any process. A task is
a mapping of plain JSON values. How a corpus is cut changes neither its documents nor their ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matura.core.corpus_settings import Limits
from matura.core.records import Document
from matura.data.sources import Skipped

if TYPE_CHECKING:
    from matura.core.workspace import Workspace

Task = dict[str, Any]
"""origin (the source's name), license, limits, and `pieces`: files or ranges of files, each with its reader."""

MAX_DATA_BYTES = 64 << 30
"""Of a data set for learning or for exams; a corpus is bounded where it is curated."""

__all__ = ["Skipped", "Task", "content_of", "fetch", "identity", "is_remote", "located", "plan", "read"]


def is_remote(path: str) -> bool:
    """Whether `fetch` must bring a source's path here first: s3://, gs://, az://, http(s)://, hf:..."""
    from matura.data.reading import remote

    return remote.is_remote(path)


def fetch(path: str, downloads: Path, *, max_bytes: int, include: tuple[str, ...] = ()) -> Path:
    """The local folder or file of a remote path, below `downloads`; what is there already is not fetched again.

    Raises MaturaError when it cannot be reached, holds nothing that can be read, or is larger than `max_bytes`.
    """
    from matura.data.reading import remote

    return remote.fetch(path, downloads, max_bytes=max_bytes, include=include)


def located(path: str, workspace: Workspace | None = None) -> Path:
    """Where data of one's own are on this machine; what is far away is fetched first, as `fetch` does, up to
    MAX_DATA_BYTES."""
    if not is_remote(path):
        return Path(path).expanduser()
    from matura.core.workspace import Workspace

    return fetch(path, (workspace or Workspace()).downloads, max_bytes=MAX_DATA_BYTES)


def content_of(database: str) -> str:
    """The hash of a SQLite file by its URL, "" for a server's database. Raises MaturaError when there is no file."""
    from matura.core.files import hash_file
    from matura.data.reading import sql

    return hash_file(sql.sqlite_file(database)) if database.startswith("sqlite:") else ""


def plan(sources: Mapping[str, Mapping[str, Any]], limits: Limits, part_bytes: int) -> list[Task]:
    """Tasks of about `part_bytes` of files each, in an order that depends on names only.

    A source is the values of `corpus_settings.Source`, and "resolved": its local file or folder (a database URL has
    none), and if known "files": {name below it: {"sha256": ...}}, which is then checked against what is read. What is
    passed over already here (unknown suffixes, empty files) is in the tasks too, and comes out of `read`.

    Raises MaturaError for a place that does not exist or settings that do not fit it.
    """
    from matura.data.reading.planning import plan_sources

    return plan_sources(sources, limits, part_bytes)


def read(task: Mapping[str, Any]) -> Iterator[Document | Skipped]:
    """The documents of a task, and what was passed over with the reason, one at a time.

    Raises MaturaError when a file changed since it was listed, and, with `limits.strict`, for the first broken file.
    """
    from matura.data.reading.planning import read_task

    return read_task(task)


def identity(origin: str, place: str, text: str) -> str:
    """The id of a document: a hash of its source's name, where in the source it was, and what it says."""
    content = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    where = f"{origin}\n{place}" if origin else place
    return hashlib.sha256(f"{where}\n{content}".encode("utf-8", "surrogatepass")).hexdigest()[:20]
