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
from dataclasses import dataclass

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


def moved(ratio_N: Tensor, advantages_N: Tensor, clips: Clips) -> dict[str, Tensor]:
    """What the log says of how far tokens are from the policy that wrote them, for each token: the ratio, `approx_kl`
    (k3 of KL(rollouts' policy || present one), for the tokens are the former's), and whether the clip kept it from
    going further."""
    low_N = (ratio_N < 1 - clips.low) & (advantages_N < 0)
    high_N = (ratio_N > 1 + clips.high) & (advantages_N > 0)
    return {
        "ratio": ratio_N,
        "approx_kl": divergences.k3(-ratio_N.log()),
        "clip_share_low": low_N,
        "clip_share_high": high_N,
        "clip_share": low_N | high_N,
    }


class Tally:
    """Sums over the tokens of one update, so that pieces of any size give the same means."""

    def __init__(self) -> None:
        self.tokens = 0
        self.sums: dict[str, float] = {}

    @torch.no_grad()
    def note(self, tokens: int, **values_N: Tensor) -> None:
        """One more piece: values of its tokens."""
        self.tokens += tokens
        for name, one_N in values_N.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(one_N.double().sum())

    @torch.no_grad()
    def add(
        self, clips: Clips, ratio_N: Tensor, advantages_N: Tensor, moved_N: Tensor, **more_N: Tensor
    ) -> None:
        """One more piece of PPO. `moved_N` is how far the values are from the rollouts'; the means of `more_N` are
        logged too."""
        ratio_N = ratio_N.double()
        values = more_N | moved(ratio_N, advantages_N, clips) | {"ratio_square": ratio_N.square()}
        if clips.value is not None:
            values["value_clip_share"] = moved_N.abs() > clips.value
        self.note(len(ratio_N), **values)

    def means(self) -> dict[str, float]:
        """The numbers of the update for the log, none without tokens. `approx_kl` is k3 of the rollouts' policy from
        the present one, in nats a token; `clip_share`, and its parts `_low` and `_high`, are shares of tokens that the
        clip kept from going further."""
        if not self.tokens:
            return {}
        found = {name: value / self.tokens for name, value in self.sums.items()}
        if (square := found.pop("ratio_square", None)) is not None:
            found["ratio_variance"] = max(0.0, square - found["ratio"] ** 2)
        return found

    def taken(self) -> dict[str, float]:
        """The means since the last time, and begin anew."""
        found = self.means()
        self.tokens, self.sums = 0, {}
        return found
