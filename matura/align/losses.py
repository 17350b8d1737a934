"""Losses of preferences: pure functions of the scores of answers, one value for each pair or thumb.

A score is log p(answer) - log p_ref(answer), summed over the answer's tokens or averaged; d is the chosen answer's
score minus the rejected one's. Without a reference (ORPO, SimPO) a score is the mean log p of a token.

    sigmoid   -log sigma(beta d)                                          DPO, arXiv:2305.18290, equation 7
              with smoothing e: -(1 - e) log sigma(beta d) - e log sigma(-beta d)        cDPO, Mitchell 2023
    robust    the same with a minus before the second term, by 1 - 2 e    rDPO, arXiv:2403.00409, equation 9
    ipo       (d - 1 / (2 beta))^2                                        arXiv:2310.12036, equation 17
    hinge     max(0, 1 - beta d)                                          SLiC, arXiv:2305.10425
    kto       1 - sigma(beta (s - z)) if liked, else 1 - sigma(beta (z - s))             arXiv:2402.01306, equation 8
    orpo      -m_chosen - beta log sigma(log odds of chosen - log odds of rejected)      arXiv:2403.07691, equation 6
    simpo     -log sigma(beta d - gamma)                                  arXiv:2405.14734, equation 6

Shape suffixes: P pairs, Q thumbs.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from matura.core.dpo_settings import PreferenceLoss


def sigmoid(d_P: Tensor, beta: float, smoothing: float = 0.0) -> Tensor:
    """Logistic loss; `smoothing` is the share of the labels that are taken to be wrong."""
    loss_P = -F.logsigmoid(beta * d_P)
    return loss_P if not smoothing else loss_P.lerp(-F.logsigmoid(-beta * d_P), smoothing)


def robust(d_P: Tensor, beta: float, smoothing: float) -> Tensor:
    """Logistic loss whose mean over labels, of which a share `smoothing` < 0.5 is flipped, is that of true labels."""
    right_P, flipped_P = -F.logsigmoid(beta * d_P), -F.logsigmoid(-beta * d_P)
    return ((1 - smoothing) * right_P - smoothing * flipped_P) / (1 - 2 * smoothing)


def ipo(d_P: Tensor, beta: float) -> Tensor:
    """Squared distance of the margin from 1 / (2 beta), beyond which it is not driven."""
    return (d_P - 1 / (2 * beta)).square()


def hinge(d_P: Tensor, beta: float) -> Tensor:
    """Nothing once the margin is 1 / beta."""
    return F.relu(1 - beta * d_P)


def kto(
    scores_Q: Tensor,
    liked_Q: Tensor,
    z: Tensor | float,
    beta: float,
    *,
    desirable: float = 1.0,
    undesirable: float = 1.0,
) -> Tensor:
    """Of every answer by itself whether it is far enough above or below `z`, an estimate of the divergence from the
    reference that no gradient flows through; below zero, which no divergence is, it counts as zero."""
    z = torch.as_tensor(z, dtype=scores_Q.dtype, device=scores_Q.device).detach().clamp(min=0)
    sign_Q = torch.where(liked_Q, 1.0, -1.0).to(scores_Q.dtype)
    weight_Q = torch.where(liked_Q, desirable, undesirable).to(scores_Q.dtype)
    return weight_Q * (1 - torch.sigmoid(beta * sign_Q * (scores_Q - z)))


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - e^x) for x <= 0, by whichever form loses no digits (Maechler 2012); in float32 at least.

    At 0 it is that of the largest number below that the format tells apart from it: finite, and so is its gradient.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    x = x.clamp(max=-torch.finfo(x.dtype).eps)
    near = x > -math.log(2)
    # Either branch gets a harmless number where the other one is taken: 0 times infinity is no gradient.
    by_expm1 = torch.log(-torch.expm1(torch.where(near, x, -1.0)))
    by_exp = torch.log1p(-torch.exp(torch.where(near, -1.0, x)))
    return torch.where(near, by_expm1, by_exp)


def odds_ratio(chosen_P: Tensor, rejected_P: Tensor) -> Tensor:
    """log odds of the chosen answer minus log odds of the rejected, from mean log-probabilities of a token."""
    chosen_P, rejected_P = (
        one.to(torch.promote_types(one.dtype, torch.float32)) for one in (chosen_P, rejected_P)
    )
    return (chosen_P - rejected_P) - (log1mexp(chosen_P) - log1mexp(rejected_P))


def orpo(chosen_P: Tensor, rejected_P: Tensor, beta: float) -> Tensor:
    """The plain loss of the chosen answer, and the logistic loss of the odds ratio; means over tokens are given."""
    return -chosen_P - beta * F.logsigmoid(odds_ratio(chosen_P, rejected_P))


def simpo(chosen_P: Tensor, rejected_P: Tensor, beta: float, gamma: float) -> Tensor:
    """Logistic loss of the difference of mean log-probabilities, beyond a margin; nothing else is added."""
    return -F.logsigmoid(beta * (chosen_P - rejected_P) - gamma)


def of_pairs(settings: PreferenceLoss, chosen_P: Tensor, rejected_P: Tensor, nll_P: Tensor) -> Tensor:
    """The loss of every pair from its scores. `nll_P` is -log p a token of the chosen answer; `settings.nll` times it
    is added, pair by pair, so that accumulation changes nothing."""
    beta, d_P = settings.strength, chosen_P - rejected_P
    match settings.kind:
        case "sigmoid":
            loss_P = sigmoid(d_P, beta, settings.smoothing)
        case "robust":
            loss_P = robust(d_P, beta, settings.smoothing)
        case "ipo":
            loss_P = ipo(d_P, beta)
        case "hinge":
            loss_P = hinge(d_P, beta)
        case "orpo":
            loss_P = orpo(chosen_P, rejected_P, beta)
        case "simpo":
            loss_P = simpo(chosen_P, rejected_P, beta, settings.gamma)
        case "kto":
            raise ValueError("kto is no loss of pairs")
    return loss_P + settings.nll * nll_P if settings.nll else loss_P
