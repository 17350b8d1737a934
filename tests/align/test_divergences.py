"""Estimators of KL on a distribution small enough to sum over: their means, and what their gradients really are."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from matura.align.divergences import k1, k2, k3

Estimator = Callable[[Tensor], Tensor]


def logits(seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kl(p_V: Tensor, q_V: Tensor) -> Tensor:
    return (p_V.exp() * (p_V - q_V)).sum()


def gradient(function: Callable[[Tensor], Tensor], at_V: Tensor) -> Tensor:
    at_V = at_V.clone().requires_grad_()
    (found_V,) = torch.autograd.grad(function(at_V.log_softmax(-1)), at_V)
    return found_V


def as_loss(estimator: Estimator, q_V: Tensor, old_V: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """The expected loss over samples of the model itself, or of an older one with the ratio before it: the samples
    are fixed, so their probabilities get no gradient."""

    def loss(p_V: Tensor) -> Tensor:
        drawn_V = (p_V if old_V is None else old_V).exp().detach()
        ratio_V = torch.ones_like(p_V) if old_V is None else (p_V - old_V).exp()
        return (drawn_V * ratio_V * estimator(p_V - q_V)).sum()

    return loss


def test_means() -> None:
    p_V, q_V = logits(0).log_softmax(-1), logits(1).log_softmax(-1)
    for estimator in (k1, k3):
        assert float((p_V.exp() * estimator(p_V - q_V)).sum()) == pytest.approx(float(kl(p_V, q_V)))
    near_V = (logits(0) + logits(1, 0.01)).log_softmax(-1)
    assert float((p_V.exp() * k2(p_V - near_V)).sum()) == pytest.approx(float(kl(p_V, near_V)), rel=0.05)
    assert bool((k2(p_V - q_V) >= 0).all())
    assert bool((k3(p_V - q_V) >= 0).all())
    assert bool((k1(p_V - q_V) < 0).any())


def test_gradients_as_a_loss() -> None:
    """T20: k1 holds nothing back, k2 is right, k3 is the other direction; with the ratio before it k3 is right too."""
    at_V, q_V = logits(2, 1.5), logits(3, 1.5).log_softmax(-1)
    reverse_V = gradient(lambda p_V: kl(p_V, q_V), at_V)
    forward_V = gradient(lambda p_V: kl(q_V, p_V), at_V)
    assert float((reverse_V - forward_V).abs().max()) > 0.05
    assert torch.allclose(gradient(as_loss(k1, q_V), at_V), torch.zeros_like(at_V), atol=1e-12)
    assert torch.allclose(gradient(as_loss(k2, q_V), at_V), reverse_V, atol=1e-12)
    assert torch.allclose(gradient(as_loss(k3, q_V), at_V), forward_V, atol=1e-12)
    own_V = at_V.log_softmax(-1)
    for estimator in (k1, k3):
        assert torch.allclose(gradient(as_loss(estimator, q_V, own_V), at_V), reverse_V, atol=1e-12)


def test_with_the_ratio_samples_may_be_old() -> None:
    """T20: not so k2: its ratio would get a gradient of its own."""
    at_V, q_V, old_V = logits(4), logits(5).log_softmax(-1), logits(6).log_softmax(-1)
    reverse_V = gradient(lambda p_V: kl(p_V, q_V), at_V)
    assert torch.allclose(gradient(as_loss(k3, q_V, old_V), at_V), reverse_V, atol=1e-12)
    assert not torch.allclose(gradient(as_loss(k2, q_V, old_V), at_V), reverse_V, atol=1e-2)


@pytest.mark.parametrize(("estimator", "right"), [(k1, True), (k2, False), (k3, False)])
def test_as_a_penalty_off_the_reward_only_k1_is_right(estimator: Estimator, right: bool) -> None:
    """T20: policy gradient: minus the reward, held fixed, times the gradient of log p."""
    at_V, q_V = logits(7), logits(8).log_softmax(-1)
    reverse_V = gradient(lambda p_V: kl(p_V, q_V), at_V)

    def loss(p_V: Tensor) -> Tensor:
        penalty_V = estimator(p_V - q_V).detach()
        return (p_V.exp().detach() * penalty_V * p_V).sum()

    assert torch.allclose(gradient(loss, at_V), reverse_V, atol=1e-12) is right
