"""Bring another project's model in: checked, converted once, complete."""

from typing import Annotated

from pydantic import Field

from matura.core import config
from matura.core.artifact import Artifact, Draft, RawInput
from matura.core.config import Input
from matura.core.plan import Estimate

KIND = "model"
VERSION = 3


class Config(config.Config):
    """What was asked for, and the files it led to."""

    reference: str = Field(description="What the model was called")
    files: Annotated[str, Input("raw")] = Field(
        description="A GGUF file, or a folder in the Hugging Face layout"
    )


def estimate(config: Config, inputs: dict[str, Artifact | RawInput | None]) -> Estimate:
    """Quantized files grow to float32."""
    raw = inputs.get("files")
    size = raw.bytes if isinstance(raw, RawInput) else 100 << 20
    return Estimate(seconds=size / (40 << 20), memory_bytes=7 * size, disk_bytes=7 * size)


def run(config: Config, inputs: dict[str, Artifact | RawInput], draft: Draft) -> Artifact:
    """Write weights, settings, tokenizer, conversation format and generation defaults. Raises FormatError."""
    from matura.model import checkpoint as checkpoints
    from matura.model import store
    from matura.model.counting import count_parameters
    from matura.tokenizer import conversation, reading

    raw = inputs["files"]
    assert isinstance(raw, RawInput)
    format = conversation.from_files(reading.read(raw.path))
    checkpoint = checkpoints.read(raw.path)
    model = store.build(checkpoint, raw.path)
    store.save(draft.path, model)
    format.save(draft.path)
    parameters, _ = count_parameters(checkpoint.config)
    source = f", weights were {checkpoint.quantization}" if checkpoint.quantization else ""
    summary = {
        "line": f"{config.reference}: {parameters / 1e6:.0f}M parameters, {checkpoint.config.family}{source}",
        "reference": config.reference,
        "parameters": parameters,
        "source_quantization": checkpoint.quantization,
    }
    return draft.commit(summary)
