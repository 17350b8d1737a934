"""Four-bit weights: packed equals the reference, the error is bounded, and nothing in float stays."""

import gc

import pytest
import torch
from torch import nn

from matura.model.int4 import Int4Linear, dequantize, quantize, quantize_reference
from matura.model.layers import Linear


def weights(outputs: int, inputs: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed)) * 0.05


@pytest.mark.parametrize("group", [32, 64])
@pytest.mark.parametrize("inputs", [64, 128, 100, 7])
def test_packed_equals_the_reference(group: int, inputs: int) -> None:
    w = weights(5, inputs)
    codes, scale, minimum = quantize_reference(w, group)
    plain = minimum.float()[..., None] + scale.float()[..., None] * codes.float()
    found = dequantize(*quantize(w, group), inputs)
    torch.testing.assert_close(found, plain.flatten(1)[:, :inputs], rtol=0, atol=1e-6)
    assert codes.max() <= 15
    assert found.is_contiguous()


@pytest.mark.parametrize("group", [32, 64])
def test_no_weight_moves_by_much_more_than_half_a_step(group: int) -> None:
    w = weights(16, 256)
    found = dequantize(*quantize(w, group), 256)
    span = w.unflatten(1, (-1, group)).amax(-1) - w.unflatten(1, (-1, group)).amin(-1)
    error = (found - w).abs().unflatten(1, (-1, group)).amax(-1)
    assert (error <= span / 15).all()
    plain = w.unflatten(1, (-1, group))
    step, least = span[..., None] / 15, plain.amin(-1, keepdim=True)
    naive = least + step * ((plain - least) / step).round()
    assert (found - w).square().sum() < (naive.flatten(1) - w).square().sum()


def test_weights_that_are_all_alike_or_already_on_the_grid_come_back() -> None:
    constant = torch.full((3, 64), 0.125)
    assert torch.equal(dequantize(*quantize(constant, 64), 64), constant)
    grid = torch.arange(64).remainder(16).float().mul(0.25).sub(1).expand(4, 64)
    assert torch.equal(dequantize(*quantize(grid, 64), 64), grid)
    once = dequantize(*quantize(weights(8, 128), 64), 128)
    again = dequantize(*quantize(once, 64), 128)
    assert (again - once).abs().max() < 0.2 * (weights(8, 128) - once).abs().max()


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_computes_with_the_weights_it_stands_for(bias: bool) -> None:
    torch.manual_seed(0)
    base = Linear(64, 24, bias=bias)
    layer = Int4Linear(base, 32)
    plain = nn.Linear(64, 24, bias=bias)
    with torch.no_grad():
        plain.weight.copy_(layer.dense())
        if bias:
            plain.bias.copy_(base.bias)
    x = torch.randn(3, 5, 64, requires_grad=True)
    up = torch.randn(3, 5, 24)
    torch.testing.assert_close(layer(x), plain(x), rtol=1e-5, atol=1e-6)
    (found,) = torch.autograd.grad((layer(x) * up).sum(), x)
    (expected,) = torch.autograd.grad((plain(x) * up).sum(), x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert not any(p.requires_grad for p in layer.parameters())


def floats(size: int) -> int:
    """Float tensors of this many numbers that are alive."""
    gc.collect()
    return sum(
        issubclass(type(one), torch.Tensor) and one.dtype == torch.float32 and one.numel() == size
        for one in gc.get_objects()
    )


def test_the_matrix_is_in_memory_only_while_it_is_used() -> None:
    """Between the forward and the backward pass too: what autograd keeps are the inputs and the packed parts."""
    layer = Int4Linear(Linear(64, 96, bias=False), 64)
    size = 64 * 96
    packed = layer.bytes_OJH.nbytes + layer.scale_OJ.nbytes + layer.minimum_OJ.nbytes
    assert packed * 8 == 4.5 * size
    kept: list[torch.Tensor] = []

    def keep(one: torch.Tensor) -> torch.Tensor:
        kept.append(one)
        return one

    x = torch.randn(2, 64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        y = layer(x)
    assert not any(one.numel() == size and one.is_floating_point() for one in kept)
    assert floats(size) == 0
    y.sum().backward()
    assert floats(size) == 0
    control = layer.dense()
    assert floats(size) > 0
    del control
