"""What keeps a model from losing the rest while it learns something new, and what measures it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from matura.core.config import Config, Input
from matura.core.wheels import EXAMS

Part = Literal["replay", "new", "both"]


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
        fields = type(self).model_fields
        given = [name for name in ("patience", "keep") if getattr(self, name) != fields[name].default]
        if self.limit is None and given:
            raise ValueError(f"{', '.join(given)} would do nothing without a limit: give limit, in percent")
        return self
