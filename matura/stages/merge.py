"""Add LoRA updates into the weights: one plain model that needs nothing else."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from matura.core import config
from matura.core.artifact import Artifact, Draft, RawInput
from matura.core.config import Input
from matura.core.errors import ConfigError, MaturaError
from matura.core.peft_settings import BaseConfig
from matura.core.plan import Estimate

if TYPE_CHECKING:
    from torch import Tensor

    from matura.model.peft.adapter import Adapter
    from matura.model.transformer import Transformer
    from matura.tokenizer.conversation import Format

KIND = "model"
VERSION = 2
PROBE = "The quick brown fox jumps over the lazy dog. 1, 2, 3: a list of numbers, and a question?"


class Other(config.Config):
    """One more adapter of the same parent."""

    model: Annotated[str, Input("model")] = Field(description="A model with LoRA updates of the same parent")
    weight: float = Field(1.0, description="Factor of its updates")


class Config(config.Config):
    """Which models to merge."""

    model: Annotated[str, Input("model")] = Field(description="A model with LoRA updates")
    weight: float = Field(1.0, description="Factor of its updates")
    more: dict[str, Other] = Field(
        default_factory=dict, description="Other updates of the same parent, added with their factors"
    )
    base: Literal["seen", "float32"] = Field(
        "seen",
        description="Add to the weights that the updates were trained on (the ones that 4 bits stand for, where the "
        "base was int4), or to the parent's own in float32",
    )
    text: str = Field(PROBE, min_length=1, description="What the logits are compared on")
    new_tokens: int = Field(
        64, ge=0, description="Tokens that the model itself writes after it, compared too"
    )
    tolerance: float = Field(
        1e-4, gt=0, description="Largest change of a logit that is accepted, as a share of the largest logit"
    )


def estimate(config: Config, inputs: dict[str, Artifact | RawInput | None]) -> Estimate:
    """Two copies of the weights in memory, one on disk."""
    return Estimate(seconds=10, memory_bytes=1400 << 20, disk_bytes=560 << 20)


def run(config: Config, inputs: dict[str, Artifact | RawInput], draft: Draft) -> Artifact:
    """Write the merged model with its tokenizer and conversation format, and report how far the logits moved.

    Raises MaturaError when there is nothing to merge or the logits moved by more than `tolerance`.
    """
    import torch

    from matura.model import store
    from matura.model.peft import tuning
    from matura.model.peft.adapter import attach
    from matura.tokenizer import conversation

    child = inputs["model"]
    assert isinstance(child, Artifact)
    parent, adapter = _summed(config, inputs)
    format = conversation.load(child.path)
    model = attach(store.load(parent.path, base=adapter.settings.base), adapter).eval()
    with torch.inference_mode():
        ids = _ids(config, model, format)
        before = outputs(model, ids)
    if config.base == "float32" and adapter.settings.base != BaseConfig():
        model = attach(store.load(parent.path), adapter).eval()
    model = tuning.float_base(tuning.merge(model))
    with torch.inference_mode():
        change = compared(before, outputs(model, ids))
    if not change["relative_logit_change"] <= config.tolerance:
        raise MaturaError(
            f"merging moved a logit by {change['relative_logit_change']:g} of the largest, more than "
            f"tolerance={config.tolerance:g}"
        )
    store.save(draft.path, model)
    format.save(draft.path)
    summary = {
        "line": f"merged; largest logit change {change['largest_logit_change']:.1e}, "
        f"same likeliest token at {change['same_choice']:.1%} of {ids.shape[1]} positions",
        **change,
        "positions": ids.shape[1],
        "base": config.base if adapter.settings.base.format == "int4" else "float32",
        "source_quantization": child.summary.get("source_quantization"),
    }
    return draft.commit(summary)


def _summed(config: Config, inputs: dict[str, Artifact | RawInput]) -> tuple[Artifact, "Adapter"]:
    """The parent, and one adapter with the weighted sum of all updates."""
    from matura.model import store
    from matura.model.peft.adapter import weighted_sum

    weights = {"model": config.weight} | {
        f"more.{name}.model": other.weight for name, other in config.more.items()
    }
    parts, parents = [], {}
    for name, weight in weights.items():
        made = inputs[name]
        assert isinstance(made, Artifact)
        if store.adapter_settings(made.path) is None:
            raise MaturaError(f"{made.path} has no LoRA updates: there is nothing to merge")
        parts.append((store.read_adapter(made.path), weight))
        parents[made.input("model").id] = made.input("model")
    if len(parents) > 1:
        places = " and ".join(str(one.path) for one in parents.values())
        raise ConfigError(
            f"the adapters have different parents ({places}); only those of one can be added up"
        )
    (parent,) = parents.values()
    return parent, weighted_sum(parts)


def _ids(config: Config, model: "Transformer", format: "Format") -> "Tensor":
    """The text and what the model writes after it, [1, T]."""
    import torch

    from matura.core.settings import Sampling
    from matura.infer.batch import limit
    from matura.infer.engine import generate

    most = limit(model, model.config.last_stack)
    ids = format.tokenizer.encode(config.text)[:most]
    if not ids:
        raise ConfigError(f"text: {config.text!r} holds no token; give some words")
    new = min(config.new_tokens, most - len(ids))
    if new and model.encoder is None and len(ids) < most:
        ids += generate(model, [ids], Sampling(temperature=0, max_new_tokens=new))[0]
    return torch.tensor([ids])


def outputs(model: "Transformer", ids: "Tensor") -> "Tensor":
    """What the model says of a text: logits [1, T, V] of a decoder or of an encoder that fills masks, scores [1, L] of
    a classifier, else hidden states."""
    from matura.model.heads import LanguageHead

    if model.encoder is not None and model.decoder is not None:
        hidden = model.decode(ids, memory_BSD=model.encode(ids))
    else:
        hidden = model.encode(ids) if model.decoder is None else model.decode(ids)
    if isinstance(model.head, LanguageHead):
        return model.logits(hidden)
    found: Tensor = hidden if model.head is None else model.head(hidden)
    return found


def compared(before: "Tensor", after: "Tensor") -> dict[str, Any]:
    """How far the outputs moved: at most and on average, at most as a share of the largest, and where the likeliest
    stayed what it was."""
    change = (after - before).abs()
    return {
        "largest_logit_change": float(change.max()),
        "mean_logit_change": float(change.mean()),
        "relative_logit_change": float(change.max() / before.abs().max()),
        "same_choice": float((after.argmax(-1) == before.argmax(-1)).float().mean()),
    }
