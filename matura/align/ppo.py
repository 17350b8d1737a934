"""Proximal policy optimisation: what an answer's tokens are rewarded with, and the clipped losses (arXiv:1707.06347).

    ratio_t = p(token) / p_rollout(token)
    policy  = -min(ratio A, clip(ratio, 1 - low, 1 + high) A)
    value   = 1/2 max((V - R)^2, (clip(V, V_rollout - c, V_rollout + c) - R)^2)

Everything is for each token alone; the loop divides the sums by the tokens of the whole update, so how an update is
cut into pieces changes nothing.

Shape suffixes: N tokens of all answers end to end, S answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from matura.align import divergences

FURTHEST = 20.0
"""Largest |log ratio|: e^20 is past every clip and still a number."""


@dataclass(frozen=True)
class Clips:
    """How far an update may go from the rollouts. `value` None: values are not clipped."""

    low: float = 0.2
    high: float = 0.2
    value: float | None = 0.2


def token_rewards(
    scores_S: Sequence[float], drift_N: Tensor, lengths: Sequence[int], coefficient: float
) -> Tensor:
    """Rewards [N]: every token pays `coefficient` times its own log p / reference (k1), the last one of an answer (its
    stop token, where there is one) gets the score as well."""
    rewards_N = -coefficient * divergences.k1(drift_N)
    last_S = torch.tensor(lengths, device=drift_N.device).cumsum(0) - 1
    scores = torch.tensor(scores_S, dtype=rewards_N.dtype, device=drift_N.device)
    return rewards_N.index_add(0, last_S, scores)


def ratios(logprobs_N: Tensor, rollout_N: Tensor) -> Tensor:
    """How many times as likely a token has become since it was written."""
    return (logprobs_N - rollout_N).clamp(-FURTHEST, FURTHEST).exp()


def policy_loss(ratio_N: Tensor, advantages_N: Tensor, clips: Clips) -> Tensor:
    """The clipped surrogate [N]: no reward for going further than the clip, and no way out of a bad step."""
    clipped_N = ratio_N.clamp(1 - clips.low, 1 + clips.high)
    return -torch.minimum(ratio_N * advantages_N, clipped_N * advantages_N)


def value_loss(values_N: Tensor, rollout_N: Tensor, returns_N: Tensor, clips: Clips) -> Tensor:
    """Squared errors [N], of the value or of the value kept near the one that the *rollout* had, whichever is worse."""
    loss_N = (values_N - returns_N).square()
    if clips.value is not None:
        near_N = rollout_N + (values_N - rollout_N).clamp(-clips.value, clips.value)
        loss_N = torch.maximum(loss_N, (near_N - returns_N).square())
    return loss_N / 2


@dataclass
class Tally:
    """Sums over the tokens of one update, so that pieces of any size give the same means. A state is JSON."""

    tokens: int = 0
    policy: float = 0.0
    value: float = 0.0
    entropy: float = 0.0
    approx_kl: float = 0.0
    clipped: float = 0.0
    value_clipped: float = 0.0
    ratio: float = 0.0
    ratio_square: float = 0.0
    furthest: float = 0.0
    """Largest |ratio - 1|; the one number that is no sum."""

    @torch.no_grad()
    def add(
        self,
        ratio_N: Tensor,
        policy_N: Tensor,
        value_N: Tensor,
        entropy_N: Tensor,
        advantages_N: Tensor,
        moved_N: Tensor,
        clips: Clips,
    ) -> None:
        """One more piece. `moved_N` is how far the values are from the rollouts'."""
        self.tokens += len(ratio_N)
        self.policy += float(policy_N.double().sum())
        self.value += float(value_N.double().sum())
        self.entropy += float(entropy_N.double().sum())
        self.approx_kl += float(divergences.k3(-ratio_N.double().log()).sum())
        beyond_N = torch.where(advantages_N > 0, ratio_N > 1 + clips.high, ratio_N < 1 - clips.low)
        self.clipped += float((beyond_N & (advantages_N != 0)).sum())
        if clips.value is not None:
            self.value_clipped += float((moved_N.abs() > clips.value).sum())
        self.ratio += float(ratio_N.double().sum())
        self.ratio_square += float(ratio_N.double().square().sum())
        self.furthest = (
            max(self.furthest, float((ratio_N - 1).abs().max())) if len(ratio_N) else self.furthest
        )

    def means(self) -> dict[str, float]:
        """The numbers of the update for the log; none without tokens."""
        if not self.tokens:
            return {}
        mean = {one.name: getattr(self, one.name) / self.tokens for one in fields(self)}
        return {
            "policy_loss": mean["policy"],
            "value_loss": mean["value"],
            "policy_entropy": mean["entropy"],
            "approx_kl": mean["approx_kl"],
            "clip_share": mean["clipped"],
            "value_clip_share": mean["value_clipped"],
            "ratio": mean["ratio"],
            "ratio_variance": max(0.0, mean["ratio_square"] - mean["ratio"] ** 2),
        }
