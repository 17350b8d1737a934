"""What a model expected at every token of a text: probability, rank, surprise, alternatives, what sampling would cut.

A causal model is asked for every token after those before it. A masked model is asked for every token with that
token alone masked; the sum of these is a pseudo-log-likelihood (arXiv:1910.14659), not a probability of the text.

Shape suffixes: N positions, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matura.core.errors import MaturaError
from matura.core.settings import Sampling
from matura.infer.sampling import COLDEST, kept
from matura.inspect.reading import Inputs, label
from matura.model import config as c
from matura.model.logprobs import CHUNK
from matura.model.transformer import Transformer
from matura.tokenizer.tokenizer import Tokenizer

MASKED_ROWS = 16
"""Copies of the text that a masked model reads at once."""


@dataclass(frozen=True)
class Candidate:
    """A token that could have stood here."""

    id: int
    text: str
    probability: float


@dataclass(frozen=True)
class Cut:
    """What the sampling settings leave at one position: how many tokens, and the share of the probability (after
    temperature) that they had; the chance that the token of the text is drawn, 0 when it is cut."""

    tokens: int
    share: float
    chance: float


@dataclass(frozen=True)
class Expectation:
    """One token: its probability and rank (1 is the likeliest), its surprisal -log2 p, the entropy of the whole
    distribution, both in bits; `other` is the second model's probability, `kl` KL(first || second) in bits."""

    position: int
    id: int
    text: str
    probability: float
    rank: int
    surprisal: float
    entropy: float
    alternatives: tuple[Candidate, ...]
    cut: Cut | None = None
    other: float | None = None
    kl: float | None = None


@dataclass(frozen=True)
class Expectations:
    """A text, token by token. `given` are tokens that were read but not asked for; `pseudo` says that every token was
    seen from both sides."""

    tokens: tuple[Expectation, ...]
    given: tuple[str, ...]
    pseudo: bool

    @property
    def surprisal(self) -> float:
        """Mean bits per token."""
        return sum(one.surprisal for one in self.tokens) / len(self.tokens)

    @property
    def perplexity(self) -> float:
        """2 to the mean surprisal; of a masked model a pseudo-perplexity, which compares only with its like."""
        return 2**self.surprisal

    @property
    def other_perplexity(self) -> float | None:
        """The second model's perplexity."""
        others = [one.other for one in self.tokens if one.other is not None]
        bits = [-math.log2(p) if p > 0 else math.inf for p in others]
        return 2 ** (sum(bits) / len(bits)) if bits else None

    @property
    def kl(self) -> float | None:
        """Mean KL(first || second) in bits per token."""
        found = [one.kl for one in self.tokens if one.kl is not None]
        return sum(found) / len(found) if found else None


LEVELS = 8


def level(surprisal: float) -> int:
    """How deep a token is coloured: 0 for less than 2 bits, up to 7 for 14 bits and more."""
    return max(0, min(LEVELS - 1, int(surprisal / 2)))


def separator(found: Expectations, text: str) -> str:
    """What to put between the tokens to show them as a text: a space for vocabularies whose tokens hold none."""
    texts = [one.text for one in found.tokens]
    return "" if text.endswith("".join(texts)) or any(" " in one for one in texts) else " "


@torch.inference_mode()
def expectations(
    model: Transformer,
    tokenizer: Tokenizer,
    inputs: Inputs,
    *,
    top: int = 5,
    sampling: Sampling | None = None,
    other: Transformer | None = None,
) -> Expectations:
    """What `model` expected at every token of the text, with `top` alternatives; with `sampling` what it would cut,
    and beside a second model with the same vocabulary (`same_vocabulary`) how far they are apart.

    A text that nothing comes before has no expectation for its first token. Raises MaturaError for a model without
    scores over its vocabulary, a masked one whose tokenizer has no mask token, or a text with nothing to ask for.
    """
    reading = inputs.target or inputs.source
    assert reading is not None
    if not isinstance(model.config.head, c.LanguageHead):
        raise MaturaError(
            "this model has no scores over its vocabulary, so it expects no token; use a causal or a masked language "
            "model"
        )
    if inputs.target is None and model.config.decoder is not None:
        raise MaturaError(
            "this model reads one text and writes another; give the one it writes as the target"
        )
    positions = reading.words
    if inputs.target is not None:
        positions = [i for i in positions if i > 0]
    if not positions:
        raise MaturaError("the text is a single token with nothing before it; give at least two")
    ids = torch.tensor(reading.ids)
    found: list[Expectation] = []
    others = None if other is None else _logits(other, tokenizer, inputs, positions)
    for logits_NV in _logits(model, tokenizer, inputs, positions):
        part = positions[len(found) : len(found) + len(logits_NV)]
        second_NV = None if others is None else next(others)
        found += _rows(tokenizer, logits_NV, second_NV, part, ids[part], top, sampling)
    asked = set(positions)
    given = tuple(text for i, text in enumerate(reading.labels) if i not in asked)
    return Expectations(tuple(found), given, pseudo=inputs.target is None)


