"""Add LoRA updates into the weights: one plain model that needs nothing else."""

from typing import Annotated

from pydantic import Field

from matura.core import config
from matura.core.artifact import Artifact, Draft, RawInput
from matura.core.config import Input
from matura.core.errors import MaturaError
from matura.core.plan import Estimate

KIND = "model"
VERSION = 1
PROBE = "The quick brown fox jumps over the lazy dog. 1, 2, 3: a list of numbers, and a question?"


class Config(config.Config):
    """Which model to merge."""

    model: Annotated[str, Input("model")] = Field(description="A model with LoRA updates")
    tolerance: float = Field(
        1e-3, gt=0, description="Largest change of any logit on a probe text that is accepted"
    )


def estimate(config: Config, inputs: dict[str, Artifact | RawInput | None]) -> Estimate:
    """Two copies of the weights in memory, one on disk."""
    return Estimate(seconds=6, memory_bytes=1400 << 20, disk_bytes=560 << 20)


def run(config: Config, inputs: dict[str, Artifact | RawInput], draft: Draft) -> Artifact:
    """Write the merged model with its tokenizer and conversation format, and report how far any logit moved.

    Raises MaturaError when there is nothing to merge or the logits moved by more than `tolerance`.
    """
    import torch

    from matura.model import store
    from matura.model.peft.lora import merge_lora
    from matura.tokenizer import conversation

    child = inputs["model"]
    assert isinstance(child, Artifact)
    if store.adapter_settings(child.path) is None:
        raise MaturaError(f"{child.path} has no LoRA updates: there is nothing to merge")
    format = conversation.load(child.path)
    model = store.load(child.path)
    ids = torch.tensor([format.tokenizer.encode(PROBE)])
    with torch.inference_mode():
        before = model.logits(model.decode(ids))
        merge_lora(model)
        change = float((model.logits(model.decode(ids)) - before).abs().max())
    if not change <= config.tolerance:
        raise MaturaError(f"merging moved a logit by {change:g}, more than tolerance={config.tolerance:g}")
    store.save(draft.path, model)
    format.save(draft.path)
    summary = {
        "line": f"merged; largest logit change {change:.1e}",
        "largest_logit_change": change,
        "source_quantization": child.summary.get("source_quantization"),
    }
    return draft.commit(summary)
