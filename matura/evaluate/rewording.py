"""The same question in other words: typing errors, another frame, another order of the options listed in it.

All changes are of a prompt's text and leave alone what the answer depends on: words of the choices, numbers, names
of the options. Chance comes from outside, so that a seed fixes every change.

Measured with them is robustness: a model that has learned the matter answers as before (Zhu et al. 2023,
arXiv:2306.04528, for noise and frames; Pezeshkpour and Hruschka 2023, arXiv:2308.11483, for the order of options).
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Sequence

RATE = 0.1
"""Share of the words that may be misspelt that are."""
SHORTEST = 4  # letters of a word that may be misspelt: shorter ones become other words too easily

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_WORD = re.compile(r"(?<![\w'’-])[^\W\d_]+(?![\w'’:-])")
_LISTED = re.compile(r"[^\S\n]*(?P<label>[A-Z]|\d{1,2})(?P<mark>[.):])[^\S\n]+(?P<text>\S.*)")
_FRAME = re.compile(r"\A(?:Question|Q):\s*(?P<question>.*?)\s*\n(?:Answer|A):\Z", re.DOTALL)

FRAMES = (
    "Q: {}\nA:",
    "{}\nAnswer:",
    "Answer the following question.\n{}\nThe answer:",
    "Here is a question: {}\nWhat is the answer?\nAnswer:",
    "Please tell me: {}\nReply:",
)
"""Frames for a prompt of the form `Question: ...` with `Answer:` below."""
LEADS = (
    "Read this.\n",
    "Consider the following.\n",
    "The text is given below.\n",
    "Here it comes:\n",
    "Go on from here.\n",
)
"""What is put before a prompt of any other form."""


def _neighbours() -> dict[str, str]:
    """The letters beside each letter on a QWERTY keyboard: in its row, and those above and below that touch it."""
    places = {letter: (row, column) for row, line in enumerate(_ROWS) for column, letter in enumerate(line)}

    def touch(a: tuple[int, int], b: tuple[int, int]) -> bool:
        # Each row lies half a key to the right of the one above.
        return a != b and abs(a[0] - b[0]) <= 1 and abs((a[1] + a[0] / 2) - (b[1] + b[0] / 2)) <= 1

    return {
        letter: "".join(other for other, there in places.items() if touch(place, there))
        for letter, place in places.items()
    }


NEIGHBOURS = _neighbours()


def misspell(word: str, chance: random.Random) -> str:
    """The word with one typing error after its first letter: a neighbouring key, two letters swapped, or one dropped.

    Words of fewer than three letters and of other scripts come back as they are.
    """
    places = [i for i in range(1, len(word)) if word[i].lower() in NEIGHBOURS]
    swaps = [i for i in range(1, len(word) - 1) if word[i] != word[i + 1]]
    if len(word) < 3 or not places:
        return word
    kind = chance.choice(("neighbour", "drop", "swap") if swaps else ("neighbour", "drop"))
    if kind == "swap":
        i = chance.choice(swaps)
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    i = chance.choice(places)
    if kind == "drop":
        return word[:i] + word[i + 1 :]
    key = chance.choice(NEIGHBOURS[word[i].lower()])
    return word[:i] + (key.upper() if word[i].isupper() else key) + word[i + 1 :]


def typos(
    text: str,
    chance: random.Random,
    rate: float = RATE,
    *,
    keep: Collection[str] = (),
    end: int | None = None,
) -> str:
    """The text with typing errors in a share `rate` of its words, at least in one where there is one to misspell.

    Left alone: words of fewer than four letters, with digits, hyphens or apostrophes, names before a colon
    (`Question:`), listed options, and the words in `keep`, whatever their capitals. Only what begins before `end` is
    touched. Raises ValueError for a rate outside 0 to 1.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate: expected a share of 0 to 1, got {rate}")
    kept = {word.lower() for word in keep}
    options = [line.span() for line in re.finditer(r"^.*$", text, re.MULTILINE) if _LISTED.fullmatch(line[0])]
    found = [
        match.span()
        for match in _WORD.finditer(text, 0, len(text) if end is None else end)
        if match.end() - match.start() >= SHORTEST
        and match[0].lower() not in kept
        and not any(low <= match.start() < high for low, high in options)
    ]
    if not found or not rate:
        return text
    chosen = chance.sample(found, max(1, round(rate * len(found))))
    for low, high in sorted(chosen, reverse=True):
        text = text[:low] + misspell(text[low:high], chance) + text[high:]
    return text


def shared(texts: Sequence[str]) -> int:
    """How many characters at the beginning are the same in all texts, up to the last space among them.

    Where every choice has a prompt of its own, what they share is the question.
    """
    if len(set(texts)) == 1:
        return len(texts[0])
    first, last = min(texts), max(texts)  # what these two share, all share
    same = next(
        (i for i, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first)
    )
    return first.rfind(" ", 0, same) + 1


def words(texts: Sequence[str]) -> set[str]:
    """All words of the texts: what a typing error must not touch."""
    return {word for text in texts for word in re.findall(r"[^\W\d_]+", text)}


def reframe(prompt: str, chance: random.Random) -> str:
    """The prompt in another frame of `FRAMES`, or behind one of `LEADS` where it has no frame."""
    match = _FRAME.match(prompt)
    if match is None:
        return chance.choice(LEADS) + prompt
    framed = [frame.replace("{}", match["question"]) for frame in FRAMES]
    return chance.choice([one for one in framed if one != prompt])


def options(prompt: str, count: int) -> list[re.Match[str]]:
    """The `count` options that a prompt lists on lines below each other (`A. text`), or none.

    The last such list counts: those before it belong to examples.
    """
    lines = list(re.finditer(r"^.*$", prompt, re.MULTILINE))
    for start in range(len(lines) - count, -1, -1):
        found = [_LISTED.fullmatch(prompt, *line.span()) for line in lines[start : start + count]]
        matches = [one for one in found if one is not None]
        if len(matches) == count > 1 and _in_order([one["label"] for one in matches]):
            return matches
    return []


def _in_order(labels: Sequence[str]) -> bool:
    first = labels[0]
    if first not in ("A", "1", "0"):
        return False
    wanted = (
        [chr(ord("A") + i) for i in range(len(labels))]
        if first == "A"
        else [str(int(first) + i) for i in range(len(labels))]
    )
    return list(labels) == wanted


def reorder(prompt: str, order: Sequence[int]) -> str | None:
    """The prompt with its listed options in another order: place i gets the text of option `order[i]`.

    The labels stay where they are, so the right answer of a question whose choices are labels moves from `gold` to
    `order.index(gold)`. None when the prompt lists no such options. Raises ValueError when `order` is no permutation.
    """
    if sorted(order) != list(range(len(order))):
        raise ValueError(f"order: expected each of 0 to {len(order) - 1} once, got {list(order)}")
    found = options(prompt, len(order))
    if not found:
        return None
    texts = [match["text"] for match in found]
    for place in reversed(range(len(found))):
        low, high = found[place].span("text")
        prompt = prompt[:low] + texts[order[place]] + prompt[high:]
    return prompt


def another_order(count: int, chance: random.Random) -> list[int]:
    """An order of `count` options other than the one they have; of a single option there is none other."""
    order = list(range(count))
    while count > 1 and order == sorted(order):
        chance.shuffle(order)
    return order
