"""Examples that begin alike: one row holds what they share once, and the rest of each continues it.

What a causal model makes of a token depends on what stands before it, so such examples compute the same there, and the
gradients that they would send into it add up. Losses do not matter: a token that two examples have at the same place
may be trained in both, in one, or in none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from matura.model.attention import Packed
from matura.model.config import DynamicScaling, Rope
from matura.model.transformer import Transformer

SHARED = 16
"""Tokens from which on a beginning is held once. The sequence that it becomes costs every layer a kernel, worth some
tokens. The first signs of a turn, which all conversations share, are fewer; a system prompt is more."""

Ids = tuple[int, ...]


@dataclass
class Layout:
    """A packed row: its ids, its sequences with what each continues, and where the tokens of every example lie."""

    ids: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    parents: list[int | None] = field(default_factory=list)
    places: dict[int, list[int]] = field(default_factory=dict)

    def add(self, ids: Ids, parent: int | None = None) -> list[int]:
        """Append a sequence; the places of its tokens."""
        start = len(self.ids)
        self.ids += ids
        self.lengths.append(len(ids))
        self.parents.append(parent)
        return list(range(start, len(self.ids)))

    def mask(self) -> Packed:
        """Who sees whom."""
        branched = any(parent is not None for parent in self.parents)
        return Packed(tuple(self.lengths), tuple(self.parents) if branched else ())


Lay = Callable[[Sequence[Ids]], Layout]
"""The ids of examples that run through the model -> how they lie in a row."""


def end_to_end(rows: Sequence[Ids]) -> Layout:
    """Every example by itself."""
    layout = Layout()
    for i, row in enumerate(rows):
        layout.places[i] = layout.add(row)
    return layout


def beginnings_once(rows: Sequence[Ids]) -> Layout:
    """What examples begin with alike before the rest of each; examples that share nothing stay as they are.

    Every example keeps its last token, so there are as many sequences as before, and one for each beginning.
    """
    layout = Layout()
    for shared, members in sorted(families(rows), key=lambda family: family[1]):
        first, before = None, []
        if shared:
            first, before = len(layout.lengths), layout.add(rows[members[0]][:shared])
        for i in members:
            layout.places[i] = before + layout.add(rows[i][shared:], first)
    return layout


def layout_for(model: Transformer) -> Lay:
    """`beginnings_once` where every example computes what it would alone, otherwise `end_to_end`.

    Dropout would drop the same of all that share, rotary positions that change with the length of a text (dynamic
    scaling) turn the same beginning differently, and what is not causal reads on.
    """
    stack = model.config.decoder
    drops = any(getattr(module, "dropout", 0.0) for module in model.modules())
    if stack is None or not stack.causal or drops:
        return end_to_end
    rope = [p for p in (stack.position, stack.local and stack.local.position) if isinstance(p, Rope)]
    return end_to_end if any(isinstance(p.scaling, DynamicScaling) for p in rope) else beginnings_once


def families(rows: Sequence[Ids]) -> list[tuple[int, list[int]]]:
    """The rows in groups, each with the length of the beginning that it holds once (0: a row by itself), so that as
    many tokens as possible are saved. Members are in their order.

    Rows that share a beginning are neighbours when sorted, so a plan for the first n sorted rows is one for fewer and a
    last family.
    """
    order = sorted(range(len(rows)), key=rows.__getitem__)
    alike = [_common(rows[one], rows[after]) for one, after in pairwise(order)]
    plans = [(0, 0, 0)]  # of the first n rows: tokens saved, where the last family starts, what it shares
    for end, last in enumerate(order):
        common, best = len(rows[last]) - 1, (plans[end][0], end, 0)
        for first in reversed(range(end)):
            common = min(common, alike[first])
            if common < SHARED:
                break
            best = max(best, (plans[first][0] + common * (end - first), first, common))
        plans.append(best)
    groups, end = [], len(order)
    while end:
        _, start, shared = plans[end]
        groups.append((shared, sorted(order[start:end])))
        end = start
    return groups


def _common(one: Ids, other: Ids) -> int:
    """Length of the beginning that both have, without the last token of the first."""
    most = min(len(one) - 1, len(other))
    if one[:most] == other[:most]:
        return most
    return next(i for i in range(most) if one[i] != other[i])
