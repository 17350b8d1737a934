"""Settings of PPO: what holds the policy near its reference, what foresees rewards, and how far one update may go."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from matura.core.config import Config
from matura.core.practice_settings import Cuts


class KlPenalty(Config):
    """What it costs to write otherwise than the reference: the model that training began with."""

    coefficient: float = Field(0.05, ge=0, description="Cost of a nat; with a target, where it begins")
    target: float | None = Field(
        None,
        gt=0,
        description="Nats an answer that the coefficient is steered to (arXiv:1909.08593); none: it stays as it is",
    )
    horizon: int = Field(
        1000, ge=1, description="Answers over which an error is corrected by its own size; for target"
    )
    place: Literal["reward", "loss"] = Field(
        "reward",
        description="reward: every token's log-ratio (k1) is taken off its reward; loss: k3 times the ratio is added "
        "to its loss. Both have the gradient of KL(policy || reference)",
    )
    stop: float | None = Field(
        0.1,
        gt=0,
        description="Nats a token from the rollouts' policy at which the other updates of an iteration are left out; "
        "none: never",
    )

    @model_validator(mode="after")
    def _steered(self) -> KlPenalty:
        if self.target is not None and not self.coefficient:
            raise ValueError("a coefficient of 0 cannot be steered; give one above 0 to begin with")
        if self.target is None and self.changed("horizon"):
            raise ValueError("horizon would do nothing without a target")
        if not self.coefficient and self.changed("place"):
            raise ValueError("place would do nothing with a coefficient of 0")
        return self


class ValueModel(Config):
    """What foresees the reward of an answer at each of its tokens."""

    kind: Literal["head", "critic"] = Field(
        "critic",
        description="critic: a second model with LoRA updates of its own on the parent's weights; head: one layer on "
        "the policy's last hidden states, which learn both",
    )
    rank: int = Field(8, ge=1, description="Rank of a critic's updates")
    coefficient: float = Field(0.1, ge=0, description="Factor of the value loss")
    rate: float = Field(5.0, gt=0, description="Its learning rate as a multiple of the policy's")

    @model_validator(mode="after")
    def _fits(self) -> ValueModel:
        if self.kind != "critic" and self.changed("rank"):
            raise ValueError("rank is for kind=critic, and this is kind=head")
        return self


class Updates(Cuts):
    """From the answers of one iteration to its updates. `gamma` and `lam` are those of arXiv:1506.02438."""

    epochs: int = Field(2, ge=1, le=64, description="How often every answer is learned from")
    minibatches: int = Field(2, ge=1, description="Updates of one epoch, each with its share of the prompts")
    clip: float = Field(0.2, gt=0, lt=1, description="Largest change of a token's probability, as a share")
    value_clip: float | None = Field(
        0.2, gt=0, description="Largest change of a value from the rollout's; none: any"
    )
    entropy: float = Field(0.0, ge=0, description="Reward for a nat of entropy at every token")
    gamma: float = Field(1.0, gt=0, le=1, description="What a reward is worth one token earlier")
    lam: float = Field(
        1.0, ge=0, le=1, description="0 trusts the values, 1 the rewards that came (GAE's lambda)"
    )


class Scoring(Config):
    """From what the rewards say of an answer to the reward of its last token."""

    normalise: Literal["start", "none"] = Field(
        "start",
        description="start: minus the mean, by the standard deviation of the first iteration's, so that all else means "
        "the same for every reward (arXiv:1909.08593); none: as it is",
    )
    missing_stop: float = Field(
        0.0, ge=0, description="Taken off (after that) from an answer that was cut off at the longest length"
    )
    cut: Literal["judge", "bootstrap"] = Field(
        "judge",
        description="An answer that was cut off: judge what there is of it; bootstrap: the value of going on stands "
        "for its score",
    )
