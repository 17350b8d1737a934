"""From logits to the next token: pure functions, exact, and independent of who else is in the batch.

The steps run in this order: repetition penalty, temperature, top-k, top-p, min-p. (The order of Hugging Face's
generate, so equal settings mean equal distributions.)

Shape suffixes: B batch, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from matura.core.settings import Sampling

FIRST_LOOK = 512
"""Tokens that top-p and min-p look at before they sort the whole vocabulary."""


def uniform(seed: int, position: int) -> float:
    """The draw in [0, 1) for one position of one request: a hash, so no other request can disturb it."""
    digest = hashlib.blake2b(f"{seed}/{position}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def choose(logits_V: Tensor, sampling: Sampling, seen: Sequence[int], position: int) -> int:
    """The next token id. `seen` are prompt and answer so far (for the penalty), `position` counts new tokens."""
    logits_V = penalize(logits_V, seen, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return int(logits_V.argmax())
    kept_V, ids_V = kept(logits_V, sampling)
    total_V = torch.softmax(kept_V, -1).double().cumsum(-1)
    draw = uniform(sampling.seed, position) * float(total_V[-1])
    index = min(int(torch.searchsorted(total_V, draw, right=True)), len(total_V) - 1)
    return int(index if ids_V is None else ids_V[index])


def penalize(logits_V: Tensor, seen: Sequence[int], penalty: float) -> Tensor:
    """Divide positive scores of seen tokens by `penalty` and multiply negative ones (arXiv:1909.05858, 4.1)."""
    if penalty == 1.0 or not seen:
        return logits_V
    ids = torch.tensor(sorted(set(seen)), device=logits_V.device)
    scores = logits_V[ids]
    return logits_V.index_copy(0, ids, torch.where(scores > 0, scores / penalty, scores * penalty))


def kept(logits_V: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor | None]:
    """Scores after temperature that survive top-k, top-p (arXiv:1904.09751) and min-p (arXiv:2407.01082).

    Returns (scores, ids), sorted from the most likely; ids is None (and the order the vocabulary's) when nothing
    is cut. At least one token always stays.
    """
    scores_V = logits_V.float() / sampling.temperature
    if not sampling.top_k and sampling.top_p >= 1 and not sampling.min_p:
        return scores_V, None
    head = sampling.top_k or FIRST_LOOK
    best_V, ids_V = scores_V.topk(min(head, len(scores_V)))
    normalizer = best_V.logsumexp(-1) if sampling.top_k else scores_V.logsumexp(-1)
    if not sampling.top_k and not _enough(best_V, normalizer, sampling):
        best_V, ids_V = scores_V.sort(descending=True, stable=True)
    if sampling.top_p < 1:
        before_V = (best_V - normalizer).exp().cumsum(-1).roll(1)
        before_V[0] = 0
        count = int((before_V < sampling.top_p).sum())
        best_V, ids_V = best_V[:count], ids_V[:count]
    if sampling.min_p:
        count = max(1, int(((best_V - best_V[0]).exp() >= sampling.min_p).sum()))
        best_V, ids_V = best_V[:count], ids_V[:count]
    return best_V, ids_V


def _enough(best_V: Tensor, normalizer: Tensor, sampling: Sampling) -> bool:
    """Whether the tokens looked at hold everything that top-p and min-p could keep: sorting all is slow."""
    by_mass = sampling.top_p < 1 and float((best_V - normalizer).exp().sum()) >= sampling.top_p
    by_share = sampling.min_p > 0 and float((best_V[-1] - best_V[0]).exp()) < sampling.min_p
    return by_mass or by_share
