"""KL as a loss: the plain formula and its gradients, chunk by chunk, and exactly nothing between equal models."""

import pytest
import torch
from torch import Tensor

from matura.model import divergence
from matura.model.divergence import kl_divergence, kl_divergence_reference
from matura.model.heads import Unembedding

N, D, E, V = 13, 6, 5, 19


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergence, "CHUNK", 4)


def parts(
    bias: bool, softcap: float | None
) -> tuple[list[Tensor], float | None, Tensor, Unembedding, Tensor]:
    given = [draw(N, D, seed=1), draw(V, D, seed=2), *([draw(V, seed=3)] if bias else [])]
    for one in given:
        one.requires_grad_()
    return given, softcap, draw(N, E, seed=4), Unembedding(draw(V, E, seed=5)), draw(N, seed=6).abs()


@pytest.mark.parametrize(("bias", "softcap"), [(False, None), (True, None), (True, 2.0)])
def test_value_and_gradients_are_those_of_the_plain_formula(bias: bool, softcap: float | None) -> None:
    given, softcap, parent_NE, parent_head, weights_N = parts(bias, softcap)
    found = []
    for function in (kl_divergence, kl_divergence_reference):
        head = Unembedding(given[1], given[2] if bias else None, softcap)
        total = function(given[0], head, parent_NE, parent_head, weights_N)
        found.append((total, *torch.autograd.grad(3 * total, given)))
    for mine, plain in zip(*found, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-10, atol=1e-12)
    assert float(found[0][0].detach()) > 1


def test_the_gradient_is_that_of_finite_differences() -> None:
    given, _, parent_NE, parent_head, weights_N = parts(False, None)

    def total(x_ND: Tensor, weight_VD: Tensor) -> Tensor:
        return kl_divergence(x_ND, Unembedding(weight_VD), parent_NE, parent_head, weights_N)

    assert torch.autograd.gradcheck(total, given)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_models_are_exactly_zero_apart_and_give_no_gradient(dtype: torch.dtype) -> None:
    x_ND = draw(N, D, seed=1).to(dtype).requires_grad_()
    head = Unembedding(draw(V, D, seed=2).to(dtype).requires_grad_())
    total = kl_divergence(x_ND, head, x_ND.detach(), head, torch.ones(N, dtype=dtype))
    assert float(total.detach()) == 0.0
    gradients = torch.autograd.grad(total, [x_ND, head.weight_VD])
    assert all(not one.any() for one in gradients)


def test_a_frozen_head_gets_no_gradient_and_no_positions_give_a_connected_zero() -> None:
    x_ND = draw(N, D, seed=1).requires_grad_()
    head, parent_NE = Unembedding(draw(V, D, seed=2)), draw(N, D, seed=3)
    kl_divergence(x_ND, head, parent_NE, head, torch.ones(N)).backward()
    assert x_ND.grad is not None
    assert x_ND.grad.any()
    assert head.weight_VD.grad is None
    empty = kl_divergence(x_ND[:0], head, parent_NE[:0], head, torch.ones(0))
    assert float(empty.detach()) == 0.0
    empty.backward()
