"""Data made by a rule instead of by a model: every target is right, and there is as much of it as one wants.

A program draws sources and computes their targets. What is asked is named by a key that all its forms share (the number
behind 21 and "twenty-one", the day behind all ways to write it), and the hash of the key says on which side it stands:
one key in ten is for the exam, whatever the seed and the count, so no training set has anything that any exam asks.
"""

from __future__ import annotations

import datetime
import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matura.core.errors import MaturaError
from matura.core.records import Conversation
from matura.core.synthesis_settings import Program
from matura.data.synthesis import sides

VERSIONS: dict[Program, str] = {"numbers": "1", "dates": "1", "arithmetic": "1", "reverse": "1", "sort": "1"}
"""Raised with any change of what a program writes."""

HELD_OUT = 10  # one key in so many
TRIES = 2000  # draws in a row that may bring nothing new before the program counts as exhausted

_ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]


@dataclass(frozen=True, slots=True)
class Item:
    """A source with its target; items with one `key` ask the same thing."""

    key: str
    source: str
    target: str


def numbers(draw: random.Random) -> Item:
    """A whole number below a million, as many of each count of digits, in digits or in English words; the target is
    the other of the two."""
    digits = draw.randint(1, 6)
    number = draw.randrange(10 ** (digits - 1) if digits > 1 else 0, 10**digits)
    pair = str(number), in_words(number)
    source, target = pair if draw.random() < 0.5 else pair[::-1]
    return Item(str(number), source, target)


def in_words(number: int) -> str:
    """An English cardinal below a million: 4321 is "four thousand three hundred twenty-one"."""
    if number >= 1000:
        rest = number % 1000
        return in_words(number // 1000) + " thousand" + (f" {in_words(rest)}" if rest else "")
    if number >= 100:
        rest = number % 100
        return f"{_ONES[number // 100]} hundred" + (f" {in_words(rest)}" if rest else "")
    if number >= 20:
        return _TENS[number // 10 - 2] + (f"-{_ONES[number % 10]}" if number % 10 else "")
    return _ONES[number]


_DATES: tuple[Callable[[datetime.date], str], ...] = (
    lambda d: f"{d.day} {_MONTHS[d.month - 1]} {d.year}",
    lambda d: f"{_MONTHS[d.month - 1]} {d.day}, {d.year}",
    lambda d: f"{ordinal(d.day)} of {_MONTHS[d.month - 1]} {d.year}",
    lambda d: f"{_MONTHS[d.month - 1][:3]} {d.day} {d.year}",
    lambda d: f"{d.day:02}.{d.month:02}.{d.year}",
    lambda d: f"{d.month}/{d.day}/{d.year}",
)


def dates(draw: random.Random) -> Item:
    """A day from 1600 to 2399 in one of six forms (dots: day first; slashes: month first); the target is ISO 8601."""
    first, last = datetime.date(1600, 1, 1).toordinal(), datetime.date(2399, 12, 31).toordinal()
    day = datetime.date.fromordinal(draw.randint(first, last))
    return Item(day.isoformat(), draw.choice(_DATES)(day), day.isoformat())


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def arithmetic(draw: random.Random) -> Item:
    """A sum of two to four numbers below a thousand, some subtracted; the target has a line for each step, the result
    so far on its right, and so ends with the answer."""
    total = draw.randrange(1000)
    source, steps = str(total), list[str]()
    for _ in range(draw.randint(1, 3)):
        sign, term = draw.choice("+-"), draw.randrange(1000)
        result = total + term if sign == "+" else total - term
        source += f" {sign} {term}"
        steps.append(f"{total} {sign} {term} = {result}")
        total = result
    return Item(source, source, "\n".join(steps))


def reverse(draw: random.Random) -> Item:
    """Three to eight made-up words; the target has them from the last to the first."""
    words = _words(draw)
    return Item(" ".join(words), f"reverse: {' '.join(words)}", " ".join(reversed(words)))


def sort(draw: random.Random) -> Item:
    """The same; the target has them in the order of the alphabet."""
    words = _words(draw)
    return Item(" ".join(sorted(words)), f"sort: {' '.join(words)}", " ".join(sorted(words)))


def _words(draw: random.Random) -> list[str]:
    return [
        "".join(draw.choice(_SYLLABLES) for _ in range(draw.randint(1, 3))) for _ in range(draw.randint(3, 8))
    ]


_SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]

PROGRAMS: dict[Program, Callable[[random.Random], Item]] = {
    "numbers": numbers,
    "dates": dates,
    "arithmetic": arithmetic,
    "reverse": reverse,
    "sort": sort,
}


def is_held_out(program: Program, key: str) -> bool:
    """Whether what a key names is for the exam only."""
    digest = hashlib.blake2b(f"{program}\n{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % HELD_OUT == 0


def make(program: Program, count: int, heldout: int, seed: int, folder: Path) -> dict[str, Any]:
    """What `write` gives as train.jsonl and heldout.jsonl, and a summary, also as report.json. Raises as `write`."""
    made = write(program, count, heldout, seed)
    train, held = map(len, made)
    summary = {
        "line": f"{train} conversations and {held} held out, by the program {program}",
        "program": program,
        "version": VERSIONS[program],
        "train": train,
        "heldout": held,
    }
    sides.write(folder, *made, summary)
    return summary


def write(
    program: Program, count: int, heldout: int, seed: int
) -> tuple[list[Conversation], list[Conversation]]:
    """`count` different conversations of one question and its answer, `heldout` of them for the exam: (train, held
    out). Raises MaturaError when the program has no more different ones."""
    kept: dict[bool, list[Conversation]] = {False: [], True: []}
    room = {False: count - heldout, True: heldout}
    for number, item in enumerate(_different(program, seed, count)):
        side = is_held_out(program, item.key)
        if len(kept[side]) < room[side]:
            kept[side].append(_conversation(program, number, item, seed))
        if all(len(kept[side]) == room[side] for side in room):
            break
    return kept[False], kept[True]


def _different(program: Program, seed: int, count: int) -> Iterator[Item]:
    draw = random.Random(f"{program}/{seed}")
    seen: set[str] = set()
    tries = 0
    while tries < TRIES + count:
        item = PROGRAMS[program](draw)
        tries += 1
        if item.source not in seen:
            seen.add(item.source)
            tries = 0
            yield item
    raise MaturaError(
        f"the program {program} has hardly more than {len(seen):,} different questions, too few for these settings: "
        "lower `count` or `heldout`"
    )


def _conversation(program: Program, number: int, item: Item, seed: int) -> Conversation:
    return Conversation(
        f"{program}/{seed}/{number}",
        ({"role": "user", "content": item.source}, {"role": "assistant", "content": item.target}),
        provenance={"program": f"{program}@{VERSIONS[program]}", "seed": str(seed)},
    )
