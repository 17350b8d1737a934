"""Tokenizer, chat template and defaults out of another project's checkpoint: a GGUF file or a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

from matura.core import gguf
from matura.core.modelfiles import only_gguf
from matura.tokenizer import from_gguf, from_hf
from matura.tokenizer.tokenizer import TokenizerFiles


def read(path: str | Path) -> TokenizerFiles:
    """What a checkpoint says of its texts. A folder without config.json may hold one GGUF model.

    Raises FormatError, naming the file.
    """
    path = Path(path)
    if path.is_dir() and (path / "config.json").is_file():
        return from_hf.tokenizer_files(path)
    if path.is_dir():
        path = only_gguf(path)
    return from_gguf.tokenizer_files(gguf.read(path).metadata)
