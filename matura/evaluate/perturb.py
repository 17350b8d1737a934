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
from matura.evaluate import rewording


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


def _typos(question: Question, chance: random.Random) -> Question:
    """Typing errors in the part of the question that all its prompts share; words of the choices are spared, and those
    in which the prompts differ."""
    end, seed = rewording.shared(question.prompts), chance.random()
    keep = rewording.words([*question.choices, *(prompt[end:] for prompt in question.prompts)])
    prompts = (
        rewording.typos(prompt, random.Random(seed), keep=keep, end=end) for prompt in question.prompts
    )
    return replace(question, prompts=tuple(prompts))


def _paraphrase(question: Question, chance: random.Random) -> Question:
    """Another frame around the question, the same for all its prompts."""
    seed = chance.random()
    prompts = (rewording.reframe(prompt, random.Random(seed)) for prompt in question.prompts)
    return replace(question, prompts=tuple(prompts))


def _options(question: Question, chance: random.Random) -> Question:
    """Another order of the options that the prompt lists; of the choices where it lists none.

    When the choices are the labels of the list, the right one becomes another label.
    """
    order = rewording.another_order(len(question.choices), chance)
    if len(order) < 2 or len(question.prompts) > 1:
        return question
    moved = replace(
        question,
        gold=order.index(question.gold),
        right=tuple(order.index(one) for one in question.right),
    )
    listed = rewording.reorder(question.prompts[0], order)
    if listed is None:
        return replace(moved, choices=tuple(question.choices[i] for i in order))
    labels = [one["label"] for one in rewording.options(question.prompts[0], len(order))]
    by_label = [choice.strip() for choice in question.choices] == labels
    return replace(moved if by_label else question, prompts=(listed,))


PERTURBATIONS: dict[str, Perturbation] = {
    one.name: one
    for one in (
        Perturbation(
            "any_answer",
            "Control: any choice becomes the right one, so no model can do better than guess",
            _any_answer,
        ),
        Perturbation("typos", "Typing errors in one word of ten; never in words of the choices", _typos),
        Perturbation("paraphrase", "Another frame around the question, which stays as it is", _paraphrase),
        Perturbation("options", "Another order of the options that the question lists", _options),
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
