"""Masked tokens filled in by an encoder that has seen both sides of them (arXiv:1810.04805, section 3.1).

Each mask is filled for itself: with several, the probabilities of one do not know what the others become.

Shape suffixes: B batch, T tokens, D width, M masks, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from matura.core.errors import ConfigError, MaturaError
from matura.infer.reading import check, hidden_states
from matura.model import config as c
from matura.model.transformer import Transformer
from matura.tokenizer.tokenizer import Tokenizer

SPELLINGS = ("[MASK]", "<mask>")
"""How models write their mask. A text may use the other one's: see `mask_spelling`."""


@dataclass(frozen=True, slots=True)
class Fill:
    """A token for a mask: its text, its probability, and the whole text with it (other masks left open)."""

    token: str
    id: int
    probability: float
    text: str


@dataclass(frozen=True, slots=True)
class Masked:
    """A text as the model reads it, and for each mask, from the first to the last, its fills, likeliest first."""

    ids: tuple[int, ...]
    fills: tuple[tuple[Fill, ...], ...]


@torch.inference_mode()
def fill(
    model: Transformer,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    top_k: int = 5,
    among: Sequence[int] | None = None,
    batch: int = 16,
) -> list[Masked]:
    """The `top_k` likeliest tokens for every mask of every text; with `among`, only these ids are looked at.

    Probabilities are over the whole vocabulary in either case. Raises MaturaError for a text without a mask or longer
    than the context, and for a model that cannot fill.
    """
    able(model, tokenizer)
    if top_k < 1:
        raise ConfigError(f"top_k: expected a whole number of at least 1, got {top_k!r}")
    rows = [masked_ids(tokenizer, text) for text in texts]
    check(model, rows)
    count = min(top_k, model.config.vocabulary if among is None else len(among))
    found: dict[int, Masked] = {}
    for indices, hidden_BTD, _ in hidden_states(model, rows, batch):
        for i, hidden_TD in zip(indices, hidden_BTD, strict=True):
            at = [t for t, id in enumerate(rows[i]) if id == tokenizer.mask_id]
            p_MV = model.logits(hidden_TD[at]).float().softmax(-1)
            best = (p_MV if among is None else p_MV[:, list(among)]).topk(count)
            fills = []
            for t, places, values in zip(at, best.indices.tolist(), best.values.tolist(), strict=True):
                ids = places if among is None else [among[n] for n in places]
                pairs = zip(ids, values, strict=True)
                fills.append(tuple(_filled(tokenizer, rows[i], t, id, value) for id, value in pairs))
            found[i] = Masked(tuple(rows[i]), tuple(fills))
    return [found[i] for i in range(len(rows))]


def _filled(tokenizer: Tokenizer, row: list[int], at: int, id: int, probability: float) -> Fill:
    whole = [*row[:at], id, *row[at + 1 :]]
    inside = whole[len(tokenizer.prefix_ids) : len(whole) - len(tokenizer.suffix_ids)]
    return Fill(tokenizer.decode([id]), id, probability, tokenizer.decode(inside))


def able(model: Transformer, tokenizer: Tokenizer) -> None:
    """Raises MaturaError for a model that cannot fill masks."""
    if model.encoder is None or model.decoder is not None:
        raise MaturaError(
            "this model writes from left to right and fills no masks; use `generate`, or take an encoder such as BERT"
        )
    if not isinstance(model.config.head, c.LanguageHead):
        raise MaturaError(
            "this model has no scores over its vocabulary, so it cannot fill masks; use it to embed, or take a "
            "masked language model"
        )
    if tokenizer.mask_id is None:
        raise MaturaError("this model's tokenizer has no mask token, so there is nothing to fill")


def mask_spelling(tokenizer: Tokenizer, text: str) -> str | None:
    """The mask as `text` writes it: the model's own token, or, where that does not occur, another model's spelling.
    None when there is no mask."""
    return next((name for name in (mask(tokenizer), *SPELLINGS) if name and name in text), None)


def mask(tokenizer: Tokenizer) -> str | None:
    """The mask as this model writes it; None when it has none."""
    return None if tokenizer.mask_id is None else tokenizer.token(tokenizer.mask_id)


def masked_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text in which masks are meant; every other special token in it stays text.

    Raises MaturaError when there is no mask.
    """
    assert tokenizer.mask_id is not None
    name = mask_spelling(tokenizer, text)
    if name is None:
        raise MaturaError(
            f"there is nothing to fill in {text!r:.200}: write {mask(tokenizer)} where a token is missing"
        )
    added = tokenizer.backend.get_added_tokens_decoder()[tokenizer.mask_id]
    parts = text.split(name)
    # Some masks take the spaces beside them in (RoBERTa's, those before it).
    if added.lstrip:
        parts[:-1] = [part.rstrip() for part in parts[:-1]]
    if added.rstrip:
        parts[1:] = [part.lstrip() for part in parts[1:]]
    ids = [*tokenizer.prefix_ids, *tokenizer.encode(parts[0])]
    for part in parts[1:]:
        ids += [tokenizer.mask_id, *tokenizer.encode(part)]
    return [*ids, *tokenizer.suffix_ids]
