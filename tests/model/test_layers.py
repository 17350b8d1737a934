"""The fused functions against their formulas: values and gradients."""

import pytest
import torch

from matura.model import config as c
from matura.model.layers import Gated, RMSNorm, rms_norm_reference, swiglu_reference
from matura.model.position import rotate, rotate_reference, rotation


def random(*shape: int, grad: bool = True) -> torch.Tensor:
    make = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=make, dtype=torch.float64).requires_grad_(grad)


def test_rms_norm_and_its_gradients() -> None:
    norm = RMSNorm(16, c.RMSNorm(eps=1e-3)).double()
    with torch.no_grad():
        norm.weight.copy_(random(16, grad=False))
    x, weight, upstream = random(3, 5, 16), norm.weight, random(3, 5, 16, grad=False)
    expected = torch.autograd.grad((rms_norm_reference(x, weight, 1e-3) * upstream).sum(), (x, weight))
    found = torch.autograd.grad((norm(x) * upstream).sum(), (x, weight))
    torch.testing.assert_close(norm(x), rms_norm_reference(x, weight, 1e-3), rtol=0, atol=1e-12)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_swiglu_and_its_gradients() -> None:
    mlp = Gated(8, c.SwiGLU(hidden=12)).double()
    x = random(4, 8)
    expected = mlp.down(swiglu_reference(mlp.gate(x), mlp.up(x)))
    torch.testing.assert_close(mlp(x), expected, rtol=0, atol=1e-12)
    inputs = (x, *mlp.parameters())
    for a, b in zip(
        torch.autograd.grad(mlp(x).square().sum(), inputs),
        torch.autograd.grad(expected.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize("grad", [True, False])
def test_rotate_and_its_gradient(grad: bool) -> None:
    turn = rotation(c.Rope(theta=100.0), torch.arange(7)[None], 8, torch.float64)
    x = random(2, 7, 3, 8)
    with torch.set_grad_enabled(grad):
        found = rotate(x, turn)
    torch.testing.assert_close(found, rotate_reference(x, turn), rtol=0, atol=1e-14)
    if grad:
        upstream = random(2, 7, 3, 8, grad=False)
        (expected,) = torch.autograd.grad((rotate_reference(x, turn) * upstream).sum(), x)
        torch.testing.assert_close(
            torch.autograd.grad((found * upstream).sum(), x)[0], expected, rtol=0, atol=1e-14
        )


def test_rotation_depends_on_distance_only() -> None:
    q, k = random(1, 1, 1, 8, grad=False), random(1, 1, 1, 8, grad=False)
    dots = []
    for start in (0, 1000):
        turns = [rotation(c.Rope(), torch.tensor([[start + d]]), 8, torch.float64) for d in (0, 5)]
        dots.append((rotate_reference(q, turns[0]) * rotate_reference(k, turns[1])).sum())
    torch.testing.assert_close(dots[0], dots[1], rtol=0, atol=1e-10)
