"""How a model answers prompts while it learns from its own answers."""

from typing import Any

from pydantic import Field, model_validator

from matura.core.config import Config
from matura.core.settings import Draw

CUTS = tuple(name for name in Draw.model_fields if name not in ("max_new_tokens", "temperature"))


class Rollouts(Config):
    """Answers of the model itself. Nothing but the temperature shapes the draw: the method needs the probability of
    what was drawn, and cuts and penalties would draw from another distribution than the one that is trained."""

    samples: int = Field(8, ge=1, le=1024, description="Answers to each prompt")
    max_new_tokens: int = Field(256, ge=1, description="Longest answer in tokens")
    temperature: float = Field(
        1.0, ge=0.01, description="Divides the logits, when drawing and in the loss alike"
    )
    batch: int = Field(64, ge=1, description="Answers written side by side")

    @model_validator(mode="before")
    @classmethod
    def _no_cuts(cls, values: Any) -> Any:
        given = [name for name in CUTS if isinstance(values, dict) and name in values]
        if given:
            raise ValueError(
                f"{', '.join(given)} would draw from another distribution than the one that is trained; in "
                "reinforcement learning only the temperature can be set"
            )
        return values

    @property
    def draw(self) -> Draw:
        """These settings as a draw."""
        return Draw(max_new_tokens=self.max_new_tokens, temperature=self.temperature)
