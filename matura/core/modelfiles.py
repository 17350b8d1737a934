"""Which files make a model, and where in a folder it is. Data only: never pickle, never code."""

import re
from pathlib import Path, PurePosixPath

from matura.core.errors import ModelNotFound

MODEL_SUFFIXES = (".safetensors", ".gguf", ".json", ".txt", ".jinja", ".model")
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
ADVICE = "Only safetensors and GGUF are read, never pickle: convert it first, with the tool that made it."
_PART = re.compile(r".*\.gguf\.part\d+")


def is_model_file(name: str) -> bool:
    """Whether a file of a wheel or repository belongs to a model and is safe to read."""
    path = PurePosixPath(name)
    if path.name.startswith(".") or any(part.endswith((".dist-info", ".data")) for part in path.parts[:-1]):
        return False
    return path.suffix in MODEL_SUFFIXES or _PART.fullmatch(path.name) is not None


def locate(folder: Path, what: str) -> Path:
    """The one model in a folder tree: a GGUF file, or a folder with config.json and safetensors.

    Raises ModelNotFound when there is none, or more than one; `what` names the whole in the message.
    """
    layouts = sorted({path.parent for path in folder.rglob("*.safetensors")})
    found = [path for path in layouts if (path / "config.json").is_file()] or sorted(folder.rglob("*.gguf"))
    if len(found) == 1:
        return found[0]
    if found:
        listed = "\n".join(f"  {path}" for path in found)
        raise ModelNotFound(f"{what} holds {len(found)} models; give the path of the one you mean:\n{listed}")
    raise ModelNotFound(f"{what} holds no model: neither a GGUF file nor config.json with safetensors.")
