"""What two implementations make of the same weights: logits, perplexity, greedy answers.

Shape suffixes: B batch (here 1), T tokens, V vocabulary (or width, where hidden states are compared).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from matura.core.settings import Sampling
from matura.infer import engine
from matura.model import config as c
from matura.model.transformer import Transformer
from matura.train.batches import Example, pack
from matura.train.objectives import next_token

CHUNK = 128
"""Positions whose logits are compared at a time."""


@dataclass
class Row:
    """One model. Errors are relative, |ours - theirs| / |theirs| over the vocabulary at each position (L2); of models
    without a language head they are those of hidden states. None: the model has no such thing."""

    model: str
    weights: str
    tokens: int = 0
    logit_error: float = 0.0
    logit_error_mean: float = 0.0
    same_best_token: float = 0.0
    answers: int | None = None
    answer_tokens: int | None = None
    answers_identical: int | None = None
    perplexity_ours: float | None = None
    perplexity_theirs: float | None = None

    @property
    def perplexity_difference(self) -> float | None:
        """Relative to theirs."""
        if self.perplexity_ours is None or self.perplexity_theirs is None:
            return None
        return abs(self.perplexity_ours / self.perplexity_theirs - 1)


def read(row: Row, ours: Transformer, theirs: Any, windows: Sequence[Sequence[int]]) -> None:
    """Fill in what both make of windows of a text, each read alone; every token but the first is predicted.

    An encoder-decoder reads a window and is shown the same tokens as its answer.
    """
    errors, loss_ours, loss_theirs, best, predicted = [], 0.0, 0.0, 0, 0
    for ids in windows:
        ids_BT = torch.tensor([list(ids)])
        hidden_TD, other_TV = _hidden(ours, ids_BT)[0], _theirs(ours, theirs, ids_BT)[0]
        for start in range(0, len(hidden_TD), CHUNK):
            mine_TV, part_TV = (
                _scores(ours, hidden_TD[start : start + CHUNK]),
                other_TV[start : start + CHUNK],
            )
            best += int((mine_TV.argmax(-1) == part_TV.argmax(-1)).sum())
            errors.append((mine_TV - part_TV).norm(dim=-1) / part_TV.norm(dim=-1))
        if ours.decoder is not None:
            loss_theirs += float(_next_tokens(ours, other_TV, ids_BT))
            loss_ours += _loss(ours, hidden_TD, ids_BT)
            predicted += len(ids) - 1
        row.tokens += len(ids)
    error_T = torch.cat(errors)
    row.logit_error, row.logit_error_mean = float(error_T.max()), float(error_T.mean())
    row.same_best_token = best / len(error_T)
    if predicted:
        row.perplexity_ours = math.exp(loss_ours / predicted)
        row.perplexity_theirs = math.exp(loss_theirs / predicted)


def _hidden(ours: Transformer, ids_BT: Tensor) -> Tensor:
    """What the head reads; an encoder-decoder's answer begins with its start token."""
    if ours.decoder is None:
        return ours.encode(ids_BT)
    if ours.encoder is None:
        return ours.decode(ids_BT)
    return ours.decode(_shifted(ours, ids_BT), memory_BSD=ours.encode(ids_BT))


def _scores(ours: Transformer, hidden_TD: Tensor) -> Tensor:
    return ours.logits(hidden_TD) if isinstance(ours.config.head, c.LanguageHead) else hidden_TD


def _theirs(ours: Transformer, theirs: Any, ids_BT: Tensor) -> Tensor:
    more = {"decoder_input_ids": _shifted(ours, ids_BT)} if ours.encoder and ours.decoder else {}
    out = theirs(input_ids=ids_BT, **more)
    found: Tensor = out.logits if hasattr(out, "logits") else out.last_hidden_state
    return found


def _shifted(ours: Transformer, ids_BT: Tensor) -> Tensor:
    assert ours.config.start_id is not None
    return torch.cat([torch.tensor([[ours.config.start_id]]), ids_BT[:, :-1]], -1)


def _next_tokens(ours: Transformer, logits_TV: Tensor, ids_BT: Tensor) -> Tensor:
    """The plain formula. Shifted input predicts its own position, except that the first token is left out as well."""
    return F.cross_entropy(logits_TV[1:] if ours.encoder else logits_TV[:-1], ids_BT[0, 1:], reduction="sum")


def _loss(ours: Transformer, hidden_TD: Tensor, ids_BT: Tensor) -> float:
    """The loss as training and exams compute it (packed, in chunks); the plain formula where nothing trains yet."""
    if ours.encoder is not None:
        return float(_next_tokens(ours, ours.logits(hidden_TD), ids_BT))
    ids = ids_BT[0].tolist()
    return float(next_token(ours, pack([Example(tuple(ids), (False, *[True] * (len(ids) - 1)))])))


def answer(
    row: Row, ours: Transformer, theirs: Any, prompts: Sequence[Sequence[int]], length: int
) -> list[dict[str, Any]]:
    """Continue every prompt greedily with the cache on both sides, never stopped before `length`; where the answers
    part, the margin between their two best logits there."""
    found = []
    for ids in prompts:
        mine, other = _ours_greedy(ours, ids, length), _theirs_greedy(ours, theirs, ids, length)
        apart = next((i for i, (a, b) in enumerate(zip(mine, other, strict=True)) if a != b), None)
        result: dict[str, Any] = {"tokens": length, "identical": apart is None, "first_difference": apart}
        if apart is not None and ours.encoder is None:
            logits_V = theirs(input_ids=torch.tensor([[*ids, *other[:apart]]])).logits[0, -1]
            first, second = logits_V.topk(2).values.tolist()
            result["margin_there"] = first - second
        found.append(result)
    row.answers, row.answer_tokens = len(found), length
    row.answers_identical = sum(one["identical"] for one in found)
    return found


def _ours_greedy(ours: Transformer, ids: Sequence[int], length: int) -> list[int]:
    sampling = Sampling(max_new_tokens=length, temperature=0)
    request = engine.Request(source=ids, sampling=sampling) if ours.encoder else engine.Request(ids, sampling)
    return [token.id for token in engine.stream(ours, [request])]


def _theirs_greedy(ours: Transformer, theirs: Any, ids: Sequence[int], length: int) -> list[int]:
    ids_BT = torch.tensor([list(ids)])
    theirs.generation_config.eos_token_id = None
    out_BT = theirs.generate(
        ids_BT, attention_mask=torch.ones_like(ids_BT), max_new_tokens=length, do_sample=False
    )
    begin = 1 if ours.encoder else len(ids)
    found: list[int] = out_BT[0, begin:].tolist()
    return found
