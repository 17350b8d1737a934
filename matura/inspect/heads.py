"""Which heads do what: weights between two tokens, patterns, attention sinks, and what another text changes.

None of this explains an answer. A weight says how much of a token's value went into another's sum at one layer; what
the model made of it is decided by everything around (arXiv:1902.10186).

Shape suffixes: L layers, H heads, T query tokens, S key tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matura.core.errors import MaturaError
from matura.inspect.attention import Attentions

PATTERNS = {
    "previous": "to the token just before",
    "first": "to the first token",
    "duplicate": "to earlier copies of the same token",
    "induction": "to what followed earlier copies (arXiv:2209.11895)",
}
"""What the scores of `patterns` measure: weight that goes ..., averaged over the tokens that could do it."""


@dataclass(frozen=True)
class Found:
    """One head: `weight` of the key for the query, and `strongest`, the key that has the most."""

    layer: int
    head: int
    weight: float
    strongest: int


def between(attentions: Attentions, query: int, key: int) -> list[Found]:
    """All heads, sorted by the weight that `query` gives to `key`. Raises MaturaError when a causal query comes
    before the key: no head can see it."""
    if attentions.causal and key > query:
        raise MaturaError(
            f"token {query} ({attentions.queries.labels[query].strip()!r}) cannot see the later token {key} "
            f"({attentions.keys.labels[key].strip()!r}): this model reads from left to right"
        )
    rows_LHS = attentions.weights_LHTS[:, :, query]
    return _sorted(attentions, rows_LHS[..., key], rows_LHS)


def difference(one: Attentions, other: Attentions, query: int) -> list[Found]:
    """All heads, sorted by how much the row of `query` differs between two texts; `strongest` is the key with the
    largest difference, and `weight` this difference (without sign).

    Raises MaturaError unless the texts have as many tokens, and the same one at `query`.
    """
    lengths = [len(each.queries.ids) for each in (one, other)]
    if lengths[0] != lengths[1] or len(one.keys.ids) != len(other.keys.ids):
        raise MaturaError(
            f"the texts have {lengths[0]} and {lengths[1]} tokens; to compare rows they must have as many"
        )
    if one.queries.ids[query] != other.queries.ids[query]:
        labels = [each.queries.labels[query].strip() for each in (one, other)]
        raise MaturaError(f"token {query} is {labels[0]!r} in one text and {labels[1]!r} in the other")
    change_LHS = (one.weights_LHTS[:, :, query] - other.weights_LHTS[:, :, query]).abs()
    return _sorted(one, change_LHS.amax(-1), change_LHS)


def _sorted(attentions: Attentions, weights_LH: Tensor, rows_LHS: Tensor) -> list[Found]:
    found = [
        Found(layer, head, float(weights_LH[i, j]), int(rows_LHS[i, j].argmax()))
        for i, layer in enumerate(attentions.layers)
        for j, head in enumerate(attentions.heads)
    ]
    return sorted(found, key=lambda one: (-one.weight, one.layer, one.head))


def without_sinks(weights_LHTS: Tensor, sinks: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The weights without the columns of the sinks, the rest of every row brought to a sum of 1 again, and the mass
    [L, H, T] that was removed. A row that had all its weight on the sinks becomes zero."""
    columns = torch.tensor(list(sinks), dtype=torch.long)
    removed_LHT = weights_LHTS[..., columns].sum(-1)
    rest_LHTS = weights_LHTS.index_fill(-1, columns, 0.0)
    total_LHT1 = rest_LHTS.sum(-1, keepdim=True)
    return torch.where(total_LHT1 > 0, rest_LHTS / total_LHT1.clamp(min=1e-30), 0.0), removed_LHT


def patterns(attentions: Attentions) -> dict[str, Tensor]:
    """For every name in PATTERNS the score of each head, [L, H], between 0 and 1: the mean, over the tokens that could
    follow the pattern, of the weight that does. A pattern that no token of this text can follow is left out; so are
    all of them for attention between two texts."""
    if attentions.part == "cross":
        return {}
    ids = attentions.queries.ids
    repeats = {t: [s for s in range(t) if ids[s] == ids[t]] for t in range(len(ids))}
    targets = {
        "previous": {t: [t - 1] for t in range(1, len(ids))},
        "first": {t: [0] for t in range(1, len(ids))},
        "duplicate": {t: earlier for t, earlier in repeats.items() if earlier},
        "induction": {
            t: after for t, earlier in repeats.items() if (after := [s + 1 for s in earlier if s + 1 < t])
        },
    }
    return {name: _mass(attentions.weights_LHTS, where) for name, where in targets.items() if where}


def _mass(weights_LHTS: Tensor, where: dict[int, list[int]]) -> Tensor:
    """Mean over the tokens in `where` of the weight on their keys, [L, H]."""
    return torch.stack([weights_LHTS[:, :, t, keys].sum(-1) for t, keys in where.items()]).mean(0)
