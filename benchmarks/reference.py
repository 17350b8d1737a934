"""The same model in transformers: loaded from our own export, as its users would load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matura import api
from matura.core.artifact import Artifact
from matura.core.errors import ModelNotFound
from matura.core.files import write_json
from matura.core.workspace import Workspace


def find_model(reference: str) -> Artifact:
    """The model in the workspace, pulled when it is not there."""
    place = Workspace()
    try:
        return place.find(reference)
    except ModelNotFound:
        with place.lock(wait=True):
            return api.pull(reference, place)


def folder(made: Artifact) -> Path:
    """A Hugging Face folder with the model and its tokenizer; written once.

    Its generation defaults are empty: an answer of the peer ends by its length only, and nothing changes its scores.
    """
    from matura.model import store
    from matura.stages import export
    from matura.tokenizer import conversation

    place = Workspace().root / "benchmarks" / f"export-{made.id[:12]}"
    if not (place / "done").is_file():
        export.write_hf(place, store.load(made.path), conversation.load(made.path), "F32")
        write_json(place / "generation_config.json", {})
        (place / "done").touch()
    return place


def tokenizer(made: Artifact) -> Any:
    """transformers' tokenizer of the folder, with the template and the roles of the model."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder(made))


def model(made: Artifact) -> Any:
    """transformers' language model of the folder, in evaluation mode."""
    import torch
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(folder(made), dtype=torch.float32)
    return loaded.eval()
