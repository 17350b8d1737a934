"""How much better than expected a token, or an answer, turned out to be.

Answers lie end to end without padding: `lengths` says where each ends, and nothing of one answer enters another's
numbers. Sums are made in float64.

Shape suffixes: N tokens of all answers end to end, S answers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

EVEN = 1e-8
"""Standard deviations below this are none: what differs by rounding alone is not blown up."""


def gae(
    rewards_N: Tensor,
    values_N: Tensor,
    lengths: Sequence[int],
    *,
    gamma: float = 1.0,
    lam: float = 0.95,
    after_S: Sequence[float] | None = None,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates [N], and the returns [N] that values are to learn (arXiv:1506.02438, eq. 16).

        delta_t = r_t + gamma V_(t+1) - V_t        A_t = sum over l of (gamma lam)^l delta_(t+l)        R_t = A_t + V_t

    `values_N[t]` is the value of the state before token t. `after_S` are the values of the states after the last
    tokens: 0 (the default) for answers that are over, the estimate for those that were only cut off. `lam` 0 trusts
    the values, 1 the rewards that came. Raises ValueError when the lengths do not cover the tokens.
    """
    if sum(lengths) != len(rewards_N) or len(values_N) != len(rewards_N):
        raise ValueError(f"{len(rewards_N)} rewards, {len(values_N)} values and {sum(lengths)} tokens")
    rewards, values = rewards_N.double().tolist(), values_N.double().tolist()
    advantages = [0.0] * len(rewards)
    start = 0
    for length, after in zip(lengths, after_S or [0.0] * len(lengths), strict=True):
        value, advantage = after, 0.0
        for t in reversed(range(start, start + length)):
            delta = rewards[t] + gamma * value - values[t]
            advantage = delta + gamma * lam * advantage
            value, advantages[t] = values[t], advantage
        start += length
    advantages_N = torch.tensor(advantages, dtype=torch.float64, device=rewards_N.device)
    returns_N = advantages_N + values_N.double()
    return advantages_N.to(rewards_N.dtype), returns_N.to(rewards_N.dtype)


def whiten(x_N: Tensor) -> Tensor:
    """Moved to mean 0 and scaled to standard deviation 1, over all tokens there are. All equal: zeros."""
    exact_N = x_N.double()
    exact_N = exact_N - exact_N.mean()
    deviation = exact_N.square().mean().sqrt()
    if deviation < EVEN:
        return torch.zeros_like(x_N)
    return (exact_N / deviation).to(x_N.dtype)


def explained_variance(values_N: Tensor, returns_N: Tensor) -> float:
    """1 - Var(R - V) / Var(R): 1 for values that foresee the returns, 0 for a constant, below that worse than one.
    NaN when all returns are equal."""
    returns_N, values_N = returns_N.double(), values_N.double()
    variance = returns_N.var(correction=0)
    if variance < EVEN**2:
        return float("nan")
    return float(1 - (returns_N - values_N).var(correction=0) / variance)
