"""Group relative policy optimisation: the loss of answers whose advantages are known (arXiv:2402.03300).

    r_t = p(token) / p_old(token)                        both at the temperature of the draw
    loss_t = -min(r_t A, clip(r_t, 1 - low, 1 + high) A) + kl r_t k3_t
    k3_t = exp(-d) - 1 + d,  d = log p - log p_ref

k3 alone has the gradient of the other divergence, KL(ref || p); times r_t it is that of KL(p || ref), also for answers
of older weights (see `divergences`). A is the same for all tokens of an answer.

Shape suffixes: N answer tokens, S answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from matura.align.divergences import k3
from matura.align.ppo import Clips, Tally, moved, policy_loss, ratios
from matura.align.rollouts import Rollout
from matura.align.sequences import AnswerBatch, Prompted, Reference, pack_answers, token_logprobs
from matura.model.transformer import Transformer
from matura.train.loop import Objective

Reduction = Literal["token", "sequence", "constant"]


@dataclass(frozen=True)
class Surrogate:
    """Settings of the loss.

    `reduction` says what is averaged over a whole update: token, every token counts the same (DAPO, arXiv:2503.14476,
    equation 8); sequence, every answer does, so that tokens of long ones count less (GRPO as published); constant, the
    sum is divided by answers x `longest` (Dr. GRPO, arXiv:2503.20783), and length has no influence.
    """

    low: float = 0.2
    high: float = 0.2
    kl: float = 0.0
    temperature: float = 1.0
    reduction: Reduction = "token"
    longest: int = 1


@dataclass(frozen=True)
class Judged:
    """The answers to one prompt that have an advantage."""

    rollouts: tuple[Rollout, ...]
    advantages: tuple[float, ...]


@dataclass(frozen=True)
class GroupBatch:
    """Answers, and for their tokens the log-probabilities they were drawn with [N] and their weights in the summed
    loss [N]; for the answers the advantages [S]. `weight` is what the sum is divided by, answers that give no gradient
    and are therefore not read included. `reference_N`: log-probabilities of the reference, if there is one."""

    answers: AnswerBatch
    advantages_S: Tensor
    old_N: Tensor
    weights_N: Tensor
    weight: float
    reference_N: Tensor | None = None

    @property
    def tokens(self) -> int:
        """Tokens that run through the model."""
        return self.answers.tokens


def pack_groups(
    groups: Sequence[Judged],
    settings: Surrogate,
    reference: Reference | None = None,
    device: str | torch.device = "cpu",
) -> GroupBatch:
    """Groups as a batch. Without a reference, groups in which everybody got the same give no gradient: they count in
    the weight and are not read."""
    read = groups if reference is not None else [one for one in groups if any(one.advantages)]
    prompted = [
        Prompted(one.rollouts[0].prompt_ids, tuple(answer.ids for answer in one.rollouts)) for one in read
    ]
    answers = pack_answers(prompted, device)
    told = [answer for one in read for answer in one.rollouts]
    old = [value for answer in told for value in answer.logprobs]
    advantages = [value for one in read for value in one.advantages]
    weights = [
        1 / len(answer.ids) if settings.reduction == "sequence" else 1.0
        for answer in told
        for _ in answer.ids
    ]
    return GroupBatch(
        answers,
        torch.tensor(advantages, dtype=torch.float32, device=device),
        torch.tensor(old, dtype=torch.float32, device=device),
        torch.tensor(weights, dtype=torch.float32, device=device),
        weight([answer for one in groups for answer in one.rollouts], settings),
        None if reference is None else reference(answers),
    )


def weight(rollouts: Sequence[Rollout], settings: Surrogate) -> float:
    """What the summed loss of these answers is divided by."""
    match settings.reduction:
        case "token":
            return float(sum(len(one.ids) for one in rollouts))
        case "sequence":
            return float(len(rollouts))
        case "constant":
            return float(len(rollouts) * settings.longest)


def token_losses(
    logprobs_N: Tensor,
    old_N: Tensor,
    advantages_N: Tensor,
    settings: Surrogate,
    reference_N: Tensor | None = None,
) -> Tensor:
    """The loss of every token, before any mean."""
    ratio_N = ratios(logprobs_N, old_N)
    loss_N = policy_loss(ratio_N, advantages_N, Clips(settings.low, settings.high))
    if reference_N is not None:
        loss_N = loss_N + settings.kl * ratio_N * k3(logprobs_N - reference_N)
    return loss_N


def objective(settings: Surrogate, tally: Tally) -> Objective:
    """(model, GroupBatch) -> summed loss; `tally` hears of every batch.

    Dropout is off: with it, the probabilities would be others than those of the draw (step 0 would not have ratio 1).
    """

    def loss(model: Transformer, batch: GroupBatch) -> Tensor:
        if not batch.answers.counts:
            return 0.0 * next(p for p in model.parameters() if p.requires_grad).sum()
        model.eval()
        found = token_logprobs(model, batch.answers, settings.temperature, entropy=True)
        advantages_N = batch.advantages_S[batch.answers.answer_N]
        _note(tally, found.logprobs_N, found.entropy_N, advantages_N, batch, settings)
        loss_N = token_losses(found.logprobs_N, batch.old_N, advantages_N, settings, batch.reference_N)
        return (loss_N * batch.weights_N).sum()

    return loss


@torch.no_grad()
def _note(
    tally: Tally,
    logprobs_N: Tensor,
    entropy_N: Tensor | None,
    advantages_N: Tensor,
    batch: GroupBatch,
    settings: Surrogate,
) -> None:
    ratio_N = ratios(logprobs_N, batch.old_N)
    values = moved(ratio_N.double(), advantages_N, Clips(settings.low, settings.high))
    if entropy_N is not None:
        values["policy_entropy"] = entropy_N
    if batch.reference_N is not None:
        values["kl"] = logprobs_N - batch.reference_N
    tally.note(len(ratio_N), **values)
