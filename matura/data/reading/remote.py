"""What is far away comes into the downloads folder first: object stores and web addresses, datasets of the hub.

A download is complete or absent: it arrives beside its place and is moved there last.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matura.core.errors import MaturaError
from matura.data.reading import store, web
from matura.data.reading.choice import check_sizes, wanted
from matura.data.reading.folder import kind_of

STORES = ("s3://", "s3a://", "gs://", "gcs://", "az://", "abfs://", "abfss://")
HUB = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+?))?(?::(?P<inside>[\w./ -]+))?")
HUB_FORM = "hf:organisation/dataset, with @revision and :folder after it if you like"


def is_remote(path: str) -> bool:
    """Whether a path must be fetched."""
    return path.startswith((*STORES, "http://", "https://", "hf:"))


def fetch(path: str, downloads: Path, *, max_bytes: int, include: Sequence[str] = ()) -> Path:
    """Bring it here; see :func:`matura.data.reading.fetch`."""
    if path.startswith("hf:"):
        return _dataset(path, downloads, max_bytes, include)
    place = downloads / "sources" / hashlib.sha256("\n".join((path, *include)).encode()).hexdigest()[:16]
    if path.startswith("http"):
        return web.fetch_file(path, place, max_bytes)
    return store.fetch_folder(path, place, max_bytes, include)


def _dataset(path: str, downloads: Path, max_bytes: int, include: Sequence[str]) -> Path:
    """The data files of a dataset: Parquet where it has it, else what can be read, else the hub's own conversion."""
    match = HUB.fullmatch(path)
    if match is None:
        raise MaturaError(f"expected {HUB_FORM}; found {path!r}.")
    import huggingface_hub

    api: Any = huggingface_hub.HfApi()
    repo, revision, inside = match["repo"], match["revision"], (match["inside"] or "").strip("/")
    here = downloads / "datasets"
    if revision and (place := _place(here, repo, revision, inside, include)).joinpath(".complete").is_file():
        return place
    chosen: dict[str, int] = {}
    try:
        for asked in (revision, None if revision else "refs/convert/parquet"):
            info = api.dataset_info(repo, revision=asked, files_metadata=True)
            sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
            chosen = choose(sizes, inside, include)
            if chosen or revision:
                break
    except Exception as error:  # the client's transport raises its own types
        raise MaturaError(
            f"Cannot list {path}: {_line(error)}\nCheck name and network; a gated dataset needs `hf auth login`."
        ) from error
    check_sizes(path, chosen, max_bytes)
    place = _place(here, repo, info.sha, inside, include)
    if (place / ".complete").is_file():
        return place
    try:
        for name in sorted(chosen):
            huggingface_hub.hf_hub_download(
                repo, name, repo_type="dataset", revision=info.sha, local_dir=str(place)
            )
    except Exception as error:
        raise MaturaError(
            f"Cannot fetch {path}: {_line(error)}\nTry again: what has arrived is kept."
        ) from error
    shutil.rmtree(place / ".cache", ignore_errors=True)  # the client's own bookkeeping
    (place / ".complete").touch()
    return place


def choose(sizes: dict[str, int], inside: str, include: Sequence[str]) -> dict[str, int]:
    """Which files of a dataset: below the folder and as included; Parquet alone if there is any."""
    below = {
        name: size
        for name, size in sizes.items()
        if (not inside or name == inside or name.startswith(inside + "/")) and wanted(name, include)
    }
    if include:
        return below
    tables = {name: size for name, size in below.items() if kind_of(name) == "table"}
    return {name: size for name, size in tables.items() if name.endswith(".parquet")} or tables


def _place(folder: Path, repo: str, commit: str, inside: str, include: Sequence[str]) -> Path:
    part = hashlib.sha256("\n".join((inside, *include)).encode()).hexdigest()[:8]
    return folder / f"{repo.replace('/', '--')}-{commit.replace('/', '--')}" / part


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
