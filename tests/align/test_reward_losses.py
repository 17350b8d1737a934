"""Losses of reward models: numbers of TRL's RewardTrainer, and every order counted by hand."""

import math
from collections import defaultdict
from itertools import permutations
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from matura.align.reward_losses import MAX_TIED, bradley_terry, centring, choices, plackett_luce

CHOSEN = torch.tensor([1.25, -0.5, 30.0, 0.0], dtype=torch.float64)
REJECTED = torch.tensor([0.25, 1.5, -30.0, 0.0], dtype=torch.float64)
GOLDEN = {"plain": 0.7833342197802853, "margin": 1.4123980866992052, "centred": 0.7914592197802853}
MARGIN = torch.tensor([0.5, 1.0, 0.0, 2.0], dtype=torch.float64)


def test_losses_equal_trl() -> None:
    """Recorded with trl 1.16.0 (RewardTrainer.compute_loss), torch 2.13.0."""
    assert bradley_terry(CHOSEN, REJECTED).mean().item() == pytest.approx(GOLDEN["plain"], abs=1e-12)
    assert bradley_terry(CHOSEN, REJECTED, MARGIN).mean().item() == pytest.approx(GOLDEN["margin"], abs=1e-12)
    centred = bradley_terry(CHOSEN, REJECTED) + 0.01 * centring(CHOSEN, REJECTED)
    assert centred.mean().item() == pytest.approx(GOLDEN["centred"], abs=1e-12)


def test_the_golden_numbers_are_trls() -> None:
    trl = pytest.importorskip("trl")
    if not trl.__version__.startswith("1.16."):
        pytest.skip(f"the golden numbers are of TRL 1.16, and this is {trl.__version__}")
    from trl.trainer.reward_trainer import RewardTrainer

    def theirs(centre: float | None = None, **inputs: Tensor) -> float:
        """TRL's loss, of which only the forward pass is replaced."""
        trainer: Any = SimpleNamespace(
            model=SimpleNamespace(training=False),
            args=SimpleNamespace(center_rewards_coefficient=centre),
            accelerator=SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x),
            _metrics={"eval": defaultdict(list)},
            _total_train_tokens=0,
        )
        logits = torch.cat([CHOSEN, REJECTED])[:, None]
        return float(RewardTrainer.compute_loss(trainer, lambda **_: SimpleNamespace(logits=logits), inputs))

    assert theirs() == pytest.approx(GOLDEN["plain"], abs=1e-12)
    assert theirs(margin=MARGIN) == pytest.approx(GOLDEN["margin"], abs=1e-12)
    assert theirs(centre=0.01) == pytest.approx(GOLDEN["centred"], abs=1e-12)


def test_equal_rewards_cost_the_log_of_two_and_far_ones_stay_finite() -> None:
    zero, far = torch.zeros(1), torch.full((1,), 1e4, requires_grad=True)
    assert bradley_terry(zero, zero).item() == pytest.approx(math.log(2))
    loss = bradley_terry(zero, far).sum()
    loss.backward()
    assert loss.item() == 1e4
    assert far.grad is not None
    assert far.grad.item() == 1.0


def by_hand(rewards: list[float], places: list[int]) -> float:
    """The chance of every order that the places allow, summed."""
    total = 0.0
    for order in permutations(range(len(rewards))):
        if [places[i] for i in order] == sorted(places):
            chance = 1.0
            for n, i in enumerate(order):
                chance *= math.exp(rewards[i]) / sum(math.exp(rewards[j]) for j in order[n:])
            total += chance
    return -math.log(total)


@pytest.mark.parametrize(
    "places",
    [[1, 2], [2, 1, 3], [1, 1, 2], [1, 2, 2], [2, 1, 2, 1], [1, 1, 1], [3, 1, 1, 1, 2], [4, 2, 2, 7, 2]],
)
def test_plackett_luce_is_the_sum_over_all_orders(places: list[int]) -> None:
    rewards = [0.3, -1.2, 2.0, 0.9, -0.4][: len(places)]
    x = torch.tensor(rewards, dtype=torch.float64, requires_grad=True)
    loss = plackett_luce(x, places)
    assert loss.item() == pytest.approx(by_hand(rewards, places), abs=1e-12)
    loss.backward()
    assert x.grad is not None
    assert x.grad.sum().item() == pytest.approx(0, abs=1e-12)  # only differences count
    assert torch.autograd.gradcheck(lambda r: plackett_luce(r, places), x)


def test_with_two_answers_it_is_bradley_terry() -> None:
    for chosen, rejected, pair in zip(CHOSEN, REJECTED, bradley_terry(CHOSEN, REJECTED), strict=True):
        assert plackett_luce(torch.stack([rejected, chosen]), [2, 1]).item() == pytest.approx(pair.item())


def test_what_says_nothing_counts_nothing() -> None:
    assert [choices(places) for places in ([1, 2], [1, 2, 3], [1, 1, 2], [1, 2, 2], [1, 1])] == [
        1,
        2,
        2,
        1,
        0,
    ]
    assert plackett_luce(torch.randn(3), [1, 1, 1]).item() == 0
    with pytest.raises(ValueError, match="11 answers share one place"):
        plackett_luce(torch.zeros(MAX_TIED + 2), [1] * (MAX_TIED + 1) + [2])
    with pytest.raises(ValueError, match="2 rewards and 3 places"):
        plackett_luce(torch.zeros(2), [1, 2, 3])
