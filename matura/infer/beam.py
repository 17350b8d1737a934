"""Beam search: several beginnings are carried on side by side, and the best whole answers win.

The rules, candidates and scores are those of Hugging Face's generate, so equal settings find equal answers:

- Every step ranks all continuations of all beams by their summed log-probabilities and looks at the first
  (1 + number of stop tokens, at least 2) x beams of them.
- Those that end (a stop token, or the last position) are kept if they rank among the first `beams`; the best others
  become the next beams.
- An ended answer scores its log-probability / length ** length_penalty, the stop token counted; the best `beams` of
  them are held.

Shape suffixes: B beams, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from matura.core.settings import Beams
from matura.infer import penalties
from matura.infer.batch import known, opening, read
from matura.model.peft.adapter import Adapter
from matura.model.transformer import Transformer


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """An answer: its ids without the stop token, the score that ranks it, and why it ended."""

    ids: tuple[int, ...]
    score: float
    finish: Literal["stop", "length"]


class _Beam(NamedTuple):
    parent: int
    ids: tuple[int, ...]
    logprob: float


@torch.inference_mode()
def search(
    model: Transformer,
    ids: Sequence[int],
    beams: Beams,
    stop_ids: Sequence[int] = (),
    source: Sequence[int] = (),
    adapter: Adapter | None = None,
) -> list[Hypothesis]:
    """The `beams.n` best answers to a prompt, best first.

    With an encoder, `source` is what it reads and `ids` may be empty (the model's start token). `adapter` is as in a
    request. Raises MaturaError as
    the engine does.
    """
    ids = opening(model, ids, source, "beam search")
    known(model, (("stop_ids", id) for id in stop_ids))
    assert model.decoder is not None
    room = model.config.longest(model.decoder.config) - (adapter.prefix_tokens if adapter else 0) - len(ids)
    longest = min(beams.max_new_tokens, room)
    batch, logits_BV = read(model, [ids], [source], longest, [adapter])
    running, done = [_Beam(0, (), 0.0)], list[Hypothesis]()
    for length in range(1, longest + 1):
        wide_BV = logits_BV if logits_BV.dtype == torch.float64 else logits_BV.float()
        logprobs_BV = _banned(wide_BV.log_softmax(-1), ids, running, beams.no_repeat_ngram)
        count = max(2, 1 + len(set(stop_ids))) * beams.beams
        ranked = _ranked(logprobs_BV, running, count)
        ends = [length == longest or beam.ids[-1] in stop_ids for beam in ranked]
        for beam, end in zip(ranked[: beams.beams], ends, strict=False):
            if end:
                done.append(_ended(beam, length, beams.length_penalty, stop_ids))
        done = sorted(done, key=lambda one: -one.score)[: beams.beams]
        running = [beam for beam, end in zip(ranked, ends, strict=True) if not end][: beams.beams]
        if not running or _settled(running[0], done, length, longest, beams):
            break
        batch.keep([beam.parent for beam in running])
        logits_BV = batch.step([beam.ids[-1] for beam in running], [len(ids) + length - 1] * len(running))
    return done[: beams.n]


def _banned(logprobs_BV: Tensor, prompt: Sequence[int], running: list[_Beam], size: int) -> Tensor:
    if not size:
        return logprobs_BV
    rows = [
        penalties.without(row_V, penalties.repeating([*prompt, *beam.ids], size))
        for row_V, beam in zip(logprobs_BV, running, strict=True)
    ]
    return torch.stack(rows)


def _ranked(logprobs_BV: Tensor, running: list[_Beam], count: int) -> list[_Beam]:
    """The best `count` continuations of all beams, best first."""
    sums_N = (logprobs_BV + logprobs_BV.new_tensor([[beam.logprob] for beam in running])).flatten()
    best = sums_N.topk(min(count, len(sums_N)))
    size = logprobs_BV.shape[1]
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [
        _Beam(at // size, (*running[at // size].ids, at % size), logprob)
        for at, logprob in pairs
        if logprob > -torch.inf
    ]


def _ended(beam: _Beam, length: int, penalty: float, stop_ids: Sequence[int]) -> Hypothesis:
    score = beam.logprob / length**penalty
    if beam.ids[-1] in stop_ids:
        return Hypothesis(beam.ids[:-1], score, "stop")
    return Hypothesis(beam.ids, score, "length")


def _settled(best: _Beam, done: list[Hypothesis], length: int, longest: int, beams: Beams) -> bool:
    """Whether the search may end: as many answers as beams are there, and the best open beam, at the length that the
    setting imagines for it, beats none of them."""
    if len(done) < beams.beams:
        return False
    if beams.early_stopping is True:
        return True
    hopeful = beams.early_stopping == "never" and beams.length_penalty > 0
    return best.logprob / (longest if hopeful else length) ** beams.length_penalty <= done[-1].score
