"""Retrieval from long contexts: a sentence with a number is hidden in a long text, and the number is asked for.

The method is that of passkey retrieval (Mohtashami and Jaggi 2023, arXiv:2305.16300) with what RULER adds (Hsieh et
al. 2024, arXiv:2404.06654): other sentences of the same form lie in the text, so whoever copies any number is wrong.
Lengths are in tokens of the whole prompt, depths are shares of the text that stand before the sentence.

The text around is made here from plain sentences, so nobody's licence is touched and no model has read it; sentences
of real documents may be given instead. Every model of an exam gets the same text.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from matura.core.errors import ConfigError

Count = Callable[[str], int]
"""Tokens of a text."""

DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
DIGITS = 5
ANSWER_TOKENS = 12
"""Of what is written: room for the digits and a little more."""
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "purple", "orange", "silver", "golden")
THINGS = ("box", "key", "lamp", "boat", "door", "cart", "tower", "garden", "bridge", "clock")
_HEAD = "Read the text and remember the numbers in it.\n\n"
_TIMES = (
    "In the morning",
    "At noon",
    "In the evening",
    "On Sunday",
    "In spring",
    "Every year",
    "After the rain",
    "Before winter",
)
_WHO = (
    "the farmer",
    "the baker",
    "a child",
    "an old man",
    "my neighbour",
    "the teacher",
    "a sailor",
    "the gardener",
)
_DOES = (
    "walks along the river",
    "looks at the clouds",
    "carries bread to the market",
    "sits under a tree",
    "reads a letter",
    "waters the flowers",
    "talks about the weather",
    "mends a fence",
    "feeds the birds",
    "listens to the wind",
)


@dataclass(frozen=True)
class Needle:
    """One question. `decoys` are numbers that are wrong; the first `inside` of them stand in the text.

    The answer is the continuation `" " + answer` of `prompt`. `present` is False for the control, whose text does not
    hold the answer.
    """

    id: str
    length: int
    depth: float
    prompt: str
    answer: str
    decoys: tuple[str, ...]
    inside: int
    present: bool = True

    @property
    def chance(self) -> float:
        """What guessing among answer and decoys scores."""
        return 1 / (1 + len(self.decoys))


def build(
    count: Count,
    length: int,
    depth: float,
    seed: int,
    *,
    inside: int = 2,
    outside: int = 2,
    present: bool = True,
    sentences: Sequence[str] = (),
) -> Needle:
    """A question of at most `length` tokens by `count`, with the needle at `depth` (0: beginning, 1: end) of the
    text.

    `inside` other numbers lie in the text, `outside` more are only offered. `sentences`: the text around, in its
    order, from the beginning again when it is too short; none: made here. Raises ConfigError when not even the
    numbers fit.
    """
    chance = random.Random(f"needle/{seed}/{length}/{depth}")
    names = chance.sample([f"{colour} {thing}" for colour in COLOURS for thing in THINGS], 1 + inside)
    numbers = [str(n) for n in chance.sample(range(10 ** (DIGITS - 1), 10**DIGITS), 1 + inside + outside)]
    facts = [_fact(name, number) for name, number in zip(names, numbers, strict=False)]
    places = sorted(chance.random() for _ in range(inside))
    asked = f"\n\nQuestion: What is the number of the {names[0]}?\nAnswer: The number of the {names[0]} is"
    hay = list(islice(_endless(sentences, chance), max(1, length)))

    def prompt(kept: int) -> str:
        text = hay[:kept]
        hidden = [(depth, facts[0] if present else ""), *zip(places, facts[1:], strict=True)]
        # From the end on, so that places found before stay right.
        for share, fact in sorted(hidden, key=lambda one: -one[0]):
            text.insert(round(share * kept), fact)
        return _HEAD + " ".join(filter(None, text)) + asked

    if count(prompt(0)) > length:
        raise ConfigError(
            f"needle: {length} tokens do not hold the question alone, which has {count(prompt(0))}"
        )
    low, high = 0, len(hay) + 1  # prompt(low) fits, prompt(high) does not or is not there
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(prompt(middle)) <= length else (low, middle)
    return Needle(
        id=f"needle-{length}-{depth:g}-{seed}{'' if present else '-absent'}",
        length=length,
        depth=depth,
        prompt=prompt(low),
        answer=numbers[0],
        decoys=tuple(numbers[1:]),
        inside=inside,
        present=present,
    )


def grid(
    count: Count,
    lengths: Sequence[int],
    depths: Sequence[float] = DEPTHS,
    each: int = 5,
    *,
    present: bool = True,
    sentences: Sequence[str] = (),
) -> Iterator[Needle]:
    """`each` questions for every length and depth."""
    for length in lengths:
        for depth in depths:
            for seed in range(each):
                yield build(count, length, depth, seed, present=present, sentences=sentences)


def found(needle: Needle, written: str) -> bool:
    """Whether what was written begins with the number; a longer number that begins so is wrong."""
    text = written.strip()
    return text.startswith(needle.answer) and not text[len(needle.answer) :][:1].isdecimal()


def _fact(name: str, number: str) -> str:
    return f"The number of the {name} is {number}."


def _endless(sentences: Sequence[str], chance: random.Random) -> Iterator[str]:
    """The sentences over and over, from a place of chance on; made ones when there are none."""
    if sentences:
        start = chance.randrange(len(sentences))
        while True:
            yield from (sentences[(start + i) % len(sentences)] for i in range(len(sentences)))
    while True:
        yield f"{chance.choice(_TIMES)}, {chance.choice(_WHO)} {chance.choice(_DOES)}."
