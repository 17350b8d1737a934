"""Generation: requests in, one `Token` at a time out.

Requests of one batch may have prompts of any length: shorter ones are padded on the left, the padding is masked, and
every row counts its own positions. A row that finishes leaves the batch, so the rest gets faster.

Shape suffixes: B rows still running, S positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from matura.core.errors import MaturaError
from matura.infer.sampling import Sampling, choose
from matura.model.cache import Cache
from matura.model.transformer import Transformer


@dataclass(frozen=True)
class Request:
    """Prompt ids (at least one), how to sample, and the ids that end the answer."""

    ids: Sequence[int]
    sampling: Sampling = field(default_factory=Sampling)
    stop_ids: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Token:
    """One new token of a request. `finish` says why it is the last one: a stop token, or the length."""

    request: int
    id: int
    finish: Literal["stop", "length"] | None


@dataclass
class _Row:
    index: int
    request: Request
    new: list[int] = field(default_factory=list)

    @property
    def position(self) -> int:
        """Position of the token that is fed next."""
        return len(self.request.ids) + len(self.new) - 1


Ended = Callable[[int, list[int]], bool]
"""(request index, its new ids) -> True when the answer is complete, for stops that are not single tokens."""


@torch.inference_mode()
def stream(
    model: Transformer, requests: Sequence[Request], *, batch: int = 16, ended: Ended | None = None
) -> Iterator[Token]:
    """Answer the requests, `batch` at a time, longest prompts first; tokens come as they are made.

    The stop token itself is yielded with finish="stop". A request's answer does not depend on the others: every draw
    is keyed by (seed, position). Raises MaturaError for a prompt that is empty or leaves no room in the context.
    """
    _check(model, requests)
    order = sorted(range(len(requests)), key=lambda i: (-len(requests[i].ids), i))
    for start in range(0, len(order), batch):
        rows = [_Row(i, requests[i]) for i in order[start : start + batch]]
        yield from _run(model, rows, ended)


def generate(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling | Sequence[Sampling],
    stop_ids: Sequence[int] = (),
    *,
    batch: int = 16,
    advance: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """New ids for every prompt, without the stop token. `advance(n)` hears of new tokens."""
    each = [sampling] * len(prompts) if isinstance(sampling, Sampling) else sampling
    requests = [Request(ids, one, stop_ids) for ids, one in zip(prompts, each, strict=True)]
    answers: list[list[int]] = [[] for _ in prompts]
    for token in stream(model, requests, batch=batch):
        if token.finish != "stop":
            answers[token.request].append(token.id)
        if advance:
            advance(1)
    return answers


def _check(model: Transformer, requests: Sequence[Request]) -> None:
    for i, request in enumerate(requests):
        if not len(request.ids):
            raise MaturaError(f"request {i}: the prompt is empty; give at least one token")
        if len(request.ids) >= model.config.context:
            raise MaturaError(
                f"request {i}: the prompt has {len(request.ids)} tokens and the model's context is "
                f"{model.config.context}; shorten it"
            )


def _run(model: Transformer, rows: list[_Row], ended: Ended | None) -> Iterator[Token]:
    """One batch from prefill to the last row's last token."""
    ids_BT, real_BS = _left_padded(rows, model.embed.weight.device)
    longest = max(row.request.sampling.max_new_tokens for row in rows)
    cache = model.new_cache(len(rows), min(ids_BT.shape[1] + longest, model.config.context))
    hidden_BTD = model.decode(ids_BT, mask=real_BS, cache=cache)
    while True:
        logits_BV = model.logits(hidden_BTD[:, -1])
        greedy = any(row.request.sampling.temperature == 0 for row in rows)
        best_B = logits_BV.argmax(-1).tolist() if greedy else [-1] * len(rows)
        going = []
        for b, row in enumerate(rows):
            token = _next(model, row, logits_BV[b], best_B[b], ended)
            yield token
            if token.finish is None:
                going.append(b)
        if not going:
            return
        if len(going) < len(rows):
            rows, real_BS = _leave(rows, going, cache, real_BS)
        new_B1 = torch.tensor([[row.new[-1]] for row in rows], device=ids_BT.device)
        positions_B1 = torch.tensor([[row.position] for row in rows], device=ids_BT.device)
        if real_BS is not None:
            real_BS = torch.cat([real_BS, real_BS.new_ones(len(rows), 1)], dim=1)
        hidden_BTD = model.decode(new_B1, mask=real_BS, positions_BT=positions_B1, cache=cache)


def _next(model: Transformer, row: _Row, logits_V: Tensor, best: int, ended: Ended | None) -> Token:
    sampling = row.request.sampling
    if sampling.repetition_penalty != 1:
        id = choose(logits_V, sampling, [*row.request.ids, *row.new], len(row.new))
    else:
        id = best if sampling.temperature == 0 else choose(logits_V, sampling, (), len(row.new))
    row.new.append(id)
    finish: Literal["stop", "length"] | None = None
    if id in row.request.stop_ids or (ended is not None and ended(row.index, row.new)):
        finish = "stop"
    elif len(row.new) >= sampling.max_new_tokens or row.position + 1 >= model.config.context:
        finish = "length"
    return Token(row.index, id, finish)


def _left_padded(rows: list[_Row], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Prompts as [B, T], and which tokens are real; None when no row is padded."""
    longest = max(len(row.request.ids) for row in rows)
    padded = [[0] * (longest - len(row.request.ids)) + list(row.request.ids) for row in rows]
    lengths_B1 = torch.tensor([[len(row.request.ids)] for row in rows], device=device)
    real_BT = torch.arange(longest, device=device)[None] >= longest - lengths_B1
    return torch.tensor(padded, device=device), None if bool(real_BT.all()) else real_BT


def _leave(
    rows: list[_Row], going: list[int], cache: Cache, real_BS: Tensor | None
) -> tuple[list[_Row], Tensor | None]:
    """Only the rows that go on; columns that are padding for all of them stay (positions do not move)."""
    keep = torch.tensor(going, device=cache.layers[0].k_BGSK.device)
    cache.keep(keep)
    return [rows[b] for b in going], None if real_BS is None else real_BS[keep]