def _logits(
    model: Transformer, tokenizer: Tokenizer, inputs: Inputs, positions: Sequence[int]
) -> Iterator[Tensor]:
    """Scores [N, V] that expect the tokens at `positions`, a chunk at a time."""
    device = model.embed.weight.device
    if inputs.target is None:
        yield from _masked_logits(model, tokenizer, inputs, positions)
        return
    memory_BSD = None
    if inputs.source is not None:
        memory_BSD = model.encode(torch.tensor([inputs.source.ids], device=device))
    ids_1T = torch.tensor([inputs.target.ids[:-1]], device=device)
    hidden_TD = model.decode(ids_1T, memory_BSD=memory_BSD)[0]
    hidden_ND = hidden_TD[torch.tensor(positions, device=device) - 1]
    for hidden in hidden_ND.split(CHUNK):
        yield model.logits(hidden).cpu()


def _masked_logits(
    model: Transformer, tokenizer: Tokenizer, inputs: Inputs, positions: Sequence[int]
) -> Iterator[Tensor]:
    """Every position masked in a copy of its own."""
    assert inputs.source is not None
    mask_id = tokenizer.mask_id
    if mask_id is None:
        raise MaturaError("this encoder's tokenizer has no mask token, so it cannot be asked for a token")
    device = model.embed.weight.device
    at_N = torch.tensor(positions, device=device)
    for at in at_N.split(MASKED_ROWS):
        rows = torch.arange(len(at), device=device)
        ids_NT = torch.tensor([inputs.source.ids], device=device).repeat(len(at), 1)
        ids_NT[rows, at] = mask_id
        yield model.logits(model.encode(ids_NT)[rows, at]).cpu()


def _rows(
    tokenizer: Tokenizer,
    logits_NV: Tensor,
    second_NV: Tensor | None,
    positions: Sequence[int],
    ids_N: Tensor,
    top: int,
    sampling: Sampling | None,
) -> list[Expectation]:
    """The expectations of one chunk."""
    logp_NV = torch.log_softmax(logits_NV.float(), -1)
    chosen_N1 = logp_NV.gather(1, ids_N[:, None])
    ranks = ((logp_NV > chosen_N1).sum(-1) + 1).tolist()
    entropies = (-(logp_NV.exp() * logp_NV).sum(-1) / math.log(2)).tolist()
    best_NK, best_ids_NK = logp_NV.topk(min(top, logp_NV.shape[1]), -1)
    probabilities = chosen_N1[:, 0].double().exp().tolist()
    others: list[float | None] = [None] * len(positions)
    kls: list[float | None] = [None] * len(positions)
    if second_NV is not None:
        q_NV = torch.log_softmax(second_NV.float(), -1)
        others = q_NV.gather(1, ids_N[:, None])[:, 0].double().exp().tolist()
        kls = ((logp_NV.exp() * (logp_NV - q_NV)).sum(-1) / math.log(2)).clamp(min=0).tolist()
    return [
        Expectation(
            position=position,
            id=int(ids_N[n]),
            text=label(tokenizer, int(ids_N[n])),
            probability=probabilities[n],
            rank=ranks[n],
            surprisal=-float(chosen_N1[n, 0]) / math.log(2),
            entropy=entropies[n],
            alternatives=tuple(
                Candidate(id, label(tokenizer, id), math.exp(logp))
                for id, logp in zip(best_ids_NK[n].tolist(), best_NK[n].tolist(), strict=True)
            ),
            cut=None if sampling is None else cut(logits_NV[n].float(), int(ids_N[n]), sampling),
            other=others[n],
            kl=kls[n],
        )
        for n, position in enumerate(positions)
    ]


def cut(logits_V: Tensor, id: int, sampling: Sampling) -> Cut:
    """What temperature, top-k, top-p, min-p and typical sampling leave of one distribution, by the very filter that
    sampling uses; its other settings depend on what came before and play no part.

    Temperature 0 leaves the likeliest token alone.
    """
    if sampling.temperature < COLDEST:
        logp_V = torch.log_softmax(logits_V, -1)
        best = int(logp_V.argmax())
        return Cut(1, float(logp_V[best].exp()), float(best == id))
    scores, ids = kept(logits_V, sampling)
    ids = torch.arange(len(logits_V)) if ids is None else ids
    total = (logits_V / sampling.temperature).logsumexp(-1)
    chance = torch.softmax(scores, -1)[ids == id].sum()
    left = int(torch.isfinite(scores).sum())
    return Cut(left, min(1.0, float((scores.logsumexp(-1) - total).exp())), float(chance))


def same_vocabulary(one: Tokenizer, other: Tokenizer, models: tuple[Transformer, Transformer]) -> None:
    """Raises MaturaError, with the first token that differs, unless the two models give scores to the same tokens."""
    sizes = [model.config.vocabulary for model in models]
    if sizes[0] != sizes[1]:
        raise MaturaError(
            f"the models have vocabularies of {sizes[0]:,} and {sizes[1]:,} tokens; only models with the same "
            "vocabulary can be compared token by token"
        )
    first, second = one.backend.get_vocab(True), other.backend.get_vocab(True)
    differing = sorted(
        token for token in first.keys() | second.keys() if first.get(token) != second.get(token)
    )
    if differing:
        token = differing[0]
        raise MaturaError(
            f"the models' vocabularies differ: {token!r} is token {first.get(token)} in one and {second.get(token)} "
            f"in the other ({len(differing):,} tokens differ); only models with the same vocabulary can be compared"
        )
