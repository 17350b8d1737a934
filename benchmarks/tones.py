"""Short made-up descriptions of animals whose every word has a tone, and rewards for them.

A description has `SLOTS` words of tone, each warm, plain or cold with equal chance. `tone` counts them and is what is
learned; `form` says whether a description is one, of the animal and the place that were asked, and is held out;
`chance` is a number that says nothing.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from matura.core.preferences import Ranking
from matura.core.records import Conversation

ANIMALS = "badger beaver bison cat crane deer dog duck eagle fox frog goat goose hare heron horse lynx mole otter owl "
ANIMALS += "panda pony rabbit raven robin seal sheep stork swan toad trout vole whale wolf wren yak"
PLACES = "barn cave field forest garden harbour meadow river valley village"
WORDS = {
    1: "gentle happy lovely kind merry tender cheerful sweet",
    0: "grey large young small tall old brown quick",
    -1: "bitter angry cruel grim nasty gloomy hostile sour",
}
VALUES = {word: value for value, words in WORDS.items() for word in words.split()}
SLOTS = 6
FORM = re.compile(
    r"The (\w+) in the (\w+) is (\w+) and (\w+)\. It has a (\w+) voice and a (\w+) face\. "
    r"All say it is (\w+), even (\w+)\."
)


def described(animal: str, place: str, draw: random.Random) -> str:
    """A description with tones at random."""
    return written(animal, place, [draw.choice(WORDS[draw.choice((-1, 0, 1))].split()) for _ in range(SLOTS)])


def written(animal: str, place: str, words: Sequence[str]) -> str:
    """A description with these words."""
    a, b, c, d, e, f = words
    return (
        f"The {animal} in the {place} is {a} and {b}. It has a {c} voice and a {d} face. "
        f"All say it is {e}, even {f}."
    )


def pairs() -> list[tuple[str, str]]:
    """All animals in all places, in an order that looks like none."""
    found = [(animal, place) for animal in ANIMALS.split() for place in PLACES.split()]
    return sorted(found, key=lambda pair: hashlib.blake2b(repr(pair).encode()).digest())


def asked(animal: str, place: str) -> str:
    """The prompt."""
    return f"Describe the {animal} in the {place}."


def prompt(pair: tuple[str, str]) -> Ranking:
    """The prompt for an animal in a place, to be answered."""
    return Ranking("-".join(pair), ({"role": "user", "content": asked(*pair)},))


def lessons(
    known: Sequence[tuple[str, str]],
    count: int,
    draw: random.Random,
    described: Callable[[str, str, random.Random], str],
) -> list[Conversation]:
    """Prompts for some of the known pairs, each with a description that `described` draws."""
    rows = []
    for n in range(count):
        pair = draw.choice(known)
        said = {"role": "assistant", "content": described(*pair, draw)}
        rows.append(Conversation(f"c{n}", ({"role": "user", "content": asked(*pair)}, said)))
    return rows


def tone(completions: Sequence[Any]) -> list[float]:
    """Warm words minus cold ones, among the first `SLOTS` words that have a tone."""
    return [
        float(sum([VALUES[word] for word in re.findall(r"\w+", one.text) if word in VALUES][:SLOTS]))
        for one in completions
    ]


def form(completions: Sequence[Any]) -> list[float]:
    """1 for a description of what was asked, word by word, else 0."""
    found = []
    for one in completions:
        match = FORM.fullmatch(one.text)
        asked_for = one.prompt.messages[-1]["content"]
        right = match is not None and asked(match[1], match[2]) == asked_for
        found.append(float(right and all(word in VALUES for word in match.groups()[2:]) if match else 0.0))
    return found


def chance(completions: Sequence[Any]) -> list[float]:
    """A number that depends on every letter of the answer, and on nothing that could be learned."""
    return [
        int.from_bytes(hashlib.blake2b(f"{one.prompt.id}/{one.text}".encode(), digest_size=4).digest(), "big")
        / 2**31
        for one in completions
    ]
