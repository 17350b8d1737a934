"""Answers already got: a JSON line each, so that a killed run never asks twice."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from matura.core.errors import FormatError
from matura.core.files import canonical_hash, saving
from matura.core.records import MAX_LINE_BYTES


@dataclass(frozen=True, slots=True)
class Ask:
    """One message to the teacher. `document` is what stands in it; `seed` decides the answer, where it can."""

    id: str
    prompt: str
    document: str
    seed: int

    @property
    def key(self) -> str:
        """What an answer is found by again."""
        return canonical_hash([self.id, self.prompt, self.seed])


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `whole`: it ended by itself. `failure` says why there is none, in a few words."""

    text: str = ""
    whole: bool = True
    failure: str = ""


Teacher = Callable[[Sequence[Ask]], Iterable[tuple[Ask, Answer]]]
"""Answers in any order, each as soon as it is there."""


def ask(
    teacher: Teacher, asks: Sequence[Ask], path: Path, advance: Callable[[int], None], group: int = 1
) -> list[Answer]:
    """The answers in the order of `asks`; those in the file at `path` are not asked for again, new ones are added.

    A group of `group` asks is asked whole or not at all: what a model computes for one row may depend on the shape of
    its batch, so a resumed run must form the same batches.
    """
    known = dict(_read(path))
    groups = [asks[start : start + group] for start in range(0, len(asks), group)]
    left = [one for some in groups if any(one.key not in known for one in some) for one in some]
    advance(len(asks) - len(left))
    with saving(path.name, path.parent), open(path, "ab") as file:
        for one, answer in teacher(left):
            known[one.key] = answer
            # Escaped: a lone surrogate, which JSON can name, is no UTF-8.
            file.write(json.dumps({"key": one.key, **asdict(answer)}).encode("ascii") + b"\n")
            file.flush()
            advance(1)
        os.fsync(file.fileno())
    return [known[one.key] for one in asks]


def _read(path: Path) -> Iterator[tuple[str, Answer]]:
    """The whole lines; one that a kill tore is cut off, so that the next starts on a line of its own."""
    if not path.is_file():
        return
    end = 0
    with open(path, "rb+") as file:
        while (line := file.readline(MAX_LINE_BYTES)).endswith(b"\n"):
            end += len(line)
            try:
                row = json.loads(line)
                yield row.pop("key"), Answer(**row)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise FormatError(f"{path} is broken at byte {end - len(line)}: delete it.") from error
        file.truncate(end)


def seed_of(*parts: object) -> int:
    """A seed below 2**31, which every server takes, that no other combination of parts is likely to share."""
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") >> 1
