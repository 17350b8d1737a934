"""Answers that a model writes while it learns from them, by the engine, template and stop tokens that serve it too.

Every draw is keyed by (seed, iteration, prompt, sample, position), so a run that was killed writes the same again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from matura.align.rewards.completion import Completion
from matura.align.sequences import Prompted, pack_answers, token_logprobs
from matura.core.errors import MaturaError
from matura.core.grouping import neighbours
from matura.core.preferences import Ranking
from matura.core.settings import Draw, Sampling
from matura.infer.engine import Request, stream
from matura.model.transformer import Transformer
from matura.tokenizer.conversation import Format
from matura.train.watch import looking

ROW = 4096
"""Tokens that are read at a time."""
TOLERANCE = 1e-3
"""Nats by which a log-probability may differ when it is computed again: float32 in other orders, and no more."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One answer. `ids` end with the stop token if it came; `logprobs` are the natural logarithms of the probabilities
    with which they were drawn, temperature and all. `text` is without the stop token."""

    prompt: Ranking
    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    end: Literal["stop", "length"]
    sample: int = 0

    def state(self) -> dict[str, Any]:
        """As JSON values, without the prompt: floats keep their bits."""
        return {
            "ids": list(self.ids),
            "logprobs": list(self.logprobs),
            "text": self.text,
            "end": self.end,
            "sample": self.sample,
        }

    @classmethod
    def restored(cls, state: dict[str, Any], prompt: Ranking, prompt_ids: Sequence[int]) -> Rollout:
        """What `state` was made of."""
        ids, logprobs = tuple(state["ids"]), tuple(state["logprobs"])
        return cls(prompt, tuple(prompt_ids), ids, logprobs, state["text"], state["end"], state["sample"])


def roll(
    model: Transformer,
    format: Format,
    prompts: Sequence[Ranking],
    *,
    k: int,
    draw: Draw,
    seed: int,
    iteration: int = 0,
    batch: int = 64,
    advance: Callable[[int], None] | None = None,
) -> list[Rollout]:
    """`k` answers to each prompt, side by side in the order of the prompts; the prompt is read once for all of them.

    The model is in evaluation mode meanwhile: no dropout. `advance(n)` hears of new tokens. A prompt that comes twice
    gets other answers the second time. Raises MaturaError for a prompt that leaves no room in the context, and for a
    model without a chat template or stop token: it would never end.
    """
    if not format.stop_ids:
        raise MaturaError("this model has no stop token, so its answers would never end; train one in first")
    told = [format.prompt(prompt.messages, prompt.tools) for prompt in prompts]
    seen: Counter[str] = Counter()
    requests = []
    for prompt, ids in zip(prompts, told, strict=True):
        key = request_seed(seed, iteration, prompt.id, seen[prompt.id])
        seen[prompt.id] += 1
        sampling = Sampling(**dict(draw), seed=key, n=k, logprobs=0)
        requests.append(Request(ids, sampling, format.stop_ids))
    written = [[_Writing() for _ in range(k)] for _ in prompts]
    with looking(model):
        for token in stream(model, requests, batch=batch):
            assert token.drawn is not None
            written[token.request][token.sample].add(token.id, token.drawn, token.finish)
            if advance:
                advance(1)
    return [
        one.rollout(prompt, tuple(ids), format, sample)
        for prompt, ids, answers in zip(prompts, told, written, strict=True)
        for sample, one in enumerate(answers)
    ]


class _Writing:
    """One answer while it grows."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.end: Literal["stop", "length"] = "length"

    def add(self, id: int, logprob: float, finish: Literal["stop", "length"] | None) -> None:
        self.ids.append(id)
        self.logprobs.append(logprob)
        self.end = finish or self.end

    def rollout(self, prompt: Ranking, prompt_ids: tuple[int, ...], format: Format, sample: int) -> Rollout:
        said = self.ids[:-1] if self.end == "stop" else self.ids
        text = format.tokenizer.decode(said, skip_special=True)
        return Rollout(prompt, prompt_ids, tuple(self.ids), tuple(self.logprobs), text, self.end, sample)


def request_seed(seed: int, iteration: int, prompt: str, occurrence: int = 0) -> int:
    """The seed of the answers to one prompt in one iteration."""
    key = f"{seed}/{iteration}/{occurrence}/{prompt}"
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=6).digest(), "big")


def fitting(
    prompts: Iterable[Ranking], format: Format, model: Transformer, new: int, what: str = "prompts"
) -> tuple[list[Ranking], int]:
    """The prompts after which `new` tokens fit into the context, and how many do not. Raises MaturaError, which calls
    them `what`, when none does."""
    most = model.config.longest(model.config.decoder) - new
    given = list(prompts)
    kept = [one for one in given if len(format.prompt(one.messages, one.tools)) <= most]
    if not kept:
        raise MaturaError(
            f"none of {len(given):,} {what} leaves room for {new} new tokens in a context of {most + new}; take "
            "shorter prompts, or fewer max_new_tokens"
        )
    return kept, len(given) - len(kept)


@torch.no_grad()
def check(model: Transformer, rollouts: Sequence[Rollout], temperature: float, *, tokens: int = ROW) -> float:
    """Compute the log-probabilities of the rollouts again as the loss does; the largest difference in nats.

    About `tokens` run through the model at a time. Raises MaturaError above `TOLERANCE`: the answers were drawn from
    another distribution than the one that would be trained (other weights, another temperature, cuts, dropout).
    """
    parts_N = []
    with looking(model):
        for row in rows(rollouts, tokens):
            batch = pack_answers([grouped(group) for group in row], model.embed.weight.device)
            parts_N.append(token_logprobs(model, batch, temperature).logprobs_N)
    return agreement(rollouts, torch.cat(parts_N), temperature)


def agreement(rollouts: Sequence[Rollout], again_N: Tensor, temperature: float) -> float:
    """The largest difference in nats between the log-probabilities that tokens were drawn with and those that were
    computed again. Raises MaturaError above `TOLERANCE`, as `check` does."""
    said = [value for one in rollouts for value in one.logprobs]
    gap_N = (again_N.float() - torch.tensor(said, device=again_N.device)).abs()
    largest = float(gap_N.max())
    if not largest <= TOLERANCE:
        raise MaturaError(
            f"log-probabilities of the rollouts differ by {largest:.3g} nats when they are computed again (at most "
            f"{TOLERANCE:g} is rounding): they were not drawn from this model at temperature {temperature:g}, with "
            "neither cuts nor penalties"
        )
    return largest


def rows(rollouts: Sequence[Rollout], tokens: int) -> list[list[list[Rollout]]]:
    """Rollouts in rows of about `tokens`, in order; those of a prompt that stand side by side are one group, which is
    never cut."""
    groups: list[list[Rollout]] = []
    for one in rollouts:
        if groups and groups[-1][-1].prompt is one.prompt and one.sample > groups[-1][-1].sample:
            groups[-1].append(one)
        else:
            groups.append([one])
    return list(neighbours(groups, tokens, lambda group: grouped(group).size))


def grouped(group: Sequence[Rollout]) -> Prompted:
    """Rollouts of one prompt as token ids."""
    return Prompted(group[0].prompt_ids, tuple(one.ids for one in group))


def completion(rollout: Rollout) -> Completion:
    """A rollout as rewards see it."""
    return Completion(rollout.prompt, rollout.text, rollout.end, len(rollout.ids))
