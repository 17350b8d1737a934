"""Reading continuations of contexts: what can be read once is read once, and nothing is padded.

A context that several continuations share (the choices of a question) is read once, and so is a beginning that many
contexts share (the examples before every question). One forward pass holds such a tree as one packed row.

Shape suffixes: N positions, D width, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import torch
from torch import Tensor

from matura.model.attention import Packed
from matura.model.transformer import Transformer

Row = tuple[Sequence[int], Sequence[int]]
"""(context ids, continuation ids); the context is never empty."""

Context = tuple[int, ...]

SHARED = 32
"""Tokens from which on a beginning that contexts share is read for all of them together."""
PREFIXES = 4
"""A pass over contexts with a shared beginning may be this many times as long as the beginning."""


@dataclass(frozen=True)
class Reading:
    """One forward pass: the rows with these indices, all of whose contexts begin with `prefix`."""

    prefix: Context
    rows: list[int]


@dataclass
class _Family:
    """Contexts that begin alike, each with the rows that continue it."""

    prefix: Context
    contexts: list[Context] = field(default_factory=list)


def plan(rows: Sequence[Row], tokens_per_batch: int) -> list[Reading]:
    """Readings that cover every row with a continuation once, the largest contexts of a family first.

    A reading has at most `tokens_per_batch` tokens (or one context, or `PREFIXES` times the beginning it shares).
    Raises ValueError for an empty context.
    """
    groups: dict[Context, list[int]] = {}
    for i, (context, continuation) in enumerate(rows):
        if not len(context):
            raise ValueError(f"row {i}: the context is empty; give at least one token (usually BOS)")
        if len(continuation):
            groups.setdefault(tuple(context), []).append(i)
    readings: list[Reading] = []
    for family in _families(groups):
        shared = len(family.prefix)
        sizes = {
            one: len(one) - shared + sum(len(rows[i][1]) - 1 for i in groups[one]) for one in family.contexts
        }
        limit = max(tokens_per_batch, PREFIXES * shared)
        used = limit
        for context in sorted(sizes, key=lambda one: (-sizes[one], groups[one][0])):
            if used + sizes[context] > limit:
                readings.append(Reading(family.prefix, []))
                used = shared
            readings[-1].rows.extend(groups[context])
            used += sizes[context]
    return readings


def _families(groups: dict[Context, list[int]]) -> list[_Family]:
    """All contexts: those without a relative first, then each family that shares enough to read it once."""
    families: list[_Family] = []
    ordered = sorted(groups)
    for context, after in zip_longest(ordered, ordered[1:], fillvalue=()):
        common = _common(families[-1].prefix, context) if families else 0
        alone = not families or len(families[-1].contexts) == 1
        closest = _common(context, after) if alone else len(families[-1].prefix)
        # A distant relative must not shorten what closer ones share.
        if common >= SHARED and 2 * common >= closest:
            families[-1].prefix = context[:common]
            families[-1].contexts.append(context)
        else:
            families.append(_Family(context, [context]))
    related = [family for family in families if len(family.contexts) > 1]
    for family in related:
        family.prefix = family.prefix[
            : min(map(len, family.contexts)) - 1
        ]  # everyone keeps a token of its own
    single = [family.contexts[0] for family in families if len(family.contexts) == 1]
    return [*([_Family((), single)] if single else []), *related]


def _common(one: Context, other: Context) -> int:
    """Length of the beginning that both have."""
    most = min(len(one), len(other))
    if one[:most] == other[:most]:
        return most
    return next(i for i in range(most) if one[i] != other[i])


@dataclass
class _Tree:
    """Sequences of one packed row, and the positions whose hidden states predict the continuations."""

    ids: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    parents: list[int | None] = field(default_factory=list)
    where: list[int] = field(default_factory=list)

    def add(self, ids: Sequence[int], parent: int | None) -> int:
        """Append a sequence; its number."""
        self.ids += ids
        self.lengths.append(len(ids))
        self.parents.append(parent)
        return len(self.lengths) - 1

    def mask(self) -> Packed:
        return Packed(
            tuple(self.lengths), tuple(self.parents) if any(p is not None for p in self.parents) else ()
        )


def hidden_states(model: Transformer, rows: Sequence[Row], reading: Reading) -> tuple[Tensor, Tensor]:
    """Hidden states [N, D] that predict the continuation tokens of a reading, and those tokens [N]."""
    device = model.embed.weight.device
    chosen = [rows[i] for i in reading.rows]
    tree = _Tree()
    root = tree.add(reading.prefix, None) if reading.prefix else None
    targets: list[int] = []
    trunk, end = -1, 0
    for i, (context, continuation) in enumerate(chosen):
        own, rest = context[len(reading.prefix) :], continuation[:-1]
        shared = [
            i > 0 and chosen[i - 1][0] == context,
            chosen[i + 1 : i + 2] and chosen[i + 1][0] == context,
        ]
        if not any(shared):
            start = len(tree.ids) + len(own) - 1
            tree.where += range(start, start + len(continuation))
            tree.add([*own, *rest], root)
        else:
            if not shared[0]:
                trunk = tree.add(own, root)
                end = len(tree.ids) - 1
            tree.where += [end, *range(len(tree.ids), len(tree.ids) + len(rest))]
            if rest:
                tree.add(rest, trunk)
        targets += continuation
    hidden_1TD = model.decode(torch.tensor([tree.ids], device=device), mask=tree.mask())
    where_N = torch.tensor(tree.where, device=device)
    return hidden_1TD[0, where_N], torch.tensor(targets, device=device)
