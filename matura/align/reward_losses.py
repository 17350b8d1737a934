"""Losses of a reward model, as functions of rewards alone.

Shape suffixes: P pairs, K answers to one prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_TIED = 10
"""Answers that may share one place, above others: the loss goes through the subsets of them."""


def bradley_terry(chosen_P: Tensor, rejected_P: Tensor, margin_P: Tensor | None = None) -> Tensor:
    """-log sigmoid(r_chosen - r_rejected - margin) of each pair, [P] (arXiv:2203.02155, section 3.5; margins as in
    arXiv:2307.09288, section 3.2.2)."""
    difference_P = chosen_P - rejected_P
    return -F.logsigmoid(difference_P if margin_P is None else difference_P - margin_P)


def centring(chosen_P: Tensor, rejected_P: Tensor) -> Tensor:
    """(r_chosen + r_rejected)^2 of each pair, [P]: differences say nothing about where zero is, and this puts it in the
    middle (arXiv:2312.09244, section 3)."""
    return (chosen_P + rejected_P) ** 2


def plackett_luce(rewards_K: Tensor, places: Sequence[int]) -> Tensor:
    """-log of the chance that answers are ranked so, a scalar: the best is drawn first, in proportion to exp(reward),
    then the best of the rest, and so on (Plackett 1975). `places`: 1 is the best, equal places are ties.

    Tied answers may come in any order, so the chance is the sum over those orders; ties at the end cost nothing. With
    two answers this is `bradley_terry` without a margin. Raises ValueError for more than MAX_TIED ties in one place
    that is not the last.
    """
    if len(places) != len(rewards_K):
        raise ValueError(f"{len(rewards_K)} rewards and {len(places)} places")
    loss = rewards_K.sum() * 0.0
    for place in sorted(set(places))[:-1]:
        tied = [i for i, one in enumerate(places) if one == place]
        worse = [i for i, one in enumerate(places) if one > place]
        loss = loss - _all_first(rewards_K[tied], torch.logsumexp(rewards_K[worse], 0))
    return loss


def choices(places: Sequence[int]) -> int:
    """How many draws of `plackett_luce` say something: the answers above the last place."""
    return sum(place < max(places) for place in places)


def _all_first(tied_K: Tensor, rest: Tensor) -> Tensor:
    """log of the chance that all of `tied` are drawn before the others, whose exponentials sum to exp(rest): over the
    subsets S that are still to be drawn, P(S) = sum over i in S of exp(r_i) / (exp(rest) + sum S) P(S without i)."""
    K = len(tied_K)
    if K > MAX_TIED:
        raise ValueError(f"{K} answers share one place; at most {MAX_TIED} can")
    chance: dict[tuple[int, ...], Tensor] = {(): rest.new_zeros(())}
    for size in range(1, K + 1):
        for left in combinations(range(K), size):
            among = torch.logsumexp(torch.cat([tied_K[list(left)], rest[None]]), 0)
            ways = [tied_K[i] + chance[tuple(j for j in left if j != i)] for i in left]
            chance[left] = torch.logsumexp(torch.stack(ways), 0) - among
    return chance[tuple(range(K))]
