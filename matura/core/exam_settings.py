"""Settings of exams, in groups: which tasks, how much text, what it takes to pass, what speed is measured."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from matura.core.config import Config


class Panel(Config):
    """Questions of general ability, for each task; 0 leaves a task out. The same ids every time."""

    hellaswag: int = Field(16, ge=0, description="Items of HellaSwag: how a scene goes on (309 tokens each)")
    arc_easy: int = Field(50, ge=0, description="Items of ARC-Easy: school science (130 tokens each)")
    piqa: int = Field(50, ge=0, description="Items of PIQA: everyday physics (68 tokens each)")


class Asked(Config):
    """One more task, and how it is asked."""

    task: str = Field(description="A task of the table below, or one that a file in `folder` specifies")
    items: int = Field(200, ge=0, description="How many items, the same ids every time; 0 for all")
    shots: int | None = Field(
        None, ge=0, description="Examples before every question; none: the task's own number"
    )
    prompt: str | None = Field(None, description="Another template of the question than the task's own")
    perturbation: str | None = Field(None, description="A change to every question, by name")
    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$",
        description="Its name in this exam; none: the task's, with +perturbation",
    )
    seed: int = Field(0, description="Of the perturbation")

    @property
    def label(self) -> str:
        """What it is called in this exam."""
        return self.name or self.task + (f"+{self.perturbation}" if self.perturbation else "")


class Texts(Config):
    """How much text is read. More gives narrower intervals and takes longer."""

    documents: int = Field(12, ge=1, description="Held-out documents; below 10 nothing can be concluded")
    document_tokens: int = Field(512, ge=16, description="Tokens of each document, from its beginning")
    control: int = Field(10, ge=0, description="Control texts of about 240 tokens of fiction; 0 for none")
    answers: int = Field(12, ge=1, description="The parent's own answers, for the divergence")
    taught: int = Field(
        50,
        ge=1,
        description="Held-out conversations whose answers are read; below 10 nothing can be concluded",
    )


class Margins(Config):
    """The loss that is still called unchanged."""

    bits: float = Field(0.02, ge=0, description="Bits per byte: this share of the parent's figure")
    accuracy: float = Field(0.04, ge=0, description="Share of right answers: this much, absolute")


class Gate(Config):
    """What a metric must show for the model to pass."""

    metric: str = Field(description="A metric's name or a pattern: domain.bpb, general.gold_bpb, *.acc")
    fail_on: Literal["regressed", "not unchanged", "not improved"] = Field(
        "regressed", description="The verdict that fails; 'not unchanged' lets improved and unchanged pass"
    )
    min_gain: float | None = Field(None, ge=0, description="Better by at least this share, such as 0.1")
    more_than: str | None = Field(None, description="A control metric whose gain must clearly be exceeded")


class Latency(Config):
    """How fast the examined model answers on this machine, and what that costs."""

    requests: int = Field(
        0, ge=0, description="Answers that are timed, one after the other; 0 measures nothing"
    )
    prompt_tokens: int = Field(128, ge=1, description="Length of each prompt")
    new_tokens: int = Field(64, ge=2, description="Length of each answer")
    batch: int = Field(8, ge=1, description="Answers that are written together for the throughput")
    price_per_hour: float = Field(
        0.0, ge=0, description="Of this machine; gives the price of a million tokens"
    )

    @model_validator(mode="after")
    def _enough(self) -> Latency:
        if 0 < self.requests < 3:
            raise ValueError("requests: at least 3 are needed for a median")
        return self
