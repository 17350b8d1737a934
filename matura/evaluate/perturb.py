"""Changes to the questions of any task: what stands before them (examples, description) stays as it is.

A perturbation is a function from a question and a source of chance to a question; its randomness is fixed by its name,
the seed and the question's id. To add one, write the function and enter it in `PERTURBATIONS`.
"""

from __future__ import annotations

import difflib
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from matura.core.errors import ConfigError


@dataclass(frozen=True)
class Question:
    """A row of a task as a model is asked: `prompts` has one for all choices, or one for each."""

    id: str
    prompts: tuple[str, ...]
    choices: tuple[str, ...]
    gold: int
    right: tuple[int, ...] = ()
    group: str = ""
    description: str = ""


Change = Callable[[Question, random.Random], Question]


@dataclass(frozen=True)
class Perturbation:
    """`name` is what settings call it; `about` says what it is for."""

    name: str
    about: str
    change: Change


def _any_answer(question: Question, chance: random.Random) -> Question:
    """Any choice becomes the right one."""
    return replace(question, gold=chance.randrange(max(1, len(question.choices))), right=())


PERTURBATIONS: dict[str, Perturbation] = {
    one.name: one
    for one in (
        Perturbation(
            "any_answer",
            "Control: any choice becomes the right one, so no model can do better than guess",
            _any_answer,
        ),
    )
}


def find(name: str) -> Perturbation:
    """The perturbation of this name. Raises ConfigError with the nearest one."""
    if name in PERTURBATIONS:
        return PERTURBATIONS[name]
    near = difflib.get_close_matches(name, PERTURBATIONS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(PERTURBATIONS)}."
    raise ConfigError(f"there is no perturbation {name!r}; {hint}")


def apply(perturbation: Perturbation, question: Question, seed: int) -> Question:
    """The question, changed; the same seed and id change it in the same way."""
    return perturbation.change(question, random.Random(f"{perturbation.name}/{seed}/{question.id}"))
