"""Which files make a model, and where in a folder it is. Data only: never pickle, never code."""

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from matura.core.errors import FormatError, ModelNotFound

MODEL_SUFFIXES = (".safetensors", ".gguf", ".json", ".txt", ".jinja", ".model")
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
ADVICE = "Only safetensors and GGUF are read, never pickle: convert it first, with the tool that made it."
MAX_PIECES = 1000
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_PART = re.compile(r"(?P<stem>.+\.gguf)\.part(?P<number>\d{1,5})")


def is_model_file(name: str) -> bool:
    """Whether a file of a wheel or repository belongs to a model and is safe to read."""
    path = PurePosixPath(name)
    if path.name.startswith(".") or any(part.endswith((".dist-info", ".data")) for part in path.parts[:-1]):
        return False
    return path.suffix in MODEL_SUFFIXES or _PART.fullmatch(path.name) is not None


def is_part(name: str) -> bool:
    """Whether a file is a piece of one GGUF file that was cut (`name.gguf.part00`), not a GGUF file itself."""
    return _PART.fullmatch(name) is not None


def ggufs(names: Iterable[str]) -> dict[str, list[str]]:
    """The GGUF models among these file names: the name that opens each one -> all its files in order.

    A split model (`name-00001-of-00003.gguf`) and a file that was cut (`name.gguf.part00`) have several.
    """
    found: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for name in names:
        if match := _SHARD.fullmatch(name):
            key, number = (match["stem"], match["count"]), int(match["number"])
        elif match := _PART.fullmatch(name):
            key, number = (match["stem"], "parts"), int(match["number"])
        elif name.endswith(".gguf"):
            key, number = (name, ""), 0
        else:
            continue
        found.setdefault(key, []).append((number, name))
    models = [[name for _, name in sorted(files)] for _, files in sorted(found.items())]
    return {files[0]: files for files in models}


def pieces(path: Path) -> list[Path]:
    """All files of the model that `path` opens, in order; `path` alone when its name tells of no others.

    Raises FormatError when `path` is not the first of them or one is missing, naming it.
    """
    if not path.is_file():
        return [path]
    if match := _SHARD.fullmatch(path.name):
        first, last = 1, int(match["count"])
    elif match := _PART.fullmatch(path.name):
        others = [_PART.fullmatch(other.name) for other in path.parent.iterdir()]
        numbers = [int(other["number"]) for other in others if other and other["stem"] == match["stem"]]
        first, last = min(1, *numbers), max(numbers)
    else:
        return [path]
    if last - first >= MAX_PIECES:
        raise FormatError(f"{path}: a model in {last - first + 1} files; at most {MAX_PIECES} are read.")
    digits = len(match["number"])
    before, after = path.name[: match.start("number")], path.name[match.end("number") :]
    names = [f"{before}{number:0{digits}d}{after}" for number in range(first, last + 1)]
    if int(match["number"]) != first:
        raise FormatError(
            f"{path}: this is not the first file of its model. Give {names[0]}, with the others beside it."
        )
    missing = [name for name in names if not path.with_name(name).is_file()]
    if missing:
        raise FormatError(
            f"{path}: {len(missing)} of the {len(names)} files of this model are missing: "
            f"{', '.join(missing[:3])}. Put them beside it, or download them again."
        )
    return [path.with_name(name) for name in names]


def only_gguf(folder: Path) -> Path:
    """The file that opens the one GGUF model in a folder. Raises FormatError when there is none, or several."""
    found = list(ggufs(path.name for path in folder.iterdir()))
    if len(found) != 1:
        listed = f": {', '.join(found[:5])}" if found else ""
        raise FormatError(
            f"{folder}: expected a config.json or one GGUF model, found {len(found)} GGUF models{listed}"
        )
    return folder / found[0]


def locate(folder: Path, what: str) -> Path:
    """The one model in a folder tree: a GGUF file (the first, if it is in several), or a folder with config.json
    and safetensors.

    Raises ModelNotFound when there is none, or more than one; `what` names the whole in the message.
    """
    layouts = sorted({path.parent for path in folder.rglob("*.safetensors")})
    found = [path for path in layouts if (path / "config.json").is_file()]
    found = found or [Path(name) for name in ggufs(str(path) for path in folder.rglob("*.gguf*"))]
    if len(found) == 1:
        return found[0]
    if found:
        listed = "\n".join(f"  {path}" for path in found)
        raise ModelNotFound(f"{what} holds {len(found)} models; give the path of the one you mean:\n{listed}")
    raise ModelNotFound(f"{what} holds no model: neither a GGUF file nor config.json with safetensors.")
