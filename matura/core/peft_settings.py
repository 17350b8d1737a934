"""How a model is fine-tuned: the method, what it is set on, and what stays as it was.

Layers are named by the last part of their name ("q"), by the whole of it ("decoder.blocks.0.mixers.0.q"), or by a
pattern of the whole with * and ? ("decoder.blocks.0.*").
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Literal, Self

from pydantic import Field, model_validator

from matura.core.config import Config
from matura.core.settings import OptimizerConfig

ALL_LINEAR = "all-linear"
Method = Literal["lora", "prefix", "bottleneck", "full"]


def names(name: str, pattern: str) -> bool:
    """Whether a pattern names this layer."""
    return pattern in (name, name.rpartition(".")[2]) or fnmatchcase(name, pattern)


class LoraConfig(Config):
    """Which layers get a low-rank update (arXiv:2106.09685), and how large it may be."""

    rank: int = Field(8, ge=1, description="Rank of the update")
    alpha: float = Field(16.0, gt=0, description="Scale of the update: alpha / rank")
    targets: tuple[str, ...] = Field(
        (ALL_LINEAR,),
        min_length=1,
        description="Layers that get one: all-linear (all inside the blocks), last names such as q, patterns of whole "
        "names, embed (the embedding), head (an output matrix of its own)",
    )
    rank_stabilized: bool = Field(False, description="Scale by alpha / sqrt(rank) instead (rsLoRA)")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of an update's inputs dropped in training")
    ranks: dict[str, int] = Field(
        default_factory=dict,
        description="Other ranks for some layers, by name or pattern; the first that fits",
    )
    alphas: dict[str, float] = Field(default_factory=dict, description="Other alphas, likewise")

    @model_validator(mode="after")
    def _positive(self) -> Self:
        for field, values in (("ranks", self.ranks), ("alphas", self.alphas)):
            for name, value in values.items():
                if value <= 0:
                    raise ValueError(f"{field}.{name} must be above zero, got {value}")
        return self

    @property
    def scale(self) -> float:
        """The factor before the update of a layer that has no rank or alpha of its own."""
        return self._scale(self.rank, self.alpha)

    def of(self, name: str) -> tuple[int, float]:
        """(rank, scale) of the layer of this name."""
        rank = next((rank for pattern, rank in self.ranks.items() if names(name, pattern)), self.rank)
        alpha = next((alpha for pattern, alpha in self.alphas.items() if names(name, pattern)), self.alpha)
        return rank, self._scale(rank, alpha)

    def _scale(self, rank: int, alpha: float) -> float:
        return alpha / (math.sqrt(rank) if self.rank_stabilized else rank)


class PrefixConfig(Config):
    """Trained keys and values before every text, in all layers (arXiv:2101.00190)."""

    tokens: int = Field(20, ge=1, le=4096, description="Length; it takes its place in the context")
    text: str | None = Field(
        None,
        description="Start from what the model makes of this text (repeated or cut to length); none: from noise, "
        "which learns far slower",
    )


class BottleneckConfig(Config):
    """Small networks after the parts of every block (arXiv:1902.00751)."""

    placement: Literal["houlsby", "pfeiffer"] = Field(
        "houlsby",
        description="houlsby: after attention and MLP; pfeiffer: after the MLP only (arXiv:2005.00052)",
    )
    reduction: int = Field(16, ge=1, description="Width of the model divided by that of the bottleneck")
    activation: Literal["relu", "gelu", "silu"] = Field("relu", description="Between its two projections")


class BaseConfig(Config):
    """How the frozen weights are held while something is trained on top of them."""

    format: Literal["float32", "int4"] = Field(
        "float32",
        description="int4: matrices inside the blocks at 4 bits, made float when used (QLoRA, arXiv:2305.14314)",
    )
    group: Literal[32, 64] = Field(32, description="Weights that share a scale and a minimum (format int4)")

    @model_validator(mode="after")
    def _grouped(self) -> Self:
        if self.format == "float32" and self.group != 32:
            raise ValueError("group is for format=int4, and this is format=float32")
        return self


class FreezeConfig(Config):
    """What full tuning leaves as it was."""

    embeddings: bool = Field(False, description="The embedding, also where it is the output matrix")
    layers: int = Field(0, ge=0, description="The first n layers")
    patterns: tuple[str, ...] = Field((), description="Layers or weights, by name or pattern")


class Vocabulary(Config):
    """Tokens that a vocabulary gains before documents are learned."""

    add: int = Field(
        0,
        ge=0,
        le=100_000,
        description="Tokens that a byte-level BPE vocabulary gains from what the corpus repeats (method=full)",
    )
    min_count: int = Field(10, ge=2, description="How often two tokens must stand together to become one")

    @model_validator(mode="after")
    def _adds(self) -> Self:
        if not self.add and self.changed("min_count"):
            raise ValueError("min_count would do nothing without add")
        return self


RATES: dict[Method, float] = {"lora": 5e-4, "bottleneck": 1e-3, "prefix": 5e-3, "full": 5e-5}
"""Learning rates that move a model and do not break it: few weights want more than many."""


class TuningOptimizer(OptimizerConfig):
    """The optimizer of a fine-tuning, whose learning rate is by default that of its method."""

    lr: float | None = Field(  # type: ignore[assignment]
        None,
        gt=0,
        description="Peak learning rate; none: 5e-4 for lora, 1e-3 for bottleneck, 5e-3 for prefix, 5e-5 for full",
    )

    @model_validator(mode="after")
    def _not_averaged(self) -> Self:
        if self.average:
            raise ValueError(
                "average is for pre-training; a fine-tuning keeps its last weights (or see forgetting)"
            )
        return self

    def of(self, method: Method) -> OptimizerConfig:
        """With a rate."""
        rate = RATES[method] if self.lr is None else self.lr
        return OptimizerConfig(**{**dict(self), "lr": rate})


class Tuning(Config):
    """How a model is fine-tuned. A fine-tuning stage's settings are a subclass; `adapter.json` holds one."""

    method: Method = Field(
        "lora",
        description="lora: low-rank updates; prefix: keys and values before the text; bottleneck: small networks "
        "in the blocks; full: all weights",
    )
    lora: LoraConfig = Field(LoraConfig(), description="For method=lora")
    prefix: PrefixConfig = Field(PrefixConfig(), description="For method=prefix")
    bottleneck: BottleneckConfig = Field(BottleneckConfig(), description="For method=bottleneck")
    freeze: FreezeConfig = Field(FreezeConfig(), description="For method=full")
    base: BaseConfig = Field(BaseConfig(), description="The frozen weights, for all methods but full")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.method == "full" and self.base.format != "float32":
            raise ValueError(
                f"base.format={self.base.format} is for frozen weights, and method=full trains them; "
                "take method=lora"
            )
        if self.method != "full" and self.freeze != FreezeConfig():
            raise ValueError(f"freeze is for method=full; method={self.method} freezes all of the model")
        groups = {"lora": LoraConfig(), "prefix": PrefixConfig(), "bottleneck": BottleneckConfig()}
        for name, untouched in groups.items():
            if name != self.method and getattr(self, name) != untouched:
                raise ValueError(f"{name} is for method={name}, and this is method={self.method}")
        return self

    @property
    def tuning(self) -> Tuning:
        """These settings alone, of a stage that has others beside them."""
        return Tuning(**{name: getattr(self, name) for name in Tuning.model_fields})


def unmatched(patterns: Iterable[str], found: Iterable[str]) -> list[str]:
    """Patterns that name none of the layers."""
    known = list(found)
    return [pattern for pattern in patterns if not any(names(name, pattern) for name in known)]
