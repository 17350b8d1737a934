"""Settings of pre-training, in groups: the model's shape, what it learns to do, and what is watched meanwhile."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from matura.core.config import Config
from matura.core.corpus_settings import OnOff

Architecture = Literal["decoder", "encoder", "encoder-decoder"]
ObjectiveName = Literal["next_token", "masked", "denoise", "translate"]
SUITABLE: dict[ObjectiveName, Architecture] = {
    "next_token": "decoder",
    "masked": "encoder",
    "denoise": "encoder-decoder",
    "translate": "encoder-decoder",
}
"""Which model an objective is for."""
UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


def amount(text: str) -> int:
    """ "10M" -> 10,000,000: a number with K, M, B or T. Raises ValueError."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMBT]?)", text.strip().upper())
    if not found:
        raise ValueError(f"expected a number such as 500K, 10M or 1.3B, got {text!r}")
    return round(float(found[1]) * UNITS[found[2]])


class Shape(Config):
    """The model: how large, and of what parts. `layers` and `width` may be given instead of `size`."""

    kind: Architecture = Field("decoder", description="Which stacks it has (GPT, BERT, T5)")
    size: str = Field(
        "10M", description="Parameters in the blocks (embeddings not counted), such as 1M or 1.3B"
    )
    layers: int | None = Field(
        None, ge=1, le=1000, description="Blocks of each stack; None follows from size"
    )
    width: int | None = Field(None, ge=8, le=65_536, description="Residual stream; None follows from size")
    head_width: int | None = Field(None, ge=2, description="None: 64, or 32 below a width of 256")
    kv_heads: int | None = Field(None, ge=1, description="Key/value heads; None: as many as query heads")
    mlp: Literal["swiglu", "geglu", "gelu", "relu"] = "swiglu"
    norm: Literal["rms", "layer"] = "rms"
    qk_norm: OnOff = Field("on", description="Queries and keys are normed")
    position: Literal["rope", "learned", "sinusoidal", "relative", "alibi", "none"] = "rope"
    tied: OnOff = Field("off", description="The output matrix is the embedding matrix")
    softcap: float | None = Field(None, gt=0, description="Scores become softcap * tanh(score / softcap)")
    dropout: float = Field(0.0, ge=0, lt=1)
    initial: Literal["scaled", "gpt2"] = Field(
        "scaled", description="First weights: by the width they read, or 0.02 everywhere as in GPT-2"
    )

    @field_validator("size")
    @classmethod
    def _a_size(cls, value: str) -> str:
        if not amount(value):
            raise ValueError("expected a number above zero, such as 10M")
        return value

    @model_validator(mode="after")
    def _both(self) -> Shape:
        if (self.layers is None) != (self.width is None):
            raise ValueError("give both `layers` and `width`, or neither (then `size` decides)")
        return self


class Masking(Config):
    """Masked language modelling (arXiv:1810.04805, section 3.1)."""

    share: float = Field(0.15, gt=0, lt=1, description="Share of the tokens that are to be found again")
    masked: float = Field(0.8, ge=0, le=1, description="Of these: replaced by the mask token")
    random: float = Field(0.1, ge=0, le=1, description="Of these: replaced by a random token; the rest stays")
    words: Literal["tokens", "whole"] = Field("tokens", description="Choose tokens, or whole words")

    @model_validator(mode="after")
    def _shares(self) -> Masking:
        if self.masked + self.random > 1:
            raise ValueError("masked + random must not exceed 1")
        return self


class Spans(Config):
    """Span corruption (arXiv:1910.10683, section 3.1.4)."""

    share: float = Field(0.15, gt=0, lt=1, description="Share of the tokens that are cut out")
    mean: float = Field(3.0, ge=1, description="Mean length of a span")


class Loss(Config):
    """What is added to the cross-entropy."""

    smoothing: float = Field(0.0, ge=0, lt=1, description="Label smoothing (arXiv:1512.00567, section 7)")
    z_loss: float = Field(
        0.0, ge=0, description="Factor of log(normalizer)^2 (arXiv:2204.02311, section 5: 1e-4)"
    )


class Spikes(Config):
    """What happens to an update whose gradient is far out of line, or not a number."""

    factor: float = Field(
        10.0,
        gt=1,
        description="An update is left out when its gradient norm is this many times the recent median",
    )
    window: int = Field(64, ge=8, description="Updates that the median is taken of")
    patience: int = Field(
        5, ge=0, description="Updates left out in a row before going back to the last checkpoint"
    )
    rewinds: int = Field(
        3, ge=0, description="How often to go back, with half the learning rate, before giving up"
    )


class Watch(Config):
    """Looks at held-out text and samples while training."""

    every: int = Field(100, ge=1, description="Updates between looks; the last one is always looked at")
    tokens: int = Field(20_000, ge=64, description="Held-out tokens in one look; all of them at the end")
    samples: tuple[str, ...] = Field(("",), description="Beginnings that are continued at every look")
    sample_tokens: int = Field(48, ge=0, description="Length of a sample; 0 for none")


class Sizes(Config):
    """How much text, in which portions."""

    tokens: str | None = Field(
        None, description="Training tokens in all, such as 20M; None: by `per_parameter`"
    )
    per_parameter: float = Field(
        20.0, gt=0, description="Training tokens for each parameter of the blocks (arXiv:2203.15556: 20)"
    )
    step: int = Field(8192, ge=16, description="Tokens in one update")
    rows: int = Field(
        32, ge=1, description="Rows in one forward pass of a process; several passes fill an update"
    )
    sequence: int = Field(256, ge=8, description="Tokens in a row")

    @field_validator("tokens")
    @classmethod
    def _an_amount(cls, value: str | None) -> str | None:
        if value is not None:
            amount(value)
        return value
