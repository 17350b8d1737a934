"""Attention in blocks of queries against the formula, in values and gradients."""

import pytest
import torch

from matura.model.attention import Rule, attend, attend_reference
from matura.model.blockwise import BLOCK, KEPT, causal_attention


def qkv(T: int, heads: int, kv_heads: int, *, transposed: bool) -> list[torch.Tensor]:
    make = torch.Generator().manual_seed(0)
    tensors = []
    for h in (heads, kv_heads, kv_heads, heads):
        shape = (2, T, h, 8) if transposed else (2, h, T, 8)
        tensor = torch.randn(shape, generator=make, dtype=torch.float64)
        tensors.append((tensor.transpose(1, 2) if transposed else tensor).requires_grad_())
    return tensors


@pytest.mark.parametrize("kept", [0, 2 * BLOCK, 3 * BLOCK])
@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize("T", [1, BLOCK, BLOCK + 1, 2 * BLOCK + 5])
def test_equals_the_formula(
    T: int, heads: int, kv_heads: int, transposed: bool, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("matura.model.blockwise.KEPT", kept)
    q, k, v, upstream = qkv(T, heads, kv_heads, transposed=transposed)
    found = causal_attention(q, k, v, 0.3)
    expected, _ = attend_reference(q, k, v, Rule(causal=True, scale=0.3))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad((out * upstream).sum(), (q, k, v)) for out in (found, expected)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_long_causal_sequences_take_this_way(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v, _ = qkv(BLOCK + 1, 4, 2, transposed=False)
    taken = []
    monkeypatch.setattr("matura.model.attention.causal_attention", lambda *args: taken.append(args[3]))
    attend(q, k, v, Rule(causal=True))
    assert taken == [8**-0.5]
    attend(q, k, v, Rule(causal=True, window=5))
    attend(q, k, v, Rule(causal=False))
    assert len(taken) == 1


def test_weights_of_short_sequences_are_kept_for_backward_and_only_for_it() -> None:
    def kept(T: int, grad: bool) -> int:
        q, k, v, _ = qkv(T, 4, 2, transposed=False)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()), lambda x: x):
            causal_attention(*(x.detach().requires_grad_(grad) for x in (q, k, v)), 0.3)
        return sum(sizes) - q.numel() - k.numel() - v.numel() if grad else sum(sizes)

    T = 2 * BLOCK
    assert kept(T, True) == 2 * 4 * BLOCK * (
        BLOCK + T
    )  # sequences, heads, queries of a block, keys of both blocks
    assert kept(KEPT + 1, True) == 0
    assert kept(T, False) == 0
