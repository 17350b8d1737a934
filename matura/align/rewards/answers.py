"""Rewards that read the answer: is it right, has it a form, how long is it, does it repeat itself."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

import pyarrow
import pyarrow.compute

from matura.align.rewards.completion import Completion
from matura.core.reward_settings import Exact, Length, Repetition
from matura.evaluate.grading import extracted
from matura.evaluate.spec import Extract

GOLD = "gold"
"""The fact that holds the right answer."""

_NUMBER = r"-?\$?(?:\d[\d,]*)?(?:\.\d+|\d)"
_MARKED = Extract(name="marked", pattern=rf"####\s*\$?({_NUMBER})", which=-1)
_LAST = Extract(name="last", pattern=rf"({_NUMBER})", which=-1)
DIGITS = 64
"""A longer number is no answer."""


def exact(settings: Exact, completions: Sequence[Completion]) -> list[float | None]:
    """1 for the right answer, 0 for another or none; None where nobody knows the right one."""
    found: list[float | None] = []
    for one in completions:
        gold = one.prompt.facts.get(GOLD)
        right = None if gold is None else answer(settings, gold)
        found.append(None if right is None else float(answer(settings, one.text) == right))
    return found


def answer(settings: Exact, text: str) -> Decimal | str | None:
    """What of a text is the answer; None without one."""
    match settings.find:
        case "number":
            return number(text)
        case "last_line":
            return (text.strip().splitlines() or [""])[-1].strip() or None
        case "text":
            return text.strip() or None


def number(text: str) -> Decimal | None:
    """The number after the last ####, else the last number; 1,000 and $1000.00 are equal. None without one."""
    said = extracted(_MARKED, text) or extracted(_LAST, text)
    if said is None:
        return None
    digits = said.replace(",", "").replace("$", "")
    if len(digits) > DIGITS:
        return None
    try:
        return Decimal(digits)
    except InvalidOperation:
        return None


def pattern(regex: str, completions: Sequence[Completion]) -> list[float | None]:
    """1 where a pattern of RE2 is found: its time is linear in the text, so no answer can stall it."""
    texts = pyarrow.array([one.text for one in completions], pyarrow.string())
    found = pyarrow.compute.match_substring_regex(texts, regex).to_pylist()
    return [float(one) for one in found]


def length(settings: Length, completions: Sequence[Completion]) -> list[float | None]:
    """From 0 at `free` tokens to -1 at `most`; -1 for what was cut off."""
    span = settings.most - settings.free
    return [
        -1.0 if one.end == "length" else -min(1.0, max(0.0, (one.tokens - settings.free) / span))
        for one in completions
    ]


def repetition(settings: Repetition, completions: Sequence[Completion]) -> list[float | None]:
    """Minus the share of the runs of words that are in the answer before."""
    found: list[float | None] = []
    for one in completions:
        words = one.text.split()
        runs = [tuple(words[i : i + settings.words]) for i in range(len(words) - settings.words + 1)]
        found.append(len(set(runs)) / len(runs) - 1 if runs else 0.0)
    return found


def ending(completions: Sequence[Completion]) -> list[float | None]:
    """-1 for an answer that was cut off."""
    return [-1.0 if one.end == "length" else 0.0 for one in completions]
