"""One plain model that needs nothing else: LoRA updates added into the weights, all of them or a share, of one adapter
or of several; or a model on the way from a parent to its fine-tuned child."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from matura.core import config, costs
from matura.core.artifact import Artifact, Draft, RawInput
from matura.core.config import Input
from matura.core.errors import ConfigError, MaturaError
from matura.core.files import write_json
from matura.core.forgetting_settings import Front, without_unread_text
from matura.core.inputs import inputs_of, located
from matura.core.plan import Estimate

if TYPE_CHECKING:
    from matura.core.workspace import Workspace
    from matura.model.interpolate import Line
    from matura.model.peft.adapter import Adapter
    from matura.model.transformer import Transformer
    from matura.tokenizer.conversation import Format
    from matura.train.batches import Example
    from matura.train.meter import Text

KIND = "model"
VERSION = 4
PROBE = "The quick brown fox jumps over the lazy dog. 1, 2, 3: a list of numbers, and a question?"
UPDATES_ONLY = ("more", "base", "text", "new_tokens", "tolerance")
"""Settings that mean nothing to whole models."""


class Other(config.Config):
    """One more adapter of the same parent."""

    model: Annotated[str, Input("model")] = Field(description="A model with LoRA updates of the same parent")
    alpha: float = Field(1.0, description="Factor of its updates; below zero it takes away what they taught")


class Config(config.Config):
    """Which models, and how much of what they learned."""

    model: Annotated[str, Input("model")] = Field(description="A model with LoRA updates, or a whole one")
    alpha: float = Field(
        1.0,
        ge=0,
        le=1,
        description="How far to go from the parent (0) to the model (1): the weights between them are mixed; of "
        "updates, their factor",
    )
    more: dict[str, Other] = Field(
        default_factory=dict, description="Other updates of the same parent, added with factors of their own"
    )
    parent: Annotated[str | None, Input("model")] = Field(
        None, description="Of a whole model: what it was tuned from; none: the one it names itself"
    )
    front: Front = Front()
    base: Literal["seen", "float32"] = Field(
        "seen",
        description="Add to the weights that the updates were trained on (the ones that 4 bits stand for, where the "
        "base was int4), or to the parent's own in float32",
    )
    text: str = Field(
        PROBE, min_length=1, description="What logits are compared on before and after updates are added"
    )
    new_tokens: int = Field(
        64, ge=0, description="Tokens that the model itself writes after it, compared too"
    )
    tolerance: float = Field(
        1e-4, gt=0, description="Largest change of a logit that is accepted, as a share of the largest logit"
    )

    @model_validator(mode="before")
    @classmethod
    def _general_text(cls, values: Any) -> Any:
        front = values.get("front", {}) if isinstance(values, dict) else {}
        unread = isinstance(front, dict) and (not front.get("alphas") or bool(front.get("replay")))
        return without_unread_text(values, "front", unread)


def raw_input(config: Config, setting: str, workspace: "Workspace | None" = None) -> Path:
    """Where general text or files of conversations are on this machine; what is far away is fetched first."""
    from matura.data import reading

    if setting == "front.conversations":
        return reading.located(inputs_of(config)[setting], workspace)
    return located(config, setting, workspace)


def estimate(config: Config, inputs: dict[str, Artifact | RawInput | None]) -> Estimate:
    """Two copies of the weights in memory, one on disk; time for what the models on the front read."""
    read = 2 * config.front.tokens * (len(config.front.alphas) + 1) if config.front.alphas else 0
    return Estimate(seconds=10 + read / costs.READ, memory_bytes=1400 << 20, disk_bytes=560 << 20)


def run(config: Config, inputs: dict[str, Artifact | RawInput], draft: Draft) -> Artifact:
    """Write the model with its tokenizer and conversation format, and report how far the logits moved when updates were
    added. With `front.alphas` also front.json and report.html.

    Raises MaturaError when there is nothing to merge or the logits moved by more than `tolerance`.
    """
    from matura.evaluate import front
    from matura.model import store
    from matura.tokenizer import conversation

    child = inputs["model"]
    assert isinstance(child, Artifact)
    format = conversation.load(child.path)
    origin = child
    settings = store.adapter_settings(child.path)
    if settings is None:
        line, parent = _between(config, inputs, child)
    else:
        seen, line, parent = _along_updates(config, inputs)
    texts = _texts(config, inputs, format)
    rows = front.measure(line, parent, config.front.alphas, *texts) if texts else []
    if settings is None:
        model, added = line(config.alpha), dict[str, Any]()
    else:
        model, added = _added(config, format, seen(config.alpha), line, texts)
        added["base"] = config.base if settings.base.format == "int4" else "float32"
        if settings.base.format == "int4" and config.base == "float32":  # the packed weights are left behind
            origin = child.input("model")
    store.save(draft.path, model)
    format.save(draft.path)
    summary = {
        "line": _told(config, rows, added),
        "alpha": config.alpha,
        **added,
        "front": rows,
        "source_quantization": origin.summary.get("source_quantization"),
    }
    if rows:
        write_json(draft.path / "front.json", {"rows": rows})
        front.write(draft.path, rows, config.alpha, _about(config))
    return draft.commit(summary, logs=[front.FILE] if rows else [])


def _between(
    config: Config, inputs: dict[str, Artifact | RawInput], child: Artifact
) -> "tuple[Line, Transformer]":
    """The way from its parent to a whole model, and the parent."""
    from matura.model import interpolate, store
    from matura.model.peft import tuning

    if unread := config.changed(*UPDATES_ONLY):
        raise ConfigError(f"{unread[0]} is for LoRA updates, and {child.path} has none: it is a whole model")
    if config.alpha == 1 and not config.front.alphas:
        raise MaturaError(
            f"{child.path} has no LoRA updates: there is nothing to merge. To go back towards its parent, give an "
            "alpha below 1"
        )
    given = inputs.get("parent")
    if given is None and "model" not in child.inputs:
        raise ConfigError(f"{child.path} does not say what it was tuned from: give parent")
    before = given if isinstance(given, Artifact) else child.input("model")
    parent = tuning.float_base(tuning.merge(store.load(before.path)))
    return interpolate.between(parent, store.load(child.path)), parent


def _along_updates(
    config: Config, inputs: dict[str, Artifact | RawInput]
) -> "tuple[Line, Line, Transformer]":
    """The way that the updates were trained for, the one on the weights that they are added to, and those weights."""
    from matura.core.peft_settings import BaseConfig
    from matura.model import interpolate, store

    parent, adapter, others = _adapters(config, inputs)
    held = adapter.settings.base
    trained_on = store.load(parent.path, base=held)
    seen = interpolate.along_updates(trained_on, adapter, others)
    if config.base == "seen" or held == BaseConfig():
        return seen, seen, trained_on
    plain = store.load(parent.path)
    return seen, interpolate.along_updates(plain, adapter, others), plain


def _adapters(
    config: Config, inputs: dict[str, Artifact | RawInput]
) -> "tuple[Artifact, Adapter, list[tuple[Adapter, float]]]":
    """The parent of all the adapters, the model's own, and the others with their factors."""
    from matura.model import store

    if "parent" in inputs:
        raise ConfigError(
            f"parent is for whole models: {inputs['model'].path} knows what its updates belong to"
        )
    adapters, parents = [], {}
    for name in ("model", *(f"more.{other}.model" for other in config.more)):
        made = inputs[name]
        assert isinstance(made, Artifact)
        if store.adapter_settings(made.path) is None:
            raise MaturaError(f"{made.path} has no LoRA updates: there is nothing to merge")
        adapters.append(store.read_adapter(made.path))
        parents[made.input("model").id] = made.input("model")
    if len(parents) > 1:
        places = " and ".join(str(one.path) for one in parents.values())
        raise ConfigError(
            f"the adapters have different parents ({places}); only those of one can be added up"
        )
    (parent,) = parents.values()
    alphas = [other.alpha for other in config.more.values()]
    return parent, adapters[0], list(zip(adapters[1:], alphas, strict=True))


