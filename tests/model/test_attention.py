"""The fast attention paths against the formula."""

import pytest
import torch

from matura.model.attention import Packed, Rule, allowed, attend, attend_reference, spans


def qkv(batch: int, T: int, S: int, heads: int = 4, kv_heads: int = 2) -> tuple[torch.Tensor, ...]:
    make = torch.Generator().manual_seed(0)
    shapes = [(batch, heads, T, 8), (batch, kv_heads, S, 8), (batch, kv_heads, S, 8)]
    return tuple(torch.randn(shape, generator=make, dtype=torch.float64) for shape in shapes)


PADDING = torch.tensor([[False, False, True, True, True, True], [True] * 6])


@pytest.mark.parametrize(
    ("T", "S", "causal", "mask"),
    [
        (6, 6, True, None),
        (6, 6, False, None),
        (6, 6, True, PADDING),
        (6, 6, False, PADDING),
        (2, 6, True, None),  # two new tokens on four cached ones
        (2, 6, True, PADDING),
        (1, 6, True, None),
        (1, 6, True, PADDING),
        (1, 6, False, PADDING),
    ],
)
def test_equals_the_reference(T: int, S: int, causal: bool, mask: torch.Tensor | None) -> None:
    q, k, v = qkv(2, T, S)
    expected, weights = attend_reference(q, k, v, Rule(causal), mask=mask)
    found = attend(q, k, v, Rule(causal), mask=mask)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    sums = weights.sum(-1)
    assert ((sums - 1).abs().lt(1e-12) | sums.eq(0)).all()


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("lengths", [(6,), (3, 3), (2, 3, 1), (1, 1, 4), (2, 2, 2)])
def test_packed_equals_the_reference(lengths: tuple[int, ...], causal: bool) -> None:
    q, k, v = qkv(1, 6, 6)
    mask = Packed(lengths)
    expected, _ = attend_reference(q, k, v, Rule(causal), mask=mask)
    torch.testing.assert_close(attend(q, k, v, Rule(causal), mask=mask), expected, rtol=0, atol=1e-12)


def test_a_causal_query_sees_no_later_key() -> None:
    allow = allowed(3, 5, Rule(True))
    assert allow is not None
    assert allow[0, 0].tolist() == [
        [True, True, True, False, False],
        [True, True, True, True, False],
        [True, True, True, True, True],
    ]


def test_packed_positions_start_anew() -> None:
    assert Packed((2, 3)).positions().tolist() == [[0, 1, 0, 1, 2]]
    assert spans((2, 3, 1)) == [(0, 2), (2, 5), (5, 6)]


@pytest.mark.parametrize("causal", [True, False])
def test_continuations_of_one_parent_equal_the_reference(causal: bool) -> None:
    q, k, v = qkv(1, 9, 9)
    mask = Packed((3, 2, 1, 2, 1), (None, 0, 0, None, 3))
    assert mask.positions().tolist() == [[0, 1, 2, 3, 4, 3, 0, 1, 2]]
    expected, _ = attend_reference(q, k, v, Rule(causal), mask=mask)
    torch.testing.assert_close(attend(q, k, v, Rule(causal), mask=mask), expected, rtol=0, atol=1e-12)
