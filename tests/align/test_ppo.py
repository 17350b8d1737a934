"""The losses of PPO against written formulas and by hand, where the reward lies, and what is counted."""

import math

import pytest
import torch
from torch import Tensor

from matura.align.ppo import Clips, Tally, policy_loss, ratios, token_rewards, value_loss

CLIPS = Clips(low=0.2, high=0.3, value=0.5)


def numbers(seed: int, count: int = 40, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_score_lies_at_the_last_token_and_every_token_pays() -> None:
    """T24: the score is at the stop token, not behind it."""
    drift_N = torch.tensor([0.1, 0.2, -0.3, 0.4, 0.5, 0.6])
    found_N = token_rewards([1.0, -2.0, 3.0], drift_N, (3, 1, 2), 0.5)
    assert found_N.tolist() == pytest.approx([-0.05, -0.1, 0.15 + 1, -0.2 - 2, -0.25, -0.3 + 3])
    assert token_rewards([1.0], torch.tensor([9.0]), (1,), 0.0).tolist() == [1.0]


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.25, 2.0, -2.5, -2.0),  # inside
        (1.5, 2.0, -2.6, 0.0),  # gone far enough
        (0.5, 2.0, -1.0, -2.0),  # a bad step is undone from anywhere
        (0.9, -2.0, 1.8, 2.0),
        (0.5, -2.0, 1.6, 0.0),
        (1.5, -2.0, 3.0, 2.0),
    ],
)
def test_the_clipped_surrogate_by_hand(ratio: float, advantage: float, loss: float, slope: float) -> None:
    at_1 = torch.tensor([ratio], requires_grad=True)
    found_1 = policy_loss(at_1, torch.tensor([advantage]), CLIPS)
    assert found_1.item() == pytest.approx(loss)
    (by_1,) = torch.autograd.grad(found_1.sum(), at_1)
    assert by_1.item() == pytest.approx(slope)


def test_values_are_kept_near_those_of_the_rollout() -> None:
    """T24: not near those of the update before: then the clip would let them walk away step by step."""
    values_N, rollout_N, returns_N = numbers(1), numbers(2), numbers(3)
    found_N = value_loss(values_N, rollout_N, returns_N, CLIPS)
    expected = [
        0.5 * max((v - r) ** 2, (min(max(v, o - 0.5), o + 0.5) - r) ** 2)
        for v, o, r in zip(values_N.tolist(), rollout_N.tolist(), returns_N.tolist(), strict=True)
    ]
    assert found_N.tolist() == pytest.approx(expected)
    free_N = value_loss(values_N, rollout_N, returns_N, Clips(value=None))
    assert torch.equal(free_N, (values_N - returns_N).square() / 2)
    assert bool((found_N >= free_N).all())
    assert bool((found_N > free_N).any())


def test_a_value_that_has_moved_far_enough_gets_no_gradient() -> None:
    value_1 = torch.tensor([0.8], requires_grad=True)
    loss_1 = value_loss(value_1, torch.tensor([0.0]), torch.tensor([2.0]), CLIPS)
    (slope_1,) = torch.autograd.grad(loss_1.sum(), value_1)
    assert slope_1.item() == 0
    beyond_1 = torch.tensor([2.8], requires_grad=True)  # past the return: it may come back
    loss_1 = value_loss(beyond_1, torch.tensor([0.0]), torch.tensor([0.4]), CLIPS)
    (slope_1,) = torch.autograd.grad(loss_1.sum(), beyond_1)
    assert slope_1.item() == pytest.approx(2.4)


def test_ratios_are_numbers_however_far_apart() -> None:
    far_N = torch.tensor([0.0, -1e4, 3.0])
    found_N = ratios(far_N, torch.tensor([-1e4, 0.0, 3.0]))
    assert found_N.tolist() == pytest.approx([math.exp(20), math.exp(-20), 1.0])


def test_unmoved_the_gradient_is_that_of_plain_policy_gradient() -> None:
    logprobs_N, advantages_N = numbers(4).requires_grad_(), numbers(5)
    loss = policy_loss(ratios(logprobs_N, logprobs_N.detach()), advantages_N, CLIPS).sum()
    (slope_N,) = torch.autograd.grad(loss, logprobs_N)
    assert torch.allclose(slope_N, -advantages_N)


def counted(pieces: int) -> Tally:
    logprobs_N, rollout_N, advantages_N = numbers(6, scale=0.3), numbers(7, scale=0.3), numbers(8)
    values_N, old_N, returns_N, entropy_N = numbers(9), numbers(10), numbers(11), numbers(12).abs()
    tally = Tally()
    for part in torch.arange(40).chunk(pieces):
        ratio_N = ratios(logprobs_N[part], rollout_N[part])
        tally.add(
            CLIPS,
            ratio_N,
            advantages_N[part],
            values_N[part] - old_N[part],
            policy_loss=policy_loss(ratio_N, advantages_N[part], CLIPS),
            value_loss=value_loss(values_N[part], old_N[part], returns_N[part], CLIPS),
            policy_entropy=entropy_N[part],
        )
    return tally


def test_means_are_over_tokens_whatever_the_pieces() -> None:
    whole = counted(1).means()
    for pieces in (3, 8):
        assert counted(pieces).means() == pytest.approx(whole)
    d_N = numbers(6, scale=0.3) - numbers(7, scale=0.3)
    assert whole["approx_kl"] == pytest.approx(float((d_N.exp() - 1 - d_N).mean()))
    assert whole["ratio"] == pytest.approx(float(d_N.exp().mean()))
    assert whole["ratio_variance"] == pytest.approx(float(d_N.exp().var(correction=0)))
    assert 0 < whole["clip_share_low"] < 1
    assert whole["policy_entropy"] == pytest.approx(float(numbers(12).abs().mean()))
    assert whole["value_clip_share"] == pytest.approx(
        float(((numbers(9) - numbers(10)).abs() > 0.5).double().mean())
    )
    assert Tally().means() == {}


def test_what_is_called_clipped_is_what_has_no_gradient() -> None:
    ratio_N, advantages_N = ratios(numbers(13, scale=0.4), torch.zeros(40)), numbers(14)
    at_N = ratio_N.clone().requires_grad_()
    loss_N = policy_loss(at_N, advantages_N, CLIPS)
    (slope_N,) = torch.autograd.grad(loss_N.sum(), at_N)
    tally = Tally()
    zeros_N = torch.zeros_like(ratio_N)
    tally.add(CLIPS, ratio_N, advantages_N, zeros_N)
    assert tally.sums["clip_share_low"] + tally.sums["clip_share_high"] == int((slope_N == 0).sum()) > 0
