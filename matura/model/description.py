"""What a model's folder says of the model, without its weights: `model.json` and `adapter.json`. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matura.core.config import parse
from matura.core.errors import FormatError
from matura.core.files import read_json
from matura.core.peft_settings import Tuning
from matura.model.config import ModelConfig

CONFIG, ADAPTER_CONFIG = "model.json", "adapter.json"


def read_config(folder: str | Path) -> ModelConfig:
    """`model.json` of a model artifact's folder."""
    path = Path(folder) / CONFIG
    return parse(ModelConfig, _read(path, "a model's settings"), str(path))


def adapter_settings(folder: str | Path) -> Tuning | None:
    """How a model was tuned whose update stands beside its parent; None for a whole model."""
    return read_tuning(folder) if (Path(folder) / ADAPTER_CONFIG).is_file() else None


def read_tuning(folder: str | Path) -> Tuning:
    """`adapter.json`. Raises FormatError."""
    path = Path(folder) / ADAPTER_CONFIG
    found = _read(path, "an adapter's settings")
    if "rank" in found:  # written before there were other methods than LoRA
        found = {"method": "lora", "lora": found}
    return parse(Tuning, found, str(path))


def _read(path: Path, what: str) -> dict[str, Any]:
    try:
        return read_json(path, limit=1 << 20, what=what)
    except OSError as error:
        raise FormatError(f"{path}: cannot read {what}: {error.strerror or error}") from error
