"""Settings of losses that learn from preferences."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from matura.core.config import Config
from matura.core.peft_settings import Method, TuningOptimizer
from matura.core.settings import OptimizerConfig

Kind = Literal["sigmoid", "robust", "ipo", "hinge", "kto", "orpo", "simpo"]
Scale = Literal["sequence", "token"]

BETAS: dict[Kind, float] = {"simpo": 2.0}
"""Betas of losses whose scores are means over tokens, where they are not 0.1."""
PER_TOKEN = ("orpo", "simpo")
FREE = ("orpo", "simpo")
"""Losses without a reference."""


class PreferenceLoss(Config):
    """What is made of the log-probabilities of answers; see docs/stages/dpo.md for the equations."""

    kind: Kind = Field(
        "sigmoid",
        description="sigmoid (DPO), robust (to a known share of wrong labels), ipo, hinge, kto (thumbs, or both sides "
        "of pairs by themselves), orpo and simpo (without a reference)",
    )
    beta: float | None = Field(
        None,
        gt=0,
        description="How dear distance from the reference is: small moves far. None: 0.1, for simpo 2",
    )
    smoothing: float = Field(
        0.0,
        ge=0,
        lt=0.5,
        description="Share of the labels taken to be wrong (sigmoid: cDPO; robust: rDPO, where it must be given)",
    )
    scale: Scale | None = Field(
        None,
        description="Log-probabilities of an answer are summed (sequence) or averaged over its tokens (token). None: "
        "sequence, for orpo and simpo token. TRL's ipo is token",
    )
    gamma: float = Field(1.0, ge=0, description="simpo: the margin that is asked for")
    nll: float = Field(
        0.0,
        ge=0,
        description="This times -log p a token of the chosen answer is added to the loss of a pair",
    )
    desirable: float = Field(1.0, gt=0, description="kto: how much answers that were liked count")
    undesirable: float = Field(1.0, gt=0, description="kto: how much answers that were not liked count")

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> PreferenceLoss:
        kind = self.kind
        if self.smoothing and kind not in ("sigmoid", "robust"):
            raise ValueError(f"smoothing is for kind=sigmoid and kind=robust, and this is kind={kind}")
        if kind == "robust" and not self.smoothing:
            raise ValueError(
                "kind=robust needs smoothing, the share of wrong labels; without any take sigmoid"
            )
        if kind in PER_TOKEN and self.scale == "sequence":
            raise ValueError(f"kind={kind} is made of means over tokens; leave scale out")
        if kind == "kto" and self.scale == "token":
            raise ValueError(
                "kind=kto compares sums with a divergence in nats an answer, which means over tokens are not; leave "
                "scale out"
            )
        if kind == "kto" and self.nll:
            raise ValueError("nll is for pairs, and kind=kto has none")
        for name, owner in (("gamma", "simpo"), ("desirable", "kto"), ("undesirable", "kto")):
            if kind != owner and self.changed(name):
                raise ValueError(f"{name} is for kind={owner}, and this is kind={kind}")
        return self

    @property
    def strength(self) -> float:
        """Beta."""
        return BETAS.get(self.kind, 0.1) if self.beta is None else self.beta

    @property
    def scaled(self) -> Scale:
        """What scores are: sums or means."""
        return self.scale or ("token" if self.kind in PER_TOKEN else "sequence")

    @property
    def reference(self) -> bool:
        """Whether the loss compares with a reference."""
        return self.kind not in FREE


RATES: dict[Method, float] = {"lora": 2e-4, "bottleneck": 4e-4, "prefix": 2e-3, "full": 1e-5}
"""Learning rates for losses that compare: lower than those of fine-tuning, for nothing bounds how far they push."""


class PreferenceOptimizer(TuningOptimizer):
    """The optimizer of a preference loss, whose learning rate is by default that of its method."""

    lr: float | None = Field(
        None,
        gt=0,
        description="Peak learning rate; none: 2e-4 for lora, 4e-4 for bottleneck, 2e-3 for prefix, 1e-5 for full",
    )

    def of(self, method: Method) -> OptimizerConfig:
        """With a rate."""
        return OptimizerConfig(**{**dict(self), "lr": RATES[method] if self.lr is None else self.lr})
