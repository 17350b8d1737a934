"""What is far away comes into the downloads folder first: object stores and web addresses, datasets of the hub.

A download is complete or absent: it arrives beside its place and is moved there last.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from matura.core.errors import MaturaError
from matura.core.files import size_text
from matura.data.reading.folder import kind_of
from matura.data.sources import matches

STORES = ("s3://", "s3a://", "gs://", "gcs://", "az://", "abfs://", "abfss://")
HUB = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+?))?(?::(?P<inside>[\w./ -]+))?")
HUB_FORM = "hf:organisation/dataset, with @revision and :folder after it if you like"
SECONDS = 60.0
BLOCK = 1 << 20


def is_remote(path: str) -> bool:
    """Whether a path must be fetched."""
    return path.startswith((*STORES, "http://", "https://", "hf:"))


def fetch(path: str, downloads: Path, *, max_bytes: int, include: Sequence[str] = ()) -> Path:
    """Bring it here; see :func:`matura.data.reading.fetch`."""
    if path.startswith("hf:"):
        return _dataset(path, downloads, max_bytes, include)
    place = downloads / "sources" / hashlib.sha256("\n".join((path, *include)).encode()).hexdigest()[:16]
    name = PurePosixPath(unquote(urlsplit(path).path)).name or "index.html"
    if path.startswith("http"):
        target = place / name
        if not target.is_file():
            _web(path, target, max_bytes)
        return target
    if not (place / ".complete").is_file():
        _store(path, place, max_bytes, include)
    return place


def _web(url: str, target: Path, max_bytes: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    request = urllib.request.Request(url, headers={"User-Agent": "matura"})
    size = 0
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer, partial.open("wb") as file:
            claimed = int(answer.headers.get("Content-Length") or 0)
            if claimed > max_bytes:
                raise _too_large(url, claimed, max_bytes)
            while block := answer.read(BLOCK):
                size += len(block)
                if size > max_bytes:
                    raise _too_large(url, size, max_bytes)
                file.write(block)
        if claimed and size < claimed:
            raise MaturaError(f"{_public(url)} broke off after {size:,} of {claimed:,} bytes. Try again.")
        partial.replace(target)
    except urllib.error.HTTPError as error:
        error.close()
        raise MaturaError(f"Cannot fetch {_public(url)}: {error.code} {error.reason}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise MaturaError(f"Cannot fetch {_public(url)}: {_line(error)}") from error
    finally:
        partial.unlink(missing_ok=True)


def _store(path: str, place: Path, max_bytes: int, include: Sequence[str]) -> None:
    """Files of an object store through Daft, one in memory at a time."""
    os.environ["DO_NOT_TRACK"] = "true"
    os.environ["DAFT_ANALYTICS_ENABLED"] = "0"
    import daft

    pattern = path if re.search(r"[*?\[]", path) else f"{path.rstrip('/')}/**" if path.endswith("/") else path
    try:
        listed = daft.from_glob_path(pattern).select("path", "size").to_pydict()
    except Exception as error:  # its errors have no common name
        raise MaturaError(f"Cannot list {_public(path)}: {_line(error)}") from error
    root = re.split(r"[*?\[]", pattern)[0].rpartition("/")[0] + "/"
    files = {
        name: (url, size or 0)
        for url, size in zip(listed["path"], listed["size"], strict=True)
        if (name := url.removeprefix(root)) and wanted(name, include)
    }
    _check(path, {name: size for name, (_, size) in files.items()}, max_bytes)
    for name, (url, size) in sorted(files.items()):
        target = place / name
        if not target.resolve().is_relative_to(place.resolve()):
            raise MaturaError(f"{_public(path)}: {name} leads out of the folder.")
        if target.is_file() and target.stat().st_size == size:
            continue
        try:
            frame = daft.from_pydict({"path": [url]})
            (data,) = frame.select(frame["path"].download()).to_pydict()["path"]
        except Exception as error:
            raise MaturaError(f"Cannot fetch {_public(url)}: {_line(error)}") from error
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        partial.write_bytes(data)
        partial.replace(target)
    (place / ".complete").touch()


def _dataset(path: str, downloads: Path, max_bytes: int, include: Sequence[str]) -> Path:
    """The data files of a dataset: Parquet where it has it, else what can be read, else the hub's own conversion."""
    match = HUB.fullmatch(path)
    if match is None:
        raise MaturaError(f"expected {HUB_FORM}; found {path!r}.")
    import huggingface_hub

    api: Any = huggingface_hub.HfApi()
    repo, revision, inside = match["repo"], match["revision"], (match["inside"] or "").strip("/")
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
    _check(path, chosen, max_bytes)
    place = downloads / "datasets" / f"{repo.replace('/', '--')}-{info.sha}" / _key(inside, include)
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


def wanted(name: str, include: Sequence[str]) -> bool:
    """Whether a file is worth fetching: included, or of a kind that can be read."""
    if any(part.startswith(".") for part in PurePosixPath(name).parts):
        return False
    return matches(name, include) if include else bool(kind_of(name))


def _check(path: str, sizes: dict[str, int], max_bytes: int) -> None:
    if not sizes:
        raise MaturaError(f"{_public(path)} holds nothing that can be read. Say with `include` what to take.")
    if (total := sum(sizes.values())) > max_bytes:
        raise _too_large(path, total, max_bytes)


def _too_large(path: str, size: int, max_bytes: int) -> MaturaError:
    return MaturaError(
        f"{_public(path)} has {size_text(size)}, at most {size_text(max_bytes)} are fetched. "
        "Choose a part of it with `include`, or free disk space."
    )


def _public(url: str) -> str:
    """A URL without user, password and signature."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _key(inside: str, include: Sequence[str]) -> str:
    return hashlib.sha256("\n".join((inside, *include)).encode()).hexdigest()[:8]


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
