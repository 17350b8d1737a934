"""What recipes/life.yaml counts as a good answer, in the place of people: the command that the documents give.

`command` is what is learned from. It is worth something to name the right service, more to name the right operation,
and the rest is for the options; a command that a shell cannot read is worth nothing. `same_command` only measures.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from matura.align.rewards import Completion

SERVICE, OPERATION, OPTIONS = 0.2, 0.5, 0.3


def command(completions: Sequence[Completion]) -> list[float | None]:
    """From 0 to 1: service, operation, and the F1 of the names of options against those of the right command; None
    where a shell cannot read that one itself."""
    return [_worth(one.text, one.prompt.facts["gold"]) for one in completions]


def same_command(completions: Sequence[Completion]) -> list[float | None]:
    """1 where service and operation are the right ones, whatever the options."""
    return [None if worth is None else float(worth >= SERVICE + OPERATION) for worth in command(completions)]


def _worth(text: str, gold: str) -> float | None:
    said, right = _words(text), _words(gold)
    if not right:
        return None
    if said[:1] != ["aws"] or said[1:2] != right[1:2]:
        return 0.0
    if said[2:3] != right[2:3]:
        return SERVICE
    return SERVICE + OPERATION + OPTIONS * _f1(_options(said), _options(right))


def _words(text: str) -> list[str]:
    """A command as a shell reads it, lines that end in a backslash joined; nothing where quotes do not close."""
    try:
        return shlex.split(text.replace("\\\n", " "))
    except ValueError:
        return []


def _options(words: Sequence[str]) -> set[str]:
    return {word.split("=")[0] for word in words if word.startswith("--")}


def _f1(said: set[str], right: set[str]) -> float:
    return 2 * len(said & right) / (len(said) + len(right)) if said or right else 1.0
