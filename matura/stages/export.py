"""Write a model or an adapter for other programs: a Hugging Face or PEFT folder, or one GGUF file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from matura.core import config
from matura.core.artifact import Artifact, Draft, RawInput
from matura.core.config import Input
from matura.core.errors import ConfigError, MaturaError
from matura.core.files import atomic_write, hash_file, size_text, tree_bytes
from matura.core.plan import Estimate

if TYPE_CHECKING:
    from matura.model.transformer import Transformer
    from matura.tokenizer.conversation import Format

KIND = "export"
VERSION = 2
HF_FOLDER, GGUF_FILE = "hf", "model.gguf"
PLACES = {"peft": "peft", "peft-portable": "peft", "gguf-adapter": "adapter.gguf"} | {
    "hf": HF_FOLDER,
    "gguf": GGUF_FILE,
}
"""The folder or file that each format is."""
WEIGHTS = {
    "hf": ("F32", "F16", "BF16"),
    "gguf": ("F16", "F32", "Q8_0", "Q4_0", "Q4_1"),
    "peft": ("F32",),
    "peft-portable": ("F32",),
    "gguf-adapter": ("F32",),
}
"""What each format can hold; the first is the default."""
CARRIES_CARD = ("hf", "peft", "peft-portable")
"""Formats that are folders, in which a model card lies."""


class Config(config.Config):
    """Which model, and how it is written."""

    model: Annotated[str, Input("model")] = Field(
        description="A model; in hf and gguf, LoRA updates are added into the weights"
    )
    format: Literal["hf", "gguf", "peft", "peft-portable", "gguf-adapter"] = Field(
        "hf",
        description="hf: a Hugging Face folder; gguf: one GGUF file; peft: the adapter alone, as PEFT has it; "
        "peft-portable: with one scale and one rank (vLLM); gguf-adapter: the adapter alone (llama.cpp)",
    )
    weights: Literal["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"] | None = Field(
        None,
        description="Type of the matrices; none: F32 in hf (the same bits), F16 in gguf; adapters have F32",
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
    """Write the files of the format. Raises FormatError when it has no place for the model, ConfigError when the model
    has no adapter that could be written alone, or one that cannot be merged."""
    from matura.evaluate import model_card
    from matura.model import store
    from matura.model.families import registry

    source = inputs["model"]
    assert isinstance(source, Artifact)
    files, weights = PLACES[config.format], _weights(config)
    family = registry.home(store.read_config(source.path)).family
    if config.format in ("hf", "gguf"):
        _write_model(draft.path / files, source, config.format, weights)
    else:
        _write_adapter(draft.path / files, source, config.format)
    size = tree_bytes(draft.path / files)
    card = [f"{files}/{model_card.FILE}"] if config.format in CARRIES_CARD else []
    if card:
        model_card.write(draft.path / files, source, weights, adapter=config.format != "hf")
    what = {"hf": "Hugging Face folder", "gguf": "GGUF file"}.get(config.format, f"adapter, {config.format}")
    base = store.adapter_settings(source.path)
    summary = {
        "line": f"{what}, {family}, {weights}, {size_text(size)}",
        "files": files,
        "weights": weights,
        "family": family,
        "trained_on": base.base.format if base else None,
        "source_quantization": source.summary.get("source_quantization"),
    }
    # The card tells of exams, which may be sat after an export: it is no part of what the export is.
    return draft.commit(summary, logs=card)


def _write_model(place: Path, source: Artifact, format: str, weights: str) -> None:
    from matura.model import store
    from matura.model.peft import tuning
    from matura.tokenizer import conversation

    talk = conversation.load(source.path)
    model = tuning.float_base(tuning.merge(store.load(source.path)))
    if what := tuning.added(model):
        raise ConfigError(
            f"{source.path} has {what}, which no other program's model has a place for; format=peft writes a prefix"
        )
    if format == "hf":
        write_hf(place, model, talk, weights)
    else:
        from matura.model import gguf_writer
        from matura.tokenizer import to_gguf

        gguf_writer.write(place, model, to_gguf.metadata(talk, model.config.vocabulary), weights=weights)


def _write_adapter(place: Path, source: Artifact, format: str) -> None:
    from matura.model import store
    from matura.model.peft import gguf_files, peft_files

    if store.adapter_settings(source.path) is None:
        raise ConfigError(f"{source.path} is a whole model, so there is no adapter to write; use hf or gguf")
    parent = source.input("model")
    adapter, config = store.read_adapter(source.path), store.read_config(parent.path)
    if format == "gguf-adapter":
        gguf_files.write(place, adapter, config)
    else:
        base = str(parent.summary.get("reference") or parent.path.name).removeprefix("hf:")
        peft_files.write(place, adapter, config, base=base, portable=format == "peft-portable")


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
    nothing is copied. Also raises MaturaError for a place that cannot be written.
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
        try:
            goal.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(goal) as temporary:
                shutil.copyfile(source, temporary)
        except OSError as error:
            raise MaturaError(
                f"Cannot write {goal}: {error.strerror}. Choose another place with --to. The export itself is "
                f"{source.parent}"
            ) from error
    return list(goals.values())


def _goals(made: Artifact, place: Path) -> dict[Path, Path]:
    """Every file of the export, and where it goes."""
    files = made.summary["files"]
    names = [name for name in made.record["files"] if name == files or name.startswith(f"{files}/")]
    single = names == [files] and place.suffix == ".gguf"
    return {made.file(name): place if single else place / name.removeprefix(f"{files}/") for name in names}


def _same(one: Path, other: Path) -> bool:
    return one.stat().st_size == other.stat().st_size and hash_file(one) == hash_file(other)


def _weights(config: Config) -> str:
    return config.weights or WEIGHTS[config.format][0]
