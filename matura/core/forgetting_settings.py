"""What keeps a model from losing the rest while it learns something new, and what measures it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from matura.core.config import Config, Input
from matura.core.wheels import EXAMS

Part = Literal["replay", "new", "both"]


def without_unread_text(values: Any, group: str, unread: bool) -> Any:
    """Settings in which the default general text of a group is none where nobody reads it, so that it is not fetched.
    Another text that was asked for stays."""
    given = values.get(group, {}) if isinstance(values, dict) else None
    if not unread or not isinstance(given, dict) or given.get("text", EXAMS) != EXAMS:
        return values
    return {**values, group: {**given, "text": None}}


def check_looks(settings: Any, *names: str) -> None:
    """Raises ValueError for settings of looks that were given where `meter_every` allows none."""
    if not settings.meter_every and (given := settings.changed(*names)):
        raise ValueError(f"{given[0]} would do nothing with meter_every=0")


def check_without_anchors(settings: Any, instead: str) -> None:
    """Raises ValueError for anchors of a stage that has none, where `instead` says what it has; and for a limit that
    nothing is measured for."""
    asked = settings.forgetting
    if asked.kl or asked.l2:
        raise ValueError(f"forgetting.kl and forgetting.l2 are anchors of fine-tuning; here {instead}")
    if asked.limit is not None and not (settings.meter_every and asked.text):
        raise ValueError("forgetting.limit needs the meter: meter_every and forgetting.text")


class Forgetting(Config):
    """Anchors to the parent, the meter, and when to stop by it."""

    kl: float = Field(
        0.0,
        ge=0,
        description="Anchor: this times KL(parent || child), in nats, is added to the loss of every token of `kl_on`",
    )
    kl_on: Part = Field(
        "replay", description="Whose trained tokens: those of replay, of what is new, or both"
    )
    l2: float = Field(
        0.0,
        ge=0,
        description="Anchor: half of this times the squared distance of all trained weights from the parent's is added "
        "to the loss (LoRA: times the squared norm of the update)",
    )
    text: Annotated[str | None, Input("raw")] = Field(
        EXAMS,
        description="General text for the meter: the exam's wheel or a path to it; null for none. Where replay is "
        "given, its held-out part is read instead of the default",
    )
    limit: float | None = Field(
        None,
        gt=0,
        description="Stop when general text costs more than this percent more bits per byte than it cost the parent",
    )
    patience: int = Field(2, ge=1, description="Looks in a row above the limit that it takes to stop")
    keep: Literal["best", "last"] = Field(
        "best",
        description="With a limit, what comes out: the weights with the lowest held-out loss of all looks within it, "
        "or the last ones",
    )

    @model_validator(mode="after")
    def _limited(self) -> Forgetting:
        if self.limit is None and (given := self.changed("patience", "keep")):
            raise ValueError(f"{', '.join(given)} would do nothing without a limit: give limit, in percent")
        if not self.kl and self.changed("kl_on"):
            raise ValueError("kl_on would do nothing without an anchor: give kl")
        return self


class Front(Config):
    """Models measured on the way from the parent to its child, to choose one by what it costs."""

    alphas: tuple[float, ...] = Field((), description="Where to measure, such as [0, 0.25, 0.5, 0.75, 1]")
    corpus: Annotated[str | None, Input("corpus")] = Field(
        None, description="What was learned: its held-out documents"
    )
    conversations: Annotated[str | None, Input("conversations", "raw")] = Field(
        None,
        description="What was learned: the answers of its held-out conversations. Files are read, and rows held out, "
        "as the training of the model did",
    )
    replay: Annotated[str | None, Input("conversations")] = Field(
        None, description="General text: the held-out part of replay"
    )
    text: Annotated[str | None, Input("raw")] = Field(
        EXAMS, description="General text where there is no replay: the exam's wheel or a path to it"
    )
    tokens: int = Field(4096, ge=64, description="Held-out tokens of each kind, read by every model")
    sequence: int = Field(512, ge=8, description="Longest piece in tokens")

    @model_validator(mode="after")
    def _measurable(self) -> Front:
        if wrong := [alpha for alpha in self.alphas if not 0 <= alpha <= 1]:
            raise ValueError(f"alphas must be from 0 (the parent) to 1 (the child), not {wrong[0]:g}")
        learned = (self.corpus is not None) + (self.conversations is not None)
        if self.alphas and learned != 1:
            raise ValueError("alphas are measured on what was learned: give either corpus or conversations")
        if not self.alphas and (learned or self.replay or self.changed("tokens", "sequence")):
            raise ValueError("nothing is measured without alphas; give some, such as [0, 0.5, 1]")
        return self
