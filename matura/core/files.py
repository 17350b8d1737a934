"""Writing files so that nothing is ever half there, and hashing them.

Every file that must survive a kill goes through :func:`atomic_write`; every failure of the disk becomes one
message (:func:`saving`) that says what was being written, how much room is left and what to do.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from matura.core.errors import ArtifactError, FormatError

TEMPORARY_PREFIX = ".matura-"  # what a kill in the middle of a write leaves behind starts with this
TEMPORARY_SUFFIX = ".tmp"

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_WORDS = ("no space left on device", "disk quota exceeded", "(os error 28)", "errno 28]")


def is_disk_full(error: BaseException) -> bool:
    """Whether `error`, or what caused it, is a full disk or quota.

    Libraries that write from native code raise their own exception types, so their message is read too.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _FULL:
            return True
        if any(words in str(seen).lower() for words in _FULL_WORDS):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


@contextlib.contextmanager
def saving(what: str, directory: str | os.PathLike[str]) -> Iterator[None]:
    """Turn a full or read-only disk inside the block into one ArtifactError; everything else passes
    unchanged.

    `what` completes "while writing ..."; `directory` is where it was going.
    """
    try:
        yield
    except ArtifactError:
        raise
    except Exception as error:
        directory = Path(directory)
        if is_disk_full(error):
            raise ArtifactError(
                f"The disk is full: {free_text(directory)} left at {directory} while writing {what}. "
                "What was finished before is intact. Free some space (`matura gc` lists what can go), "
                "then run the same command again: it goes on from the last checkpoint."
            ) from error
        if isinstance(error, OSError) and error.errno == errno.EROFS:
            raise ArtifactError(
                f"Cannot write {what}: {directory} is on a read-only disk. "
                "Choose another place with --workspace or MATURA_WORKSPACE."
            ) from error
        raise


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path to write to; on leaving, sync it and rename it to `path`.

    Whatever happens, `path` is either as it was before or complete. The temporary file has a directory of its own
    beside `path`, for a library may put temporary files of its own beside what it writes; on failure it is removed.

        with atomic_write(directory / "state.safetensors") as temporary:
            save_file(tensors, temporary)

    Raises ArtifactError when the disk is full.
    """
    path = Path(path)
    place = path.parent / f"{TEMPORARY_PREFIX}{os.getpid()}-{path.name}{TEMPORARY_SUFFIX}"
    temporary = place / path.name
    try:
        with saving(path.name, path.parent):
            place.mkdir(exist_ok=True)
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON, atomically. The same value always gives the same bytes."""
    with atomic_write(path) as temporary:
        temporary.write_text(
            json.dumps(plain(value), indent=2, allow_nan=False, ensure_ascii=True) + "\n", encoding="ascii"
        )


def read_json(path: Path, *, limit: int, what: str) -> dict[str, Any]:
    """Read a JSON object of at most `limit` bytes. Raises FormatError (naming `what`), or OSError when
    unreadable.
    """
    size = path.stat().st_size
    if size > limit:
        raise FormatError(f"{path} is {size_text(size)}, too large for {what} (at most {size_text(limit)}).")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not valid JSON, so it cannot be {what}: {error}") from error
    if not isinstance(value, dict):
        raise FormatError(f"{path} holds a JSON {type(value).__name__}, but {what} is a JSON object.")
    return value


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: paths as text, array scalars as numbers, NaN and infinities as null."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "item"):
        return plain(value.item())
    raise TypeError(f"{type(value).__name__} cannot be written as JSON: {value!r}")


def canonical_hash(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`: keys sorted, no spaces, ASCII."""
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def hash_file(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, in constant memory."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: str | os.PathLike[str]) -> None:
    """Force a file or directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and container file systems cannot sync a directory; the rename is then all there is.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not os.path.isdir(path):
            raise
    finally:
        os.close(descriptor)


def is_temporary(name: str) -> bool:
    """Whether a file of this name is what an interrupted :func:`atomic_write` left behind."""
    return name.startswith(TEMPORARY_PREFIX) and name.endswith(TEMPORARY_SUFFIX)


def remove(path: Path) -> None:
    """Remove a file or a whole directory; nothing happens when it is not there. Links are never followed."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
    elif path.exists():
        shutil.rmtree(path)


def walk(
    place: str | os.PathLike[str], onerror: Callable[[OSError], object] | None = None
) -> Iterator[tuple[str, list[str], list[str]]]:
    """As os.walk, also where links lead to folders, each folder once: a ring of links ends."""
    seen: set[tuple[int, int]] = set()
    for directory, folders, names in os.walk(place, followlinks=True, onerror=onerror):
        status = os.stat(directory)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        yield directory, folders, names


def tree_bytes(path: Path) -> int:
    """Bytes of all files at and below `path`, links not followed."""
    if not path.is_dir() or path.is_symlink():
        return path.lstat().st_size
    total = 0
    for directory, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(directory, name)).st_size
    return total


def last_change(directory: Path) -> float:
    """When a directory, or anything in it, was changed last, in seconds since the epoch."""
    newest = directory.stat().st_mtime
    for folder, _, names in os.walk(directory):
        for path in (folder, *(os.path.join(folder, name) for name in names)):
            newest = max(newest, os.lstat(path).st_mtime)
    return newest


def free_bytes(path: str | os.PathLike[str]) -> int:
    """Bytes free for this user where `path` is, or would be."""
    place = Path(path).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


def free_text(path: str | os.PathLike[str]) -> str:
    """:func:`free_bytes` for a person; "an unknown amount" when it cannot be told."""
    try:
        return size_text(free_bytes(path))
    except OSError:
        return "an unknown amount"


def size_text(size: float) -> str:
    """A number of bytes for a person, in powers of 1000: "98.4 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
