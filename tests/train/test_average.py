"""The running average of weights."""

import pytest
import torch
from torch import nn

from matura.core.settings import OptimizerConfig
from matura.train import average
from matura.train.muon import Muon


def _trained(kind: str, steps: int) -> tuple[nn.Parameter, torch.optim.Optimizer, list[torch.Tensor]]:
    weight = nn.Parameter(torch.ones(3, 4))
    groups = [{"params": [weight], "orthogonal": True}]
    optimizer = Muon(groups, lr=0.1) if kind == "muon" else torch.optim.AdamW([weight], lr=0.1)
    seen = []
    for step in range(1, steps + 1):
        weight.grad = torch.full_like(weight, float(step))
        optimizer.step()
        average.update(optimizer, step, 0.9)
        seen.append(weight.detach().clone())
    return weight, optimizer, seen


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_it_is_the_weighted_sum_of_what_was(kind: str) -> None:
    weight, optimizer, seen = _trained(kind, 6)
    wanted = seen[0]
    for step, one in enumerate(seen[1:], start=2):
        kept = min(0.9, (1 + step) / (10 + step))
        wanted = kept * wanted + (1 - kept) * one
    own = weight.detach().clone()
    with average.averaged(optimizer):
        torch.testing.assert_close(weight.detach(), wanted)
        assert not torch.equal(weight.detach(), own)
    assert torch.equal(weight.detach(), own)


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_it_changes_no_update(kind: str) -> None:
    weight, _, _ = _trained(kind, 5)
    plain = nn.Parameter(torch.ones(3, 4))
    groups = [{"params": [plain], "orthogonal": True}]
    optimizer = Muon(groups, lr=0.1) if kind == "muon" else torch.optim.AdamW([plain], lr=0.1)
    for step in range(1, 6):
        plain.grad = torch.full_like(plain, float(step))
        optimizer.step()
    assert torch.equal(weight, plain)


def test_without_an_average_nothing_is_swapped() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    average.update(optimizer, 1, 0.9)  # nothing was ever updated
    with average.averaged(optimizer):
        assert torch.equal(weight, torch.ones(2))
    weight.grad = torch.ones(2)
    optimizer.step()  # and the optimizer still starts from nothing
    assert float(weight[0].detach()) < 1


def test_the_settings_know_it() -> None:
    assert OptimizerConfig().average == 0
    assert OptimizerConfig(average=0.99).average == 0.99
