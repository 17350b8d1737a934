"""Muon: orthogonal updates, against torch's own Muon and AdamW, and what it is for."""

import copy

import pytest
import torch
from torch import Tensor, nn

from matura.core.settings import OptimizerConfig
from matura.train import muon
from matura.train.muon import Muon, orthogonalize, orthogonalize_reference
from matura.train.optim import build_optimizer
from tests.model.tiny import build, llama_config, some_ids


def _matrices(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(2, 16, 16), (3, 8, 40), (1, 40, 8)])
def test_singular_values_come_near_one_and_directions_stay(shape: tuple[int, ...]) -> None:
    stacked_MIO = _matrices(*shape)
    values = torch.linalg.svdvals(orthogonalize(stacked_MIO, steps=10))
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.25
    for one, made in zip(stacked_MIO, orthogonalize(stacked_MIO, steps=10), strict=True):
        wanted = orthogonalize_reference(one)
        assert float((made * wanted).sum() / made.norm() / wanted.norm()) > 0.97


def test_a_matrix_does_not_depend_on_its_neighbours() -> None:
    stacked_MIO = _matrices(4, 12, 20)
    together = orthogonalize(stacked_MIO)
    apart = torch.cat([orthogonalize(one[None]) for one in stacked_MIO])
    torch.testing.assert_close(together, apart, rtol=1e-10, atol=1e-12)


def test_the_updates_are_those_of_torch() -> None:
    ours, theirs = nn.Parameter(_matrices(24, 16).float()), nn.Parameter(_matrices(24, 16).float())
    mine = Muon([{"params": [ours], "orthogonal": True}], lr=0.01, weight_decay=0.1)
    peer = torch.optim.Muon([theirs], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for seed in range(4):
        gradient = torch.randn(24, 16, generator=torch.Generator().manual_seed(seed))
        before = theirs.detach().clone()
        ours.grad, theirs.grad = gradient, gradient.clone()
        mine.step()
        peer.step()
        moved = (theirs.detach() - before).norm()
        assert float((ours.detach() - theirs.detach()).norm()) < 0.02 * (seed + 1) * float(
            moved
        )  # theirs is bfloat16


def test_other_groups_get_adamw_to_the_last_digits() -> None:
    ours, theirs = nn.Parameter(_matrices(6, 5)), nn.Parameter(_matrices(6, 5))
    settings = {"lr": 0.02, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.3}
    mine, peer = Muon([{"params": [ours]}], **settings), torch.optim.AdamW([theirs], **settings)
    for seed in range(5):
        gradient = torch.randn(6, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        ours.grad, theirs.grad = gradient, gradient.clone()
        mine.step()
        peer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_matrices_of_blocks_are_orthogonalized_and_tables_are_not() -> None:
    model = build(llama_config(tied=False))
    matrices, tables, vectors = build_optimizer(model, OptimizerConfig(kind="muon")).param_groups
    assert matrices["orthogonal"]
    assert not tables["orthogonal"]
    assert {id(p) for p in tables["params"]} == {id(model.embed.weight), id(model.head.weight)}
    assert vectors["weight_decay"] == 0
    groups = (matrices, tables, vectors)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_a_stored_state_goes_on_as_if_never_stored() -> None:
    model = build(llama_config(), dtype=torch.float32, scale=1.0)
    config = OptimizerConfig(kind="muon", lr=0.01)
    optimizer = build_optimizer(model, config)

    def update(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        model.logits(model.decode(some_ids(2, 8))).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    update(model, optimizer)
    again = copy.deepcopy(model)
    other = build_optimizer(again, config)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    update(model, optimizer)
    update(again, other)
    for one, two in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)


def test_few_matrices_at_a_time_make_the_same_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held for the iteration is bounded, however many matrices of one shape a model has."""
    sizes, made, iterate = [], [], muon.orthogonalize

    def noting(stacked: Tensor, steps: int) -> Tensor:
        sizes.append(stacked.numel())
        return iterate(stacked, steps)

    monkeypatch.setattr(muon, "orthogonalize", noting)
    for together in (muon.TOGETHER, 300):
        monkeypatch.setattr(muon, "TOGETHER", together)
        draw = torch.Generator().manual_seed(0)
        weights = [nn.Parameter(torch.randn(8, 16, generator=draw)) for _ in range(5)]
        for weight in weights:
            weight.grad = torch.randn(8, 16, generator=draw)
        Muon([{"params": weights, "orthogonal": True}], lr=0.1).step()
        made.append(torch.stack([weight.detach() for weight in weights]))
    assert sizes == [640, 256, 256, 128]
    torch.testing.assert_close(made[0], made[1])


def test_it_learns_an_ill_conditioned_map_faster_than_adamw() -> None:
    """The control is AdamW at its own best rate: directions of small gradients are what Muon does not neglect."""

    def left(kind: str, lr: float) -> float:
        torch.manual_seed(0)
        turned = torch.linalg.qr(torch.randn(32, 32))[0]  # no coordinate is a direction of its own
        x, wanted = torch.randn(512, 32) * torch.logspace(0, -2, 32) @ turned, torch.randn(32, 32)
        weight = nn.Parameter(torch.zeros(32, 32))
        groups = [{"params": [weight], "orthogonal": kind == "muon"}]
        optimizer = Muon(groups, lr=lr)
        for step in range(200):
            optimizer.param_groups[0]["lr"] = lr * (1 - step / 200)
            (x @ (weight - wanted)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        return float((weight.detach() - wanted).square().mean())

    rates = (0.003, 0.01, 0.03, 0.1, 0.3)
    assert min(left("muon", lr) for lr in rates) < 0.8 * min(left("adamw", lr) for lr in rates)
