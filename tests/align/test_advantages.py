"""Advantages against sums written out, and what must not leak from one answer into another."""

import math

import pytest
import torch

from matura.align.advantages import explained_variance, gae, whiten

LENGTHS = (5, 1, 7, 3)


def numbers(seed: int, count: int = sum(LENGTHS)) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(rewards: list[float], values: list[float], gamma: float, lam: float, after: float) -> list[float]:
    """sum over l of (gamma lam)^l delta_(t+l), every sum anew."""
    following = [*values[1:], after]
    deltas = [r + gamma * n - v for r, n, v in zip(rewards, following, values, strict=True)]
    return [
        sum((gamma * lam) ** k * delta for k, delta in enumerate(deltas[t:])) for t in range(len(rewards))
    ]


@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("lam", [0.0, 0.95, 1.0])
@pytest.mark.parametrize("after", [(0.0,) * 4, (0.0, 2.0, -1.5, 0.0)])
def test_every_estimate_is_the_discounted_sum_of_its_errors(
    gamma: float, lam: float, after: tuple[float, ...]
) -> None:
    """T23: against brute force, for answers that are over and that were cut off."""
    rewards_N, values_N = numbers(1), numbers(2)
    found_N, returns_N = gae(rewards_N, values_N, LENGTHS, gamma=gamma, lam=lam, after_S=after)
    expected = [
        one
        for rewards, values, end in zip(rewards_N.split(LENGTHS), values_N.split(LENGTHS), after, strict=True)
        for one in by_hand(rewards.tolist(), values.tolist(), gamma, lam, end)
    ]
    assert found_N.tolist() == pytest.approx(expected, abs=1e-12)
    assert returns_N.tolist() == pytest.approx((found_N + values_N).tolist(), abs=1e-12)


def test_lambda_one_is_what_came_and_lambda_zero_is_one_step() -> None:
    """T23: the two ends of lambda."""
    rewards_N, values_N = numbers(3), numbers(4)
    _, returns_N = gae(rewards_N, values_N, LENGTHS, gamma=1.0, lam=1.0)
    to_go = torch.cat([part.flip(0).cumsum(0).flip(0) for part in rewards_N.split(LENGTHS)])
    assert torch.allclose(returns_N, to_go)
    one_N, _ = gae(rewards_N, values_N, LENGTHS, gamma=0.5, lam=0.0, after_S=(3.0,) * 4)
    following = torch.cat([torch.cat([part[1:], torch.tensor([3.0])]) for part in values_N.split(LENGTHS)])
    assert torch.allclose(one_N, rewards_N + 0.5 * following - values_N)


def test_a_cut_answer_goes_on_with_the_value_behind_it() -> None:
    """T23: a truncated episode bootstraps."""
    rewards_N, values_N = torch.zeros(4), torch.zeros(4)
    over_N, _ = gae(rewards_N, values_N, (4,), lam=1.0)
    cut_N, returns_N = gae(rewards_N, values_N, (4,), gamma=0.5, lam=1.0, after_S=(8.0,))
    assert over_N.tolist() == [0, 0, 0, 0]
    assert cut_N.tolist() == returns_N.tolist() == [0.5, 1, 2, 4]


def test_no_answer_depends_on_what_lies_beside_it() -> None:
    """T22: whatever stands there, not a number included."""
    rewards_N, values_N = numbers(5), numbers(6)
    whole_N, _ = gae(rewards_N, values_N, LENGTHS)
    for other in (math.inf, 1e30, -7.0):
        dirty_N, strange_N = rewards_N.clone(), values_N.clone()
        dirty_N[:6], strange_N[:6] = other, other
        dirty_N[13:], strange_N[13:] = other, other
        found_N, _ = gae(dirty_N, strange_N, LENGTHS)
        assert torch.equal(found_N[6:13], whole_N[6:13])
    alone_N, _ = gae(rewards_N[6:13], values_N[6:13], (7,))
    assert torch.equal(alone_N, whole_N[6:13])


def test_lengths_must_cover_the_tokens() -> None:
    with pytest.raises(ValueError, match="5 rewards, 5 values and 4 tokens"):
        gae(torch.zeros(5), torch.zeros(5), (4,))


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (4.15, 1.0), (-300.0, 0.01), (1e3, 1e3)])
def test_whitened_is_centred_and_scaled(mean: float, deviation: float) -> None:
    """T21: the mean is not added back: advantages are centred."""
    white_N = whiten((numbers(7, 4000) * deviation + mean).float())
    assert float(white_N.double().mean()) == pytest.approx(0, abs=1e-5)
    assert float(white_N.double().std(correction=0)) == pytest.approx(1, abs=1e-5)


def test_nothing_to_tell_apart_gives_no_advantage() -> None:
    assert whiten(torch.full((9,), 0.1)).tolist() == [0] * 9
    assert whiten(torch.tensor([3.0])).tolist() == [0]


def test_explained_variance() -> None:
    returns_N = numbers(8, 500)
    assert explained_variance(returns_N, returns_N) == 1
    assert explained_variance(torch.full_like(returns_N, 5.0), returns_N) == pytest.approx(0, abs=1e-12)
    assert explained_variance(returns_N + 3, returns_N) == 1  # a constant error explains all the same
    assert explained_variance(-returns_N, returns_N) == pytest.approx(-3)
    assert math.isnan(explained_variance(returns_N[:4], torch.ones(4)))
