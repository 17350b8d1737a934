"""Groups of settings that several stages share with the libraries that carry them out."""

import math
from typing import Literal

from pydantic import Field

from matura.core.config import Config

ALL_LINEAR = ("q", "k", "v", "o", "gate", "up", "down")


class LoraConfig(Config):
    """Which layers get a low-rank update (arXiv:2106.09685), and how large it may be."""

    rank: int = Field(8, ge=1, description="Rank of the update")
    alpha: float = Field(16.0, gt=0, description="Scale of the update: alpha / rank")
    targets: tuple[str, ...] = Field(ALL_LINEAR, description="Last names of the linear layers that get one")
    rank_stabilized: bool = Field(False, description="Scale by alpha / sqrt(rank) instead (rsLoRA)")

    @property
    def scale(self) -> float:
        """The factor before the update."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)


class OptimizerConfig(Config):
    """AdamW (arXiv:1711.05101) and its learning rate over time."""

    lr: float = Field(
        5e-4, gt=0, description="Peak learning rate; LoRA wants about ten times that of full tuning"
    )
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="How the rate falls after warm-up"
    )
    warmup: float = Field(0.05, ge=0, le=1, description="Share of the steps in which the rate rises")
    final: float = Field(0.1, ge=0, le=1, description="Rate at the end, as a share of the peak")
    betas: tuple[float, float] = Field((0.9, 0.95), description="Decay of the two moments")
    eps: float = Field(1e-8, gt=0, description="Added to the root of the second moment")
    weight_decay: float = Field(0.01, ge=0, description="Decay of matrices; vectors and norms never decay")
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient")


class Draw(Config):
    """How the next token is drawn. Temperature 0 is greedy."""

    max_new_tokens: int = Field(256, ge=1, description="Longest answer in tokens")
    temperature: float = Field(1.0, ge=0, description="Divides the logits; 0 takes the most likely token")
    top_k: int = Field(0, ge=0, description="Keep the k most likely tokens; 0 keeps all")
    top_p: float = Field(
        1.0, gt=0, le=1, description="Keep the fewest tokens that hold this much probability"
    )
    min_p: float = Field(
        0.0, ge=0, le=1, description="Drop tokens below this share of the best one's probability"
    )
    repetition_penalty: float = Field(1.0, gt=0, description="Divides the scores of tokens that came before")


class Sampling(Draw):
    """A draw with its seed, and the texts that end it."""

    seed: int = Field(0, ge=0, description="With the position it decides every draw")
    stop: tuple[str, ...] = Field((), description="Texts that end the answer; they are not part of it")
