"""Which files of a far place are worth fetching, and whether they fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from matura.core.errors import MaturaError
from matura.data.reading.folder import kind_of
from matura.data.reading.web import public, too_large
from matura.data.sources import matches


def wanted(name: str, include: Sequence[str]) -> bool:
    """Whether a file is worth fetching: included, or of a kind that can be read."""
    if any(part.startswith(".") for part in PurePosixPath(name).parts if part != ".."):
        return False
    return matches(name, include) if include else bool(kind_of(name))


def check_sizes(path: str, sizes: dict[str, int], max_bytes: int) -> None:
    """Raises MaturaError when there is nothing to fetch, or too much."""
    if not sizes:
        raise MaturaError(f"{public(path)} holds nothing that can be read. Say with `include` what to take.")
    if out := next(
        (name for name in sizes if ".." in PurePosixPath(name).parts or name.startswith("/")), None
    ):
        raise MaturaError(f"{public(path)}: {out} leads out of the folder.")
    if (total := sum(sizes.values())) > max_bytes:
        raise too_large(path, total, max_bytes)
