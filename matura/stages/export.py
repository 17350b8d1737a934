"""Write a model for other programs: a Hugging Face folder, or one GGUF file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from matura.core import config
from matura.core.artifact import Artifact, Draft, RawInput
from matura.core.config import Input
from matura.core.errors import MaturaError
from matura.core.files import atomic_write, hash_file, size_text, tree_bytes
from matura.core.plan import Estimate

if TYPE_CHECKING:
    from matura.model.transformer import Transformer
    from matura.tokenizer.conversation import Format

KIND = "export"
VERSION = 2
HF_FOLDER, GGUF_FILE = "hf", "model.gguf"
WEIGHTS = {"hf": ("F32", "F16", "BF16"), "gguf": ("F16", "F32", "Q8_0", "Q4_0", "Q4_1")}
"""What each format can hold; the first is the default."""


class Config(config.Config):
    """Which model, and how it is written."""

    model: Annotated[str, Input("model")] = Field(
        description="A model; LoRA updates are added into the weights"
    )
    format: Literal["hf", "gguf"] = Field("hf", description="A Hugging Face folder, or one GGUF file")
    weights: Literal["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"] | None = Field(
        None, description="Type of the matrices; none: F32 in hf (the same bits), F16 in gguf"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.weights is not None and self.weights not in WEIGHTS[self.format]:
            known = ", ".join(WEIGHTS[self.format])
            raise ValueError(f"format={self.format} has no weights={self.weights}; it has {known}")
        return self


def estimate(config: Config, inputs: dict[str, Artifact | RawInput | None]) -> Estimate:
    """One copy of the weights in memory and one on disk."""
    model = inputs.get("model")
    found = model.summary.get("parameters") if isinstance(model, Artifact) else None
    parameters = int(found or 135e6)
    bits = {"F32": 32, "F16": 16, "BF16": 16, "Q8_0": 8.5, "Q4_0": 4.5, "Q4_1": 5}[_weights(config)]
    size = int(parameters * bits / 8) + (16 << 20)
    return Estimate(
        seconds=2 + parameters / 100e6, memory_bytes=(512 << 20) + 8 * parameters, disk_bytes=size
    )


def run(config: Config, inputs: dict[str, Artifact | RawInput], draft: Draft) -> Artifact:
    """Write the files into `hf/`, or `model.gguf`. Raises FormatError when the format has no place for the model."""
    from matura.evaluate import model_card
    from matura.model import store
    from matura.model.peft.lora import merge_lora
    from matura.tokenizer import conversation

    source = inputs["model"]
    assert isinstance(source, Artifact)
    format = conversation.load(source.path)
    model = merge_lora(store.load(source.path))
    weights = _weights(config)
    if config.format == "hf":
        files = HF_FOLDER
        write_hf(draft.path / files, model, format, weights)
        model_card.write(draft.path / files, source, weights)
    else:
        from matura.model import gguf_writer
        from matura.tokenizer import to_gguf

        files = GGUF_FILE
        metadata = to_gguf.metadata(format, model.config.vocabulary)
        gguf_writer.write(draft.path / files, model, metadata, weights=weights)
    size = tree_bytes(draft.path / files)
    what = "Hugging Face folder" if config.format == "hf" else "GGUF file"
    summary = {
        "line": f"{what}, {model.config.family}, {weights}, {size_text(size)}",
        "files": files,
        "weights": weights,
        "family": model.config.family,
        "source_quantization": source.summary.get("source_quantization"),
    }
    # The card tells of exams, which may be sat after an export: it is no part of what the export is.
    return draft.commit(summary, logs=[f"{files}/{model_card.FILE}"] if config.format == "hf" else [])


def write_hf(folder: Path, model: Transformer, format: Format, weights: str) -> None:
    """Everything that transformers needs of a model, in one folder."""
    from matura.model import checkpoint
    from matura.tokenizer import to_hf

    config = model.config
    checkpoint.write_hf(folder, model, weights=weights, settings=to_hf.token_ids(format))
    inputs = ["input_ids", "attention_mask"]
    if config.last_stack.segments:
        inputs.insert(1, "token_type_ids")
    to_hf.write(folder, format, context=config.context, inputs=inputs, start_id=config.start_id)


def copy_to(made: Artifact, place: str | Path) -> list[Path]:
    """Copy the files of an export to a folder outside, or a GGUF file to a path that ends in `.gguf`.

    Files that are there already with the same content stay. Raises MaturaError when a different one is there; then
    nothing is copied.
    """
    goals = _goals(made, Path(place).expanduser())
    for source, goal in goals.items():
        if any(parent.is_file() for parent in goal.parents):
            raise MaturaError(f"{goal.parent} cannot be a folder: there is a file in its place")
        if goal.is_dir() or (goal.is_file() and not _same(source, goal)):
            raise MaturaError(
                f"{goal} is there already and differs from the export; nothing was copied. Choose another folder, or "
                f"remove it. The export itself is {source.parent}"
            )
    for source, goal in goals.items():
        if goal.is_file():
            continue
        goal.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(goal) as temporary:
            shutil.copyfile(source, temporary)
    return list(goals.values())


def _goals(made: Artifact, place: Path) -> dict[Path, Path]:
    """Every file of the export, and where it goes."""
    names = [name for name in made.record["files"] if name == GGUF_FILE or name.startswith(f"{HF_FOLDER}/")]
    single = names == [GGUF_FILE] and place.suffix == ".gguf"
    return {
        made.file(name): place if single else place / name.removeprefix(f"{HF_FOLDER}/") for name in names
    }


def _same(one: Path, other: Path) -> bool:
    return one.stat().st_size == other.stat().st_size and hash_file(one) == hash_file(other)


def _weights(config: Config) -> str:
    return config.weights or WEIGHTS[config.format][0]
