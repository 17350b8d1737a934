"""How likely an encoder finds words in their sentence: each token masked while all others stand (Salazar et al. 2020,
arXiv:1910.14659).

Shape suffixes: T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matura.evaluate import bias

BATCH = 64


def pseudo_logprobs(
    model: Any, tokenizer: Any, asked: Sequence[tuple[Sequence[int], Sequence[int]]], batch: int = BATCH
) -> list[float]:
    """For each (ids of a whole input, places): the sum of the natural logs of the tokens at those places.

    Raises MaturaError for a model that cannot fill masks or an input longer than its context.
    """
    import torch

    from matura.infer.fill import able
    from matura.infer.reading import hidden_states

    able(model, tokenizer)
    rows, places, owners = [], [], []
    for owner, (ids, chosen) in enumerate(asked):
        for at in chosen:
            rows.append([*ids[:at], tokenizer.mask_id, *ids[at + 1 :]])
            places.append(at)
            owners.append(owner)
    found = [0.0] * len(rows)
    with torch.inference_mode():
        for indices, hidden_BTD, _ in hidden_states(model, rows, batch):
            for i, hidden_TD in zip(indices, hidden_BTD, strict=True):
                logprobs_V = model.logits(hidden_TD[places[i]]).float().log_softmax(-1)
                found[i] = float(logprobs_V[asked[owners[i]][0][places[i]]])
    sums: list[list[float]] = [[] for _ in asked]
    for owner, value in zip(owners, found, strict=True):
        sums[owner].append(value)
    return [math.fsum(values) for values in sums]


def pair_logprobs(model: Any, tokenizer: Any, pairs: Sequence[bias.Pair]) -> list[tuple[float, float]]:
    """For each pair the pseudo-log-likelihoods of the tokens that both sentences have (arXiv:2010.00133, section 3)."""
    asked = []
    for pair in pairs:
        more, less = tokenizer(pair.more), tokenizer(pair.less)
        around = (len(tokenizer.prefix_ids), len(tokenizer.suffix_ids))
        shared = bias.unchanged(_inside(more, *around), _inside(less, *around))
        asked.append((more, [i + around[0] for i, _ in shared]))
        asked.append((less, [j + around[0] for _, j in shared]))
    sums = pseudo_logprobs(model, tokenizer, asked)
    return list(zip(sums[::2], sums[1::2], strict=True))


def _inside(ids: Sequence[int], before: int, after: int) -> Sequence[int]:
    """The ids without what the tokenizer puts around every text."""
    return ids[before : len(ids) - after]
