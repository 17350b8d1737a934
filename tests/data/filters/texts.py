"""Small texts for the tests of filters: edge cases, and seeded random ones that repeat and mix."""

import math
import random
from collections.abc import Mapping

import numpy as np

from matura.core.records import Document

EDGES = [
    "",
    " ",
    "\n",
    "\n\n\n",
    " \n\t\n ",
    "word",
    "!",
    "... ### — ••• 12",
    "# # # … …",
    "\n\nstarts and ends with line ends\n\n",
    "one\n\n\ntwo\n\n\n\none\n\n one",
    "a\r\nb\r\nc\x0bd\u2028e",
    "naïve Ærøskøbing 東京都 नमस्ते שלום ① ² ½",
    "The end。\nالنهاية؟\nसमाप्त।",
    "same same same same same same same same",
    "x" * 3000,
    "{",
    "[1] [edit] It was [citation needed] so.",
]

_WORDS = ["the", "of", "and", "with", "that", "tree", "Running", "a", "I", "3.5", "x2", "--", "•", "#", "…", "end.",
          "who?", "naïve", "東京", "(so)", "...", "JavaScript", "privacy", "policy", "cookies"]  # fmt: skip
_GAPS = [" "] * 12 + ["\n", "\n\n", "\n\n\n", "  ", ".\n", ". ", "\n- ", "...\n", "\u2028"]


def random_texts(count: int, seed: int) -> list[str]:
    """Texts of few different words, with passages of their own that come again."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        pieces: list[str] = []
        vocabulary = draw.sample(_WORDS, draw.randint(2, len(_WORDS)))
        for _ in range(draw.randint(0, 120)):
            if pieces and draw.random() < 0.04:
                start = draw.randrange(len(pieces))
                pieces += pieces[start : start + draw.randint(2, 40)]
            pieces += [draw.choice(vocabulary), draw.choice(_GAPS)]
        made.append("".join(pieces))
    return made


def rows(columns: Mapping[str, np.ndarray]) -> list[dict[str, float]]:
    """The measures of each text that it has."""
    count = len(next(iter(columns.values())))
    values = [{name: float(column[place]) for name, column in columns.items()} for place in range(count)]
    return [{name: value for name, value in one.items() if not math.isnan(value)} for one in values]


def documents(*texts: str, **meta: str) -> list[Document]:
    """Documents with the ids "0", "1", ..."""
    return [Document(str(number), text, "test", dict(meta)) for number, text in enumerate(texts)]
