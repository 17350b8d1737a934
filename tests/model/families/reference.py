"""Tiny random models of transformers, and our reading of what they save."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from matura.model import checkpoint, store
from matura.model.transformer import Transformer

VOCABULARY = 61


def randomized(model: Any, *, seed: int = 0, scale: float = 0.2) -> Any:
    """Weights (and norms and biases, which begin at one and zero) large enough that every part matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and "embed_positions" not in name:
                base = 1.0 if tensor.dim() == 1 and "norm" in name.lower() and "bias" not in name else 0.0
                tensor.copy_(base + scale * torch.randn(tensor.shape, generator=generator))
    return model.eval()


def saved(folder: Path, model: Any) -> Transformer:
    """What we read from the folder that transformers writes for this model."""
    model.save_pretrained(folder)
    return read(folder)


def read(folder: Path) -> Transformer:
    """The model of a Hugging Face folder."""
    return store.build(checkpoint.read(folder), folder)


def written(folder: Path, model: Transformer) -> Path:
    """A folder with this model as we write it for transformers."""
    folder.mkdir()
    checkpoint.write_hf(folder, model)
    return folder


def ids(*shape: int, seed: int = 1) -> torch.Tensor:
    """Token ids that are no padding in any family."""
    return torch.randint(5, VOCABULARY - 1, shape, generator=torch.Generator().manual_seed(seed))


def padding(*lengths: int, left: bool = False) -> torch.Tensor:
    """Boolean [B, S], True at real tokens."""
    S = max(lengths)
    return torch.tensor([[(i >= S - n) if left else (i < n) for i in range(S)] for n in lengths])


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Equal to 1e-5."""
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
