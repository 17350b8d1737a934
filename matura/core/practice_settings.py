"""What GRPO and PPO have in common: a model that answers prompts, is rewarded for its answers, and learns from them."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from matura.core import costs, peft_settings
from matura.core.artifact import Artifact, RawInput
from matura.core.config import Config, Input
from matura.core.forgetting_settings import (
    Forgetting,
    check_looks,
    check_without_anchors,
    without_unread_text,
)
from matura.core.plan import Estimate
from matura.core.preference_settings import PreferenceData
from matura.core.reward_settings import Rewards, check_rewarded
from matura.core.rollout_settings import Rollouts
from matura.core.settings import Recompute

MOST_TOKENS = 1_000_000
"""Tokens of the answers of one iteration: they are kept in memory and in checkpoints."""
# The model of `costs`, in tokens a second: trained, and written token by token.
TRAINED, WRITTEN = 120.0, 60.0


class Cuts(Config):
    """How the answers of one iteration become updates."""

    epochs: int = Field(1, ge=1, le=64, description="How often every answer is learned from")
    minibatches: int = Field(1, ge=1, description="Updates of one epoch, each with its share of the prompts")
    accumulate: int = Field(
        1, ge=1, description="Pieces in which the gradient of an update is computed, for less memory"
    )


class Practice(peft_settings.Tuning):
    """Who practises what, for which rewards."""

    model: Annotated[str, Input("model")] = Field(
        description="The model that practises, and its own reference"
    )
    prompts: Annotated[str, Input("conversations", "preferences", "samples", "raw")] = Field(
        description="What it answers: prompts, or conversations whose last answer becomes `facts.gold`"
    )
    data: PreferenceData = Field(PreferenceData(), description="How prompts are read")
    rewards: Rewards = Field(Rewards(), description="What answers are rewarded for")
    rollouts: Rollouts = Field(Rollouts(), description="How answers are written")
    iterations: int = Field(100, ge=1, description="How often prompts are answered and learned from")
    prompts_each: int = Field(16, ge=1, description="Prompts of one iteration")
    updates: Cuts = Cuts()
    optimizer: peft_settings.TuningOptimizer = Field(
        peft_settings.TuningOptimizer(schedule="constant"), description="AdamW and its schedule"
    )
    forgetting: Forgetting = Forgetting()
    meter_every: int = Field(
        20, ge=0, description="Updates between looks at held-out prompts and general text; 0 for none"
    )
    meter_prompts: int = Field(64, ge=1, description="Held-out prompts that are answered in one look")
    meter_tokens: int = Field(1024, ge=64, description="Tokens of general text in one look")
    save_every: int = Field(5, ge=1, description="Updates between checkpoints")
    recompute: Recompute = Field(
        "none",
        description="Blocks whose activations are computed again instead of kept: none, full, every n-th",
    )
    seed: int = Field(0, ge=0, description="Order of the prompts, draws of the answers, start of the updates")

    @model_validator(mode="before")
    @classmethod
    def _general_text(cls, values: Any) -> Any:
        given = values if isinstance(values, dict) else {}
        return without_unread_text(values, "forgetting", given.get("meter_every") == 0)

    @model_validator(mode="after")
    def _learnable(self) -> Self:
        check_rewarded(self.rewards)
        if self.answers * self.rollouts.max_new_tokens > MOST_TOKENS:
            raise ValueError(
                f"an iteration of {self.answers:,} answers of up to {self.rollouts.max_new_tokens:,} tokens is more "
                f"than {MOST_TOKENS:,} tokens, and all of them are kept; lower prompts_each, rollouts.samples or "
                "rollouts.max_new_tokens"
            )
        pieces = self.updates.minibatches * self.updates.accumulate
        if pieces > self.prompts_each:
            raise ValueError(
                f"updates.minibatches x updates.accumulate = {pieces} pieces of an iteration, but it has only "
                f"prompts_each={self.prompts_each} prompts, and the answers to one stay together"
            )
        if self.lora.dropout:
            raise ValueError(
                "lora.dropout would change the probabilities between an answer and its update; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        check_looks(self, "meter_tokens", "meter_prompts")
        check_without_anchors(self, "the answers are held near the parent: see kl of this stage")
        return self

    @property
    def answers(self) -> int:
        """Answers of one iteration."""
        return self.prompts_each * self.rollouts.samples


def estimate(
    config: Practice, inputs: dict[str, Artifact | RawInput | None], *, reads: float, models: int = 1
) -> Estimate:
    """Time and memory of the longest answers that may be written. `reads` is how often one is read without learning
    from it, `models` how many learn."""
    updates = config.updates
    tokens = config.iterations * config.answers * config.rollouts.max_new_tokens
    looks = config.iterations * updates.epochs * updates.minibatches
    looks = looks // config.meter_every + 2 if config.meter_every else 0
    looked = looks * min(config.meter_prompts, config.data.heldout) * config.rollouts.max_new_tokens
    piece = config.answers * config.rollouts.max_new_tokens // (updates.minibatches * updates.accumulate)
    return costs.tuning(
        config,
        inputs.get("model"),
        seconds=(tokens + looked) / WRITTEN
        + reads * tokens / costs.READ
        + models * updates.epochs * tokens / TRAINED,
        tokens=models * piece,
        note=f"{config.iterations} iterations of {config.answers} answers of up to {config.rollouts.max_new_tokens} "
        "tokens",
        full=5,
    )
