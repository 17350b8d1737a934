"""IFEval: does an answer follow the instructions that a program can verify? (Zhou et al. 2023, arXiv:2311.07911.)

A row is `{"key", "prompt", "instruction_id_list", "kwargs"}`: for each instruction its kind and arguments. Four
figures (section 2.2 of the paper): the share of prompts whose instructions are all followed and the share of
instructions that are, each strictly and loosely. Loosely, an answer follows when it does so without its Markdown
stars, its first line, its last line, or any of these together: "Sure, here it is:" is then no mistake. An empty
answer follows nothing.
"""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

from matura.core.errors import FormatError
from matura.evaluate.instructions import CHECKS, languages

LANGUAGE = "language:response_language"
FIGURES = ("prompt_strict", "instruction_strict", "prompt_loose", "instruction_loose")


@dataclass(frozen=True)
class Instruction:
    """One instruction of a prompt: what must hold of the answer."""

    kind: str
    arguments: Mapping[str, Any]

    def followed(self, answer: str) -> bool:
        """Whether the answer, as it is, follows it."""
        return bool(answer.strip()) and CHECKS[self.kind](answer, **self.arguments)

    def followed_loosely(self, answer: str) -> bool:
        """Whether the answer or one of its loose readings follows it."""
        return any(map(self.followed, readings(answer)))


@dataclass(frozen=True)
class Prompt:
    """One prompt with its instructions."""

    id: str
    text: str
    instructions: tuple[Instruction, ...]


@dataclass(frozen=True)
class Followed:
    """Which instructions of one prompt an answer followed, in their order."""

    strict: tuple[bool, ...]
    loose: tuple[bool, ...]

    def figures(self) -> dict[str, tuple[float, float]]:
        """(value, weight) by the names of `FIGURES`: a prompt counts 1, its instructions as many as they are.

        Sum of values over sum of weights is the share, and prompts are what is resampled for its interval.
        """
        count = float(len(self.strict))
        return {
            "prompt_strict": (float(all(self.strict)), 1.0),
            "instruction_strict": (float(sum(self.strict)), count),
            "prompt_loose": (float(all(self.loose)), 1.0),
            "instruction_loose": (float(sum(self.loose)), count),
        }


def grade(prompt: Prompt, answer: str) -> Followed:
    """What an answer followed."""
    return Followed(
        tuple(one.followed(answer) for one in prompt.instructions),
        tuple(one.followed_loosely(answer) for one in prompt.instructions),
    )


def readings(answer: str) -> list[str]:
    """The answer and its loose readings: without stars, first line, last line, and all of these together."""
    lines = answer.split("\n")
    cut = [
        "\n".join(lines[first : len(lines) - last]).strip() if first or last else answer
        for first, last in product((0, 1), (0, 1))
    ]
    return [*cut, *(text.replace("*", "") for text in cut)]


def read(rows: Iterable[Mapping[str, Any]]) -> tuple[list[Prompt], list[str]]:
    """The prompts of the rows, and the ids of those left out because the detector does not know their language.

    Fields that are null stand for arguments an instruction does not have, as in some copies of the data set. Raises
    FormatError with the row's number for an unknown kind and for arguments that are missing, unknown or of a wrong
    type.
    """
    prompts, unknown = [], []
    for number, row in enumerate(rows, start=1):
        prompt = _prompt(row, f"row {number}")
        wanted = {one.arguments["language"] for one in prompt.instructions if one.kind == LANGUAGE}
        if wanted <= languages():
            prompts.append(prompt)
        else:
            unknown.append(prompt.id)
    return prompts, unknown


def _prompt(row: Mapping[str, Any], where: str) -> Prompt:
    for field, kind in (("prompt", str), ("instruction_id_list", list), ("kwargs", list)):
        if not isinstance(row.get(field), kind):
            raise FormatError(f"{where}: expected `{field}`, a {kind.__name__}, found {row.get(field)!r:.80}")
    kinds, arguments = row["instruction_id_list"], row["kwargs"]
    if not kinds or len(kinds) != len(arguments):
        raise FormatError(
            f"{where}: {len(kinds)} instructions with {len(arguments)} kwargs; expected one for each"
        )
    chosen = tuple(instruction(kind, one, where) for kind, one in zip(kinds, arguments, strict=True))
    return Prompt(str(row.get("key", where.removeprefix("row "))), row["prompt"], chosen)


def instruction(kind: str, arguments: Mapping[str, Any], where: str) -> Instruction:
    """An instruction whose kind and arguments were checked. Raises FormatError, after `where`."""
    if kind not in CHECKS:
        near = difflib.get_close_matches(str(kind), CHECKS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(CHECKS)}."
        raise FormatError(f"{where}: there is no instruction {kind!r}; {hint}")
    if not isinstance(arguments, Mapping):
        raise FormatError(f"{where}: {kind}: expected arguments as an object, found {arguments!r:.80}")
    given = {name: value for name, value in arguments.items() if value is not None}
    wanted = _arguments(kind)
    if given.keys() != wanted.keys():
        raise FormatError(f"{where}: {kind} takes {sorted(wanted) or 'no arguments'}, found {sorted(given)}")
    for name, value in given.items():
        if not _fits(value, wanted[name]):
            raise FormatError(f"{where}: {kind}: {name} is {value!r:.80}, which is no {_words(wanted[name])}")
    return Instruction(kind, given)


@cache
def _arguments(kind: str) -> dict[str, Any]:
    """Names and types of what a kind of instruction takes besides the answer."""
    types_of = typing.get_type_hints(CHECKS[kind])
    return {name: types_of[name] for name in list(inspect.signature(CHECKS[kind]).parameters)[1:]}


def _fits(value: Any, wanted: Any) -> bool:
    if typing.get_origin(wanted) is typing.Literal:
        return value in typing.get_args(wanted)
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if wanted is str:
        return isinstance(value, str) and bool(value.strip())
    return isinstance(value, list) and bool(value) and all(_fits(one, str) for one in value)


def _words(wanted: Any) -> str:
    if typing.get_origin(wanted) is typing.Literal:
        return " or ".join(map(repr, typing.get_args(wanted)))
    return {int: "whole number", str: "text"}.get(wanted, "list of texts")
