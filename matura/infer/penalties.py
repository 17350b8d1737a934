"""What changes single scores before the draw: penalties, biases, and tokens that are forbidden.

Pure functions; none changes the tensor it is given. Shape suffix: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor


def repetition(scores_V: Tensor, seen: Sequence[int], penalty: float) -> Tensor:
    """Divide positive scores of seen tokens by `penalty` and multiply negative ones (arXiv:1909.05858, 4.1)."""
    if penalty == 1.0 or not seen:
        return scores_V
    ids = torch.tensor(sorted(set(seen)), device=scores_V.device)
    scores = scores_V[ids]
    return scores_V.index_copy(0, ids, torch.where(scores > 0, scores / penalty, scores * penalty))


def presence(scores_V: Tensor, answer: Sequence[int], penalty: float) -> Tensor:
    """Subtract `penalty` from every token that the answer holds, however often (OpenAI's presence_penalty)."""
    return _added(scores_V, dict.fromkeys(answer, -penalty))


def frequency(scores_V: Tensor, answer: Sequence[int], penalty: float) -> Tensor:
    """Subtract `penalty` times how often the answer holds a token (OpenAI's frequency_penalty)."""
    counts: dict[int, float] = {}
    for id in answer:
        counts[id] = counts.get(id, 0) - penalty
    return _added(scores_V, counts)


def biased(scores_V: Tensor, bias: Mapping[int, float]) -> Tensor:
    """Add a number to the scores of some tokens."""
    return _added(scores_V, bias)


def _added(scores_V: Tensor, amounts: Mapping[int, float]) -> Tensor:
    if not amounts:
        return scores_V
    ids = torch.tensor(list(amounts), device=scores_V.device)
    values = torch.tensor(list(amounts.values()), dtype=scores_V.dtype, device=scores_V.device)
    return scores_V.index_add(0, ids, values)


def repeating(seen: Sequence[int], size: int) -> set[int]:
    """Tokens after which a run of `size` tokens would stand in `seen` for the second time."""
    if not size:
        return set()
    last = tuple(seen[len(seen) - size + 1 :])
    starts = range(len(seen) - size + 1)
    return {seen[at + size - 1] for at in starts if tuple(seen[at : at + size - 1]) == last}


def completing(seen: Sequence[int], words: Sequence[Sequence[int]]) -> set[int]:
    """Tokens that would complete one of the id sequences `words` at the end of `seen`."""
    last = [(tuple(word[:-1]), word[-1]) for word in words]
    return {id for before, id in last if tuple(seen[len(seen) - len(before) :]) == before}


def without(scores_V: Tensor, forbidden: Collection[int]) -> Tensor:
    """The forbidden tokens at -inf. When nothing else is left the scores stay: some token has to come."""
    if not forbidden:
        return scores_V
    ids = torch.tensor(sorted(forbidden), device=scores_V.device)
    found_V = scores_V.index_fill(0, ids, -torch.inf)
    return scores_V if bool(found_V.isneginf().all()) else found_V


def only(scores_V: Tensor, ids: Collection[int], raw_V: Tensor) -> Tensor:
    """All but the given tokens at -inf. Where earlier steps forbade all of those, they come with their raw scores:
    a constraint is kept in any case."""
    index = torch.tensor(sorted(ids), device=scores_V.device)
    for source_V in (scores_V, raw_V, torch.zeros_like(scores_V)):
        found_V = torch.full_like(scores_V, -torch.inf)
        found_V[index] = source_V[index].to(scores_V.dtype)
        if not bool(found_V.isneginf().all()):
            break
    return found_V
