"""Raw data from outside: a file or a folder, listed and hashed, so that lineage can end in it."""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matura.core.errors import ArtifactError
from matura.core.files import canonical_hash, hash_file, walk
from matura.core.modelfiles import pieces

LISTED_FILES = (
    2000  # an artifact lists its raw files one by one up to this many; the id covers all of them anyway
)


@dataclass(frozen=True)
class RawInput:
    """A file or a folder of raw data.

    `files` maps each path, relative to `path` and with "/", to {"bytes": int, "sha256": str}, in sorted
    order; for a single file it is the file's own name, and for the first file of a GGUF model in several files
    the names of all. `id` is a hash of names, sizes and contents: moving the folder keeps it.
    """

    path: Path
    id: str
    files: dict[str, dict[str, Any]] = field(hash=False, repr=False)

    kind = "raw"

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(entry["bytes"] for entry in self.files.values())

    def file(self, name: str) -> Path:
        """Where the file that `files` lists as `name` is."""
        return self.path / name if self.path.is_dir() else self.path.with_name(name)


def raw_input(path: str | os.PathLike[str]) -> RawInput:
    """List and hash a file or a folder tree.

    `~` is expanded. Hidden files and folders (a name that starts with a dot), broken links and what is not a
    regular file are left out; links to folders are followed, each folder once, so a loop ends.

    Raises ArtifactError when the path is missing, unreadable, or holds no files.
    """

    def stop(place: str, error: OSError) -> None:
        raise ArtifactError(
            f"Cannot read {place}: {error.strerror}. Make it readable, or move it out of the folder."
        ) from error

    return _hashed(path, stop)


def readable_input(path: str | os.PathLike[str]) -> RawInput:
    """Like `raw_input` without the files and folders that cannot be read: for stages that tell of them themselves.

    Raises ArtifactError when the path is missing, or holds no file that can be read.
    """
    return _hashed(path, lambda place, error: None)


def _hashed(path: str | os.PathLike[str], unreadable: Callable[[str, OSError], None]) -> RawInput:
    place = Path(path).expanduser()
    if not place.exists():
        raise ArtifactError(f"There is no file or folder {place}{_nearest(place)}")
    # A file keeps its name even if it is a link: the other files of a model are found by it.
    place = place.resolve() if place.is_dir() else place.parent.resolve() / place.name
    files: dict[str, dict[str, Any]] = {}
    for name, source in sorted(_walk(place, unreadable)):
        try:
            files[name] = {"bytes": source.stat().st_size, "sha256": hash_file(source)}
        except OSError as error:
            unreadable(str(source), error)
    if not files:
        raise ArtifactError(f"{place} holds no files that can be read (hidden ones do not count).")
    listing = {name: [entry["bytes"], entry["sha256"]] for name, entry in files.items()}
    return RawInput(place, canonical_hash(listing), files)


def _walk(place: Path, unreadable: Callable[[str, OSError], None]) -> Iterator[tuple[str, Path]]:
    if place.is_file():
        yield from ((file.name, file) for file in pieces(place))
        return
    if not place.is_dir():
        raise ArtifactError(f"{place} is neither a file nor a folder.")
    for directory, folders, names in walk(place, lambda error: unreadable(error.filename, error)):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            source = Path(directory, name)
            if not name.startswith(".") and _is_regular(source):
                yield source.relative_to(place).as_posix(), source


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _nearest(place: Path) -> str:
    """The end of the message about a missing path: how far it exists, and a name like it."""
    import difflib

    parent = place.absolute().parent
    if not parent.is_dir():
        while not parent.is_dir():
            parent = parent.parent
        return f"; it exists only as far as {parent}."
    try:
        close = difflib.get_close_matches(place.name, sorted(os.listdir(parent)), n=1)
    except OSError:
        close = []
    return f"; did you mean {parent / close[0]}?" if close else "."
