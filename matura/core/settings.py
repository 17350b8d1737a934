"""Groups of settings that several stages share with the libraries that carry them out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from matura.core.config import Config


class OptimizerConfig(Config):
    """The optimizer, and its learning rate over time."""

    kind: Literal["adamw", "muon"] = Field(
        "adamw",
        description="AdamW (arXiv:1711.05101); or Muon for matrices inside the network, AdamW for the rest",
    )
    lr: float = Field(
        5e-4, gt=0, description="Peak learning rate; LoRA wants about ten times that of full tuning"
    )
    schedule: Literal["cosine", "linear", "constant", "wsd"] = Field(
        "cosine",
        description="How the rate falls after warm-up; wsd stays at the peak until the last `decay` of the steps",
    )
    warmup: float = Field(0.05, ge=0, le=1, description="Share of the steps in which the rate rises")
    decay: float = Field(
        0.2, gt=0, le=1, description="Share of the steps in which the rate falls (schedule wsd)"
    )
    final: float = Field(0.1, ge=0, le=1, description="Rate at the end, as a share of the peak")
    betas: tuple[float, float] = Field((0.9, 0.95), description="Decay of the two moments")
    eps: float = Field(1e-8, gt=0, description="Added to the root of the second moment")
    momentum: float = Field(0.95, ge=0, lt=1, description="Decay of Muon's momentum")
    weight_decay: float = Field(0.01, ge=0, description="Decay of matrices; vectors and norms never decay")
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient")
    average: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Decay of a running average of the weights, which is kept instead; 0: none",
    )

    @field_validator("betas")
    @classmethod
    def _decays(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in value):
            raise ValueError("expected two numbers from 0 to below 1")
        return value


PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
"""Dtype of the products in training; weights stay float32. `auto`: fp32 on a CPU, bf16 on a GPU that has it."""

Recompute = Literal["none", "full"] | Annotated[int, Field(ge=1)]
"""Blocks whose activations are recomputed in the backward pass: none, all, or every n-th."""


def recomputed_every(which: Recompute) -> int:
    """Of the blocks, one in how many is recomputed; 0 for none."""
    return {"none": 0, "full": 1}[which] if isinstance(which, str) else which


class ParallelConfig(Config):
    """How the ranks that `torchrun` starts share one model. Ranks = replicas x shards x tensor."""

    kind: Literal["none", "ddp", "fsdp"] = Field(
        "none",
        description="ddp: every rank holds the model and reads its own batches (arXiv:2006.15704); fsdp: weights, "
        "gradients and moments are cut over the ranks as well (arXiv:2304.11277)",
    )
    tensor: int = Field(
        1,
        ge=1,
        description="Ranks that share every matrix product (arXiv:1909.08053); the fast links' number",
    )
    replicas: int = Field(
        1,
        ge=1,
        description="For fsdp: copies of the whole model, each cut over its own ranks (hybrid sharding)",
    )

    @model_validator(mode="after")
    def _fits(self) -> ParallelConfig:
        if self.replicas > 1 and self.kind != "fsdp":
            raise ValueError("replicas is for kind=fsdp; with kind=ddp every rank is a replica already")
        if self.tensor > 1 and self.kind == "ddp":
            raise ValueError(
                "kind=ddp cannot be combined with tensor > 1: use kind=fsdp, or fewer ranks and none"
            )
        return self

    @property
    def cuts(self) -> bool:
        """Whether no rank holds all weights."""
        return self.kind == "fsdp" or self.tensor > 1


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


Step = Literal[
    "logit_bias",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "no_repeat_ngram",
    "bad_words",
    "allowed",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
]
"""What may happen to the scores of the next token. `allowed` is the constraint of a request, such as a grammar."""

ORDER: tuple[Step, ...] = get_args(Step)
"""The order of Hugging Face's generate, so that equal settings mean equal distributions."""


class Sampling(Draw):
    """A draw in full: what else changes the scores and in which order, the seed, and the texts that end an answer."""

    seed: int = Field(0, ge=0, description="With the position it decides every draw")
    stop: tuple[str, ...] = Field((), description="Texts that end the answer; they are not part of it")
    typical_p: float = Field(
        1.0, gt=0, le=1, description="Keep the tokens nearest to the expected surprise that hold this much"
    )
    presence_penalty: float = Field(
        0.0, description="Subtracted from the scores of tokens that the answer has already"
    )
    frequency_penalty: float = Field(
        0.0, description="Subtracted once for each time that the answer has the token already"
    )
    logit_bias: dict[int, float] = Field(
        default_factory=dict, description="Added to the scores of tokens, by token id"
    )
    no_repeat_ngram: int = Field(0, ge=0, description="No run of this many tokens comes twice; 0 is off")
    bad_words: tuple[str, ...] = Field((), description="Texts that are never written")
    order: tuple[Step, ...] = Field(ORDER, description="The steps from the model's scores to the draw")
    logprobs: int | None = Field(
        None, ge=0, le=20, description="Report log-probabilities: the token's own and this many of the best"
    )
    n: int = Field(1, ge=1, description="Answers to one prompt, each with its own draws")

    @field_validator("stop", "bad_words", mode="before")
    @classmethod
    def _one_text(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _whole_order(self) -> Sampling:
        if double := [name for i, name in enumerate(self.order) if name in self.order[:i]]:
            raise ValueError(f"order names {double[0]!r} twice")
        for name in ORDER:
            if name not in self.order and is_on(self, name):
                raise ValueError(f"{name} is set, but order leaves it out: add it there")
        if not all(self.bad_words):
            raise ValueError("bad_words has an empty text: remove it")
        return self


def is_on(sampling: Sampling, step: Step) -> bool:
    """Whether a setting differs from the default, which does nothing. (`allowed` is no setting: always False.)"""
    if step == "allowed":
        return False
    default = Sampling.model_fields[step].get_default(call_default_factory=True)
    return bool(getattr(sampling, step) != default)


def generation_defaults(generation: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The sampling settings among a model's own generation defaults, and the names of those nobody here follows.

    `do_sample: false` means temperature 0. Settings of beam search (see `Beams`) belong to neither.
    """
    found = {name: value for name, value in generation.items() if name in Sampling.model_fields}
    if generation.get("do_sample") is False:
        found["temperature"] = 0
    known = {*Sampling.model_fields, *Beams.model_fields, "do_sample"}
    return found, tuple(sorted(name for name in generation if name not in known))


class Beams(Config):
    """Beam search: the likeliest whole answers instead of the likeliest next tokens."""

    beams: int = Field(4, ge=1, description="Beginnings that are carried on side by side")
    max_new_tokens: int = Field(256, ge=1, description="Longest answer in tokens")
    length_penalty: float = Field(
        1.0,
        description="A score is the log-probability divided by length to this power; above 0 favours long",
    )
    early_stopping: bool | Literal["never"] = Field(
        False,
        description="When all beams have ended: true stops at once, false unless the best open beam looks better "
        "at its present length, never unless it could become better at any length",
    )
    n: int = Field(1, ge=1, description="Answers returned, best first")
    no_repeat_ngram: int = Field(0, ge=0, description="No run of this many tokens comes twice; 0 is off")

    @model_validator(mode="after")
    def _enough_beams(self) -> Beams:
        if self.n > self.beams:
            raise ValueError(f"n={self.n} answers need at least as many beams, not {self.beams}")
        return self
