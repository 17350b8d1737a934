"""Estimates of KL(p || q) from samples of p, one for each sample.

`d` is log p(x) - log q(x) of what was sampled from p (Schulman, "Approximating KL divergence", 2020).

All three have the right mean or nearly so, but that says nothing of their gradients. Differentiated as a loss, samples
fixed, with p the model that learns:

    k1            0: the mean of a score is zero, so nothing is held back
    k2            the gradient of KL(p || q)
    k3            the gradient of KL(q || p), the other direction
    k3 * ratio    the gradient of KL(p || q) again, also for samples of an older policy (ratio: p / old)

As a penalty taken off the reward, k1 is the one whose policy gradient is that of KL(p || q).

Shape suffixes: N samples.
"""

from __future__ import annotations

import torch
from torch import Tensor


def k1(d_N: Tensor) -> Tensor:
    """d: unbiased, of either sign, and the noisiest."""
    return d_N


def k2(d_N: Tensor) -> Tensor:
    """d^2 / 2: never negative, biased where p and q are far apart."""
    return d_N.square() / 2


def k3(d_N: Tensor) -> Tensor:
    """exp(-d) - 1 + d: unbiased and never negative; huge where q gives far more than p."""
    return torch.expm1(-d_N) + d_N