def _added(
    config: Config, format: "Format", seen: "Transformer", line: "Line", texts: "tuple[Text, Text] | None"
) -> "tuple[Transformer, dict[str, Any]]":
    """The plain model with the updates in its weights, and how far it is from the one that has them beside, `seen`: in
    logits, and in bits per byte of the task where there is text of it."""
    from matura.evaluate.outputs import compared, outputs, read_and_written
    from matura.model.peft import tuning
    from matura.train.meter import Meter

    ids_1T = read_and_written(seen, format.tokenizer, config.text, config.new_tokens)
    before = outputs(seen, ids_1T)
    model = tuning.float_base(tuning.merge(line(config.alpha)))
    change = compared(before, outputs(model, ids_1T))
    if not change["relative_logit_change"] <= config.tolerance:
        raise MaturaError(
            f"merging moved a logit by {change['relative_logit_change']:g} of the largest, more than "
            f"tolerance={config.tolerance:g}"
        )
    found = {**change, "positions": ids_1T.shape[1]}
    if texts:
        task = Meter(texts[0], seen)
        found |= {"task_bpb_before": task.parent.bpb, "task_bpb_after": task.read(model).bpb}
    return model, found


def _texts(
    config: Config, inputs: dict[str, Artifact | RawInput], format: "Format"
) -> "tuple[Text, Text] | None":
    """Held-out text of the task and of the rest; None where no model is measured."""
    from matura.evaluate.general import control_texts
    from matura.model import store
    from matura.model.config import LanguageHead
    from matura.train import material
    from matura.train.meter import Text

    asked = config.front
    if not asked.alphas:
        return None
    made = inputs["model"]
    assert isinstance(made, Artifact)
    child = store.read_config(made.path)
    if child.decoder is None or not isinstance(child.head, LanguageHead):
        raise ConfigError(f"front measures models that write, and {made.path} does not")

    def held(name: str) -> "list[Example]":
        given = inputs[f"front.{name}"]
        data = material.as_trained(made, given)
        rows = material.read(given, data).heldout
        return material.make(rows, format, asked.sequence, data).examples

    source = "corpus" if asked.corpus else "conversations"
    learned = held(source)
    wheel = inputs.get("front.text")
    general = (
        control_texts(wheel, format, asked.sequence) if wheel else held("replay") if asked.replay else []
    )
    task, rest = (
        Text.of(material.spread(made, asked.tokens), format.tokenizer) for made in (learned, general)
    )
    if not task.bytes:
        raise MaturaError(
            f"front.{source}: none of it is held out, so there is nothing to measure on; give one with a held-out part"
        )
    if not rest.bytes:
        raise MaturaError(
            "front: there is no general text to measure on; give front.replay with a held-out part, or front.text"
        )
    return task, rest


def _told(config: Config, rows: list[dict[str, float]], added: dict[str, Any]) -> str:
    from matura.evaluate import front

    line = "merged" + (f" at alpha {config.alpha:g}" if config.alpha < 1 else "")
    if added:
        line += (
            f"; largest logit change {added['largest_logit_change']:.1e}, same likeliest token at "
            f"{added['same_choice']:.1%} of {added['positions']} positions"
        )
    if "task_bpb_after" in added:
        line += (
            f"; task {added['task_bpb_before']:.4f} -> {added['task_bpb_after']:.4f} bits per byte by merging"
        )
    here = next((row for row in rows if row["alpha"] == config.alpha), None)
    return line + (f"; {front.told(here)}" if here else "")


def _about(config: Config) -> str:
    learned = "documents" if config.front.corpus else "conversations"
    rest = "the held-out part of replay" if config.front.replay else "the exam's control texts"
    return f"Measured on held-out {learned} and on {rest}, up to {config.front.tokens:,} tokens of each."
