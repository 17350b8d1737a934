"""Generation: requests in, one `Token` at a time out.

Requests of one batch may have prompts of any length: shorter ones are padded on the left, the padding is masked, and
every row counts its own positions. A row that finishes leaves the batch, so the rest gets faster. Several answers to
one prompt read it once.

Shape suffixes: B rows still running, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from matura.core.errors import MaturaError
from matura.infer.batch import known, named, opening, read
from matura.infer.sampling import Allowed, Chain, Sampling, chain, drawn, sample_seed
from matura.model.peft.adapter import Adapter
from matura.model.transformer import Transformer


@dataclass(frozen=True)
class Request:
    """Prompt ids (at least one), how to sample, and the ids that end the answer.

    For a model with an encoder `source` is what it reads, and `ids` open the answer (none: the model's start token).
    `bad_words` are id sequences that never come, `allowed` maps the ids of the answer so far to those that may come
    next (None: all). `sampling.stop` and `sampling.bad_words` are texts: `infer.text` takes care of them. `adapter`
    is one that is set on the model for this request alone (checked by `peft.routing.check`).
    """

    ids: Sequence[int] = ()
    sampling: Sampling = field(default_factory=Sampling)
    stop_ids: Sequence[int] = ()
    source: Sequence[int] = ()
    bad_words: Sequence[Sequence[int]] = ()
    allowed: Allowed | None = None
    adapter: Adapter | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """One new token of a request. `finish` says why it is the last one: a stop token, or the length.

    `sample` counts the answers to one request (`Sampling.n`). With `Sampling.logprobs`, `logprob` is the natural
    logarithm of the token's probability and `top` the likeliest (id, log-probability), best first: those of the model
    itself, before penalties, temperature and cuts. `drawn` is the logarithm of the probability with which it was drawn,
    after them (0 where the best was taken).
    """

    request: int
    id: int
    finish: Literal["stop", "length"] | None
    sample: int = 0
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    drawn: float | None = None


@dataclass
class _Row:
    index: int
    sample: int
    request: Request
    chain: Chain
    new: list[int] = field(default_factory=list)

    @property
    def position(self) -> int:
        """Position of the token that is fed next."""
        return len(self.request.ids) + len(self.new) - 1

    @property
    def before(self) -> int:
        """Positions that its adapter takes from the context."""
        return self.request.adapter.prefix_tokens if self.request.adapter else 0


Ended = Callable[[int, int, list[int]], bool]
"""(request index, sample, its new ids) -> True when the answer is complete, for stops that are not single tokens."""


@torch.inference_mode()
def stream(
    model: Transformer, requests: Sequence[Request], *, batch: int = 16, ended: Ended | None = None
) -> Iterator[Token]:
    """Answer the requests, `batch` answers at a time, longest prompts first; tokens come as they are made.

    The stop token itself is yielded with finish="stop". A request's answer does not depend on the others: every draw
    is keyed by (seed, position); answer k of `Sampling.n` is that of a request with `sample_seed(seed, k)`. Raises
    MaturaError for a prompt that is empty or leaves no room in the context, and for what the model cannot do.
    """
    several = len(requests) > 1
    rows = [
        row
        for i, request in enumerate(requests)
        for row in _rows(model, i, request, f"request {i}" if several else "")
    ]
    rows.sort(key=lambda row: (-len(row.request.ids) - len(row.request.source), row.index, row.sample))
    for start in range(0, len(rows), batch):
        yield from _run(model, rows[start : start + batch], ended)


def generate(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling | Sequence[Sampling],
    stop_ids: Sequence[int] = (),
    *,
    batch: int = 16,
    advance: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """New ids for every prompt, without the stop token; with `Sampling.n` the answers to a prompt stand side by side.

    `advance(n)` hears of new tokens. Raises MaturaError as `stream` does, and for `Sampling.logprobs`.
    """
    each = [sampling] * len(prompts) if isinstance(sampling, Sampling) else sampling
    requests = [Request(ids, one, stop_ids) for ids, one in zip(prompts, each, strict=True)]
    if any(one.logprobs is not None for one in each):
        raise MaturaError("generate gives ids alone: leave sampling.logprobs out, or read them from stream")
    answers: list[list[list[int]]] = [[[] for _ in range(one.n)] for one in each]
    for token in stream(model, requests, batch=batch):
        if token.finish != "stop":
            answers[token.request][token.sample].append(token.id)
        if advance:
            advance(1)
    return [ids for samples in answers for ids in samples]


def _rows(model: Transformer, index: int, request: Request, where: str) -> Iterator[_Row]:
    """One row for each answer to a request, after all that could be wrong with it."""
    try:
        _check(model, request)
        end = model.config.longest(model.config.decoder)
        if (adapter := request.adapter) and len(request.ids) + adapter.prefix_tokens >= end:
            raise MaturaError(
                f"the prompt has {len(request.ids)} tokens, and the adapter's prefix takes {adapter.prefix_tokens} of "
                f"a context of {end}; shorten it"
            )
    except MaturaError as error:
        raise MaturaError(named(where, str(error))) from None
    sampling = request.sampling
    request = replace(request, ids=opening(model, request.ids, request.source, where))
    for sample in range(sampling.n):
        seeded = (
            sampling.model_copy(update={"seed": sample_seed(sampling.seed, sample)}) if sample else sampling
        )
        yield _Row(index, sample, request, chain(seeded, request.bad_words, request.allowed))


def _check(model: Transformer, request: Request) -> None:
    """Raises MaturaError for texts where ids are expected, and for ids that are no tokens."""
    sampling = request.sampling
    for name in ("stop", "bad_words"):
        if getattr(sampling, name):
            raise MaturaError(
                f"sampling.{name} holds texts, and token ids know nothing of texts; use "
                f"matura.infer.text, or give ids as {'stop_ids' if name == 'stop' else name} of the request"
            )
    if any(not len(word) for word in request.bad_words):
        raise MaturaError("bad_words has an empty sequence: remove it")
    known(model, (("bad_words", id) for word in request.bad_words for id in word))
    known(model, (("sampling.logit_bias", id) for id in sampling.logit_bias))
    known(model, (("stop_ids", id) for id in request.stop_ids))


def _run(model: Transformer, rows: list[_Row], ended: Ended | None) -> Iterator[Token]:
    """One batch from prefill to the last row's last token."""
    end = model.config.longest(model.config.decoder)
    first = {row.index: row.request for row in rows}
    batch, logits_BV = read(
        model,
        [request.ids for request in first.values()],
        [request.source for request in first.values()],
        max(row.request.sampling.max_new_tokens for row in rows),
        [request.adapter for request in first.values()],
    )
    if len(first) < len(rows):
        at = {index: i for i, index in enumerate(first)}
        fork = [at[row.index] for row in rows]
        batch.keep(fork)
        logits_BV = logits_BV[torch.tensor(fork, device=logits_BV.device)]
    while True:
        greedy = any(row.chain.greedy for row in rows)
        best_B = logits_BV.argmax(-1).tolist() if greedy else [-1] * len(rows)
        going = []
        for b, row in enumerate(rows):
            token = _next(row, logits_BV[b], best_B[b], end - row.before, ended)
            yield token
            if token.finish is None:
                going.append(b)
        if not going:
            return
        if len(going) < len(rows):
            rows = [rows[b] for b in going]
            batch.keep(going)
        logits_BV = batch.step([row.new[-1] for row in rows], [row.position for row in rows])


def _next(row: _Row, logits_V: Tensor, best: int, end: int, ended: Ended | None) -> Token:
    sampling = row.chain.sampling
    probability = 1.0
    if row.chain.greedy:
        id = best
    else:
        seen = [*row.request.ids, *row.new] if row.chain.steps else ()
        id, probability = drawn(row.chain, logits_V, seen, len(row.new))
    row.new.append(id)
    finish: Literal["stop", "length"] | None = None
    if id in row.request.stop_ids or (ended is not None and ended(row.index, row.sample, row.new)):
        finish = "stop"
    elif len(row.new) >= sampling.max_new_tokens or row.position + 1 >= end:
        finish = "length"
    if sampling.logprobs is None:
        return Token(row.index, id, finish, row.sample)
    own, top = _logprobs(logits_V, id, sampling.logprobs)
    return Token(row.index, id, finish, row.sample, own, top, math.log(probability))


def _logprobs(logits_V: Tensor, id: int, count: int) -> tuple[float, tuple[tuple[int, float], ...]]:
    """The token's log-probability, and the `count` likeliest tokens with theirs."""
    logprobs_V = torch.log_softmax(logits_V if logits_V.dtype == torch.float64 else logits_V.float(), -1)
    best = logprobs_V.topk(min(count, len(logprobs_V)))
    return float(logprobs_V[id]), tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
