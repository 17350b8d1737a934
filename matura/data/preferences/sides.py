"""Which rankings are held out: whole groups of one prompt, never single pairs of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TypeVar

from matura.core.preferences import Ranking
from matura.data.conversations import messages
from matura.data.split import fingerprint, held_out

T = TypeVar("T")


def prompt_id(row: Ranking) -> str:
    """A hash of all that an answer answers: rankings of exactly one prompt share it."""
    told = json.dumps([row.messages, row.tools], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def opening(row: Ranking) -> str:
    """A hash of what is asked before the first answer in a prompt, whatever its case, spacing and signs. Prompts that
    are one conversation at different turns share it."""
    return fingerprint(messages.opening(row.messages))


def groups(rows: Sequence[Ranking]) -> list[str]:
    """For each ranking the name of what must stay together: rankings share it when they share `group` or `opening`,
    or are joined by others that do."""
    above: dict[str, str] = {}

    def top(name: str) -> str:
        while (over := above.setdefault(name, name)) != name:
            above[name] = above[over]
            name = above[name]
        return name

    names = [opening(row) for row in rows]
    for name, row in zip(names, rows, strict=True):
        if row.group:
            one, other = sorted((top(name), top(f"group {row.group}")))
            above[other] = one
    return [top(name) for name in names]


def split(rows: Sequence[Ranking], heldout: int) -> tuple[tuple[Ranking, ...], tuple[Ranking, ...]]:
    """To learn from, and held out: about `heldout` rankings, at most a third, as `data.split.held_out` chooses groups:
    by a hash, so new rows move few others. With fewer than 3 groups nothing is held out."""
    together = groups(rows)
    if heldout == 0 or len(set(together)) < 3:
        return tuple(rows), ()
    chosen = held_out(zip(together, together, map(_size, rows), strict=True), heldout)
    sides: dict[bool, list[Ranking]] = {False: [], True: []}
    for row, group in zip(rows, together, strict=True):
        sides[group in chosen].append(row)
    return tuple(sides[False]), tuple(sides[True])


def _size(row: Ranking) -> int:
    return sum(len(one["content"]) for one in row.messages) + sum(len(one.text) for one in row.answers)
