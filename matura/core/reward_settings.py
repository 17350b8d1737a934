"""What answers are rewarded for. Every reward has a weight; without one it is off, and with 0 it is measured only."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from matura.core import patterns
from matura.core.config import Config, Input

WEIGHT = "Factor in the sum; 0 only measures it (a held-out reward), none leaves it out"


class Exact(Config):
    """1 when the answer is the right one (`facts.gold` of the prompt, or its last answer), else 0."""

    weight: float | None = Field(None, description=WEIGHT)
    find: Literal["number", "last_line", "text"] = Field(
        "number",
        description="What of a text is the answer: the number after the last ####, else the last number; the last "
        "line; all of it",
    )


class Pattern(Config):
    """1 when a pattern is found in the answer, else 0."""

    weight: float | None = Field(None, description=WEIGHT)
    pattern: str | None = Field(
        None,
        description="A regular expression of RE2, which takes linear time whatever the text; ^ and $ are the ends of "
        "the text, (?s) lets . match line breaks",
    )

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        return pattern if pattern is None else patterns.checked(pattern)

    @model_validator(mode="after")
    def _given(self) -> Pattern:
        if (self.weight is None) != (self.pattern is None):
            raise ValueError("give both a pattern and a weight")
        return self


class Length(Config):
    """0 for answers of up to `free` tokens, -1 from `most` on and for those that were cut off, between them on a line
    (the soft punishment of arXiv:2503.14476, equation 13)."""

    weight: float | None = Field(None, description=WEIGHT)
    free: int = Field(128, ge=0, description="Tokens that cost nothing, the stop token among them")
    most: int = Field(256, ge=1, description="Tokens from which on it is -1")

    @model_validator(mode="after")
    def _ordered(self) -> Length:
        if self.free >= self.most:
            raise ValueError(f"free={self.free} must be less than most={self.most}")
        return self


class Repetition(Config):
    """Minus the share of the answer's runs of `words` words that came before in it."""

    weight: float | None = Field(None, description=WEIGHT)
    words: int = Field(3, ge=1, le=32, description="Words in a run")


class Ending(Config):
    """0 when the answer ended by itself, -1 when it was cut off at the longest length."""

    weight: float | None = Field(None, description=WEIGHT)


class UnitTests(Config):
    """1 when the Python program in the answer passes `facts.tests` of the prompt (statements such as `assert`), else
    0. See docs/rewards.md for what the limits do not protect from."""

    weight: float | None = Field(None, description=WEIGHT)
    seconds: float = Field(2.0, gt=0, le=600, description="Processor time of one program")
    memory_mb: int = Field(512, ge=64, description="Memory of one program")
    processes: int = Field(2, ge=1, le=64, description="Programs run side by side")


class Own(Config):
    """A function of your own, in a Python file: (completions) -> a number for each, or None where it cannot judge."""

    file: Annotated[str, Input("raw")] = Field(description="The Python file; it runs with your own rights")
    function: str | None = Field(None, description="Its name there; none: the name of this reward")
    weight: float = Field(1.0, description="Factor in the sum; 0 only measures it")


class JudgeModel(Config):
    """What a reward model says of the answer."""

    model: Annotated[str | None, Input("model")] = Field(None, description="What `matura reward` made")
    weight: float = Field(1.0, description="Factor in the sum; 0 only measures it")

    @model_validator(mode="after")
    def _given(self) -> JudgeModel:
        if self.model is None and self.weight != 1:
            raise ValueError("weight would do nothing without a model")
        return self


BUILT_IN = ("exact", "pattern", "length", "repetition", "ending", "tests")


class Rewards(Config):
    """What an answer is rewarded for: the sum of all rewards that have a weight."""

    exact: Exact = Exact()
    pattern: Pattern = Pattern()
    length: Length = Length()
    repetition: Repetition = Repetition()
    ending: Ending = Ending()
    tests: UnitTests = UnitTests()
    own: dict[str, Own] = Field(default_factory=dict, description="Functions of your own, by name")
    judge: JudgeModel = JudgeModel()

    @model_validator(mode="after")
    def _named(self) -> Rewards:
        if taken := [name for name in self.own if name in (*BUILT_IN, "judge", "all")]:
            raise ValueError(f"own.{taken[0]}: there is a reward of this name already; take another")
        for name in BUILT_IN:
            group = getattr(self, name)
            default = type(group)()
            if group.weight is None and group != default:
                raise ValueError(
                    f"{name} is set, but has no weight, so it would do nothing: give it a weight"
                )
        return self

    @property
    def weights(self) -> dict[str, float]:
        """The rewards that are on, by name."""
        found = {name: getattr(self, name).weight for name in BUILT_IN}
        found |= {name: one.weight for name, one in self.own.items()}
        found["judge"] = None if self.judge.model is None else self.judge.weight
        return {name: weight for name, weight in found.items() if weight is not None}

    @property
    def penalties(self) -> frozenset[str]:
        """Rewards whose weight is below 0: the less of them, the better."""
        return frozenset(name for name, weight in self.weights.items() if weight < 0)


def penalties_in(settings: object) -> frozenset[str]:
    """The penalties among rewards as a record holds them; none where it holds none, or those of another version."""
    try:
        return Rewards.model_validate(settings).penalties
    except ValidationError:
        return frozenset()


def check_rewarded(rewards: Rewards) -> None:
    """Raises ValueError when nothing is rewarded."""
    if not any(rewards.weights.values()):
        known = ", ".join((*BUILT_IN, "judge.model", "own.NAME.file"))
        raise ValueError(
            f"rewards: nothing has a weight, so there is nothing to learn; give one, such as rewards.exact.weight=1 "
            f"(there are: {known})"
        )
