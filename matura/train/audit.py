"""What would be trained, for people: rows token by token, and the counts that show a wrong mask at a glance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from matura.core.conversation_settings import ConversationData
from matura.core.records import Document
from matura.tokenizer.conversation import Format
from matura.train.batches import Example, Rows
from matura.train.examples import from_conversation, from_documents
from matura.train.material import Material

NAMED = 3
"""Dropped rows that are named for each reason."""


@dataclass(frozen=True)
class Piece:
    """A run of tokens of one weight: their text as it is, and whether it is one special token."""

    text: str
    weight: float
    special: bool = False


@dataclass(frozen=True)
class Shown:
    """A row: its name, its pieces, tokens, and how many are trained; whether the last trained one ends an answer."""

    name: str
    pieces: tuple[Piece, ...]
    tokens: int
    trained: int
    stops: bool


@dataclass(frozen=True)
class Audit:
    """Rows from all over the material, and counts over all of it: rows, examples, tokens, the longest example, what
    was dropped with some names, how many examples end in a stop token, and how full packed rows are (0 to 1). `about`
    says in lines what else is known of the material."""

    shown: tuple[Shown, ...]
    rows: int
    examples: int
    tokens: int
    trained: int
    longest: int
    stops: int
    fill: float
    capacity: int
    dropped: dict[str, int]
    names: dict[str, tuple[str, ...]]
    found: dict[str, int]
    about: tuple[str, ...] = ()


def look(
    material: Material,
    format: Format,
    length: int,
    settings: ConversationData,
    *,
    rows: int,
    capacity: int,
    seed: int,
) -> Audit:
    """Make the examples that training would make, and keep `rows` of them to show."""
    made: list[tuple[str, Example]] = []
    dropped: Counter[str] = Counter()
    names: dict[str, list[str]] = {}
    for row in material.train:
        if isinstance(row, Document):
            examples, reason = from_documents([row], format, length), ""
        else:
            examples, reason = from_conversation(
                row, format, length, turns=settings.turns, truncation=settings.truncation
            )
        made += [(row.id, example) for example in examples]
        if reason:
            dropped[reason] += 1
            names.setdefault(reason, []).append(row.id)
    examples = [example for _, example in made]
    count = min(rows, len(made))
    chosen = [made[i * len(made) // count] for i in range(count)]
    return Audit(
        shown=tuple(_shown(name, example, format) for name, example in chosen),
        rows=len(material.train),
        examples=len(made),
        tokens=sum(len(example.ids) for example in examples),
        trained=sum(example.trained for example in examples),
        longest=max((len(example.ids) for example in examples), default=0),
        stops=sum(_stops(example, format) for example in examples),
        fill=Rows(examples, tokens=capacity, seed=seed).fill if examples else 0.0,
        capacity=capacity,
        dropped=dict(sorted(dropped.items())),
        names={reason: tuple(ids[:NAMED]) for reason, ids in names.items()},
        found=material.found,
    )


def pieces(example: Example, format: Format) -> tuple[Piece, ...]:
    """An example in runs of equal weight; special tokens stand alone.

    Text that only looks like a special token gets a backslash before it.
    """
    special = format.tokenizer.special_ids
    names = [name for id in special if (name := format.tokenizer.token(id))]
    found = []
    tokens = zip(example.ids, example.weights, strict=True)
    for (weight, own), run in groupby(enumerate(tokens), lambda one: (one[1][1], _own(one, special))):
        text = format.tokenizer.decode(id for _, (id, _) in run)
        for name in names if own is None else ():
            text = text.replace(name, f"\\{name}")
        found.append(Piece(text, float(weight), own is not None))
    return tuple(found)


def _own(one: tuple[int, tuple[int, float]], special: Sequence[int] | frozenset[int]) -> int | None:
    """The position of a special token, so that each is a run of its own."""
    return one[0] if one[1][0] in special else None


def _shown(name: str, example: Example, format: Format) -> Shown:
    return Shown(name, pieces(example, format), len(example.ids), example.trained, _stops(example, format))


def _stops(example: Example, format: Format) -> bool:
    """Whether the last trained token is one that ends an answer."""
    return bool(example.weights[-1]) and example.ids[-1] in format.stop_ids
