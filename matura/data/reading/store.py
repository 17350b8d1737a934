"""Files of an object store, through Daft: s3://, gs://, az://. Keys and endpoints come from the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from matura.core import credentials
from matura.core.errors import MaturaError
from matura.data.reading.choice import check_sizes, wanted
from matura.data.reading.web import public

BLOCK = 4 << 20
AT_ONCE = 4  # files; each holds some 32 MB in memory


def fetch_folder(path: str, place: Path, max_bytes: int, include: Sequence[str]) -> Path:
    """The files below a path (ending in "/"), of a glob, or one file, in the folder `place`. Raises MaturaError."""
    if (place / ".complete").is_file():
        return place
    os.environ["DO_NOT_TRACK"] = "true"
    os.environ["DAFT_ANALYTICS_ENABLED"] = "0"
    import daft

    if "${" in path:
        raise MaturaError(f"{path}: keys of a store are set in the environment, not in its path.")
    files = _listed(daft, path, include)
    check_sizes(path, {name: size for name, (_, size) in files.items()}, max_bytes)
    missing = [
        (url, place / name, size)
        for name, (url, size) in sorted(files.items())
        if not ((place / name).is_file() and (place / name).stat().st_size == size)
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(lambda one: _fetch(daft, *one), missing):
            pass
    (place / ".complete").touch()
    return place


def _listed(daft: Any, path: str, include: Sequence[str]) -> dict[str, tuple[str, int]]:
    """Name below the path: address and size."""
    pattern = f"{path.rstrip('/')}/**" if path.endswith("/") and not re.search(r"[*?\[]", path) else path
    try:
        listed = daft.from_glob_path(pattern).select("path", "size").to_pydict()
    except Exception as error:  # its errors have no common name
        # An empty listing is an error of the engine's own: it has no part to put together.
        nothing = "MicroPartition" in str(error) or "not found" in str(error).lower()
        said = "nothing is there (a folder is written with a / at its end)" if nothing else _line(error)
        raise MaturaError(f"Cannot list {public(path)}: {said}") from None
    root = re.split(r"[*?\[]", pattern)[0].rpartition("/")[0] + "/"
    return {
        name: (url, size or 0)
        for url, size in zip(listed["path"], listed["size"], strict=True)
        if (name := url.removeprefix(root)) and wanted(name, include)
    }


def _fetch(daft: Any, url: str, target: Path, size: int) -> None:
    """One file, a few ranges of it in memory at a time."""
    partial = target.with_name(f".{target.name[:200]}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with daft.File(url).open() as source, partial.open("wb") as file:
            while block := source.read(BLOCK):
                file.write(block)
        if (got := partial.stat().st_size) != size:
            raise MaturaError(f"Cannot fetch {public(url)}: {got:,} of {size:,} bytes came. Try again.")
        partial.replace(target)
    except MaturaError:
        raise
    except Exception as error:
        raise MaturaError(f"Cannot fetch {public(url)}: {_line(error)}") from None
    finally:
        partial.unlink(missing_ok=True)


def _line(error: Exception) -> str:
    return credentials.shown((str(error).strip() or type(error).__name__).splitlines()[0][:300])
