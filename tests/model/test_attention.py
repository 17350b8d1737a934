"""The fast attention paths against the formula."""

import pytest
import torch

from matura.model.attention import Mask, Packed, Rule, allowed, attend, attend_reference, spans
from matura.model.bias import distances


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


@pytest.mark.parametrize("causal", [True, False])
def test_a_continuation_sees_all_that_its_parent_continues(causal: bool) -> None:
    q, k, v = qkv(1, 9, 9)
    mask = Packed((2, 3, 1, 2, 1), (None, 0, 1, 1, 0))
    assert mask.positions().tolist() == [[0, 1, 2, 3, 4, 5, 5, 6, 2]]
    assert mask.line(3) == (0, 1, 3)
    expected, _ = attend_reference(q, k, v, Rule(causal), mask=mask)
    torch.testing.assert_close(attend(q, k, v, Rule(causal), mask=mask), expected, rtol=0, atol=1e-12)
    alone = [0, 1, 2, 3, 4, 6, 7]  # the first, the second and the fourth sequence, without the others
    one, _ = attend_reference(q[:, :, alone], k[:, :, alone], v[:, :, alone], Rule(causal))
    if causal:
        torch.testing.assert_close(expected[:, :, [6, 7]], one[:, :, 5:], rtol=0, atol=1e-12)


def test_rows_are_joined_and_cut_with_their_lines() -> None:
    rows = [Packed((2, 1), (None, 0)), Packed((4,)), Packed((3, 2, 1), (None, 0, 0))]
    whole = Packed.joined(rows)
    assert whole == Packed((2, 1, 4, 3, 2, 1), (None, 0, None, None, 3, 3))
    assert whole.part(3, 6) == rows[2]
    assert Packed.joined(rows[1:2] * 2) == Packed((4, 4))
    with pytest.raises(ValueError, match="cannot continue"):
        whole.part(4, 6)


PACKED = Packed((2, 3, 1))
CONTINUED = Packed((2, 1, 2, 1), (None, 0, 0, None))
MASKS: dict[str, Mask] = {
    "none": None,
    "left": torch.tensor([[False] * 4 + [True] * 2, [True] * 6]),
    "right": torch.tensor([[True] * 6, [True] * 3 + [False] * 3]),
    "nothing": torch.tensor([[True] * 6, [False] * 6]),
    "packed": PACKED,
    "continued": CONTINUED,
}


def by_hand(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rule: Rule, mask: Mask, bias: torch.Tensor | None
) -> torch.Tensor:
    """One query and one key at a time; `bias` is by head and distance (key minus query, counted from -6)."""
    (B, H, T, K), (G, S) = q.shape, k.shape[1:3]
    sequence, position, above = [0] * S, list(range(S)), [None]
    if isinstance(mask, Packed):
        sequence = [i for i, length in enumerate(mask.lengths) for _ in range(length)]
        position, above = mask.positions()[0].tolist(), [mask.parent(i) for i in range(len(mask.lengths))]
    rows = []
    for b in range(B):
        for h in range(H):
            for t in range(S - T, S):
                scores, values = [], []
                for s in range(S):
                    if sequence[s] not in (sequence[t], above[sequence[t]]):
                        continue
                    if isinstance(mask, torch.Tensor) and not mask[b, s]:
                        continue
                    far = position[s] - position[t]
                    if (rule.causal and far > 0) or (rule.window and abs(far) >= rule.window):
                        continue
                    scale = K**-0.5 if rule.scale is None else rule.scale
                    score = q[b, h, t - S + T].dot(k[b, h * G // H, s]) * scale
                    if rule.softcap is not None:
                        score = rule.softcap * torch.tanh(score / rule.softcap)
                    scores.append(score if bias is None else score + bias[h, far + 6])
                    values.append(v[b, h * G // H, s])
                zero = q[b, h, 0] * 0
                rows.append(torch.stack(scores).softmax(0) @ torch.stack(values) if scores else zero)
    return torch.stack(rows).view(B, H, T, K)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("T", "causal"), [(6, True), (6, False), (2, True), (1, True), (1, False)])
@pytest.mark.parametrize("window", [None, 2, 9])
def test_every_rule_is_the_formula_in_values_and_gradients(
    mask: str, T: int, causal: bool, window: int | None
) -> None:
    seen = MASKS[mask]
    if isinstance(seen, Packed) and T < 6:
        return  # a packed row has no cache
    make = torch.Generator().manual_seed(1)
    table = torch.randn(4, 13, generator=make, dtype=torch.float64)

    def bias(T: int, S: int) -> torch.Tensor:
        return table[:, distances(T, S) + 6][None]

    options = [(4, None, None, False), (2, 0.3, None, True), (1, None, 1.5, False), (2, 0.3, 1.5, True)]
    for kv_heads, scale, softcap, biased in options:
        rule = Rule(causal, window, scale, softcap)
        inputs = qkv(1 if isinstance(seen, Packed) else 2, T, 6, kv_heads=kv_heads)
        for x in inputs:
            x.requires_grad_()
        expected = by_hand(*inputs, rule, seen, table if biased else None)
        upstream = torch.randn(expected.shape, generator=make, dtype=torch.float64)
        gradients = torch.autograd.grad(expected, inputs, upstream)
        more = {"mask": seen, "bias": bias if biased else None}
        for found in (attend(*inputs, rule, **more), attend_reference(*inputs, rule, **more)[0]):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
            for a, b in zip(torch.autograd.grad(found, inputs, upstream), gradients, strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
        with torch.no_grad():
            torch.testing.assert_close(attend(*inputs, rule, **more), expected, rtol=0, atol=1e-12)


def test_a_window_counts_along_the_parent() -> None:
    allow = allowed(6, 6, Rule(True, window=2), CONTINUED)
    assert allow is not None
    assert [row.nonzero().flatten().tolist() for row in allow[0, 0]] == [
        [0],
        [0, 1],
        [1, 2],
        [1, 3],
        [3, 4],
        [5],
    ]


@pytest.mark.parametrize("mask", ["none", "left", "packed"])
def test_dropout_keeps_the_expectation(mask: str) -> None:
    torch.manual_seed(0)
    seen = MASKS[mask]
    q, k, v = qkv(1 if mask == "packed" else 2, 6, 6)
    plain = attend(q, k, v, Rule(True), mask=seen)
    for way in (attend, lambda *args, **more: attend_reference(*args, **more)[0]):
        draws = torch.stack([way(q, k, v, Rule(True, dropout=0.3), mask=seen) for _ in range(300)])
        assert (draws[0] - draws[1]).abs().max() > 0.1
        error = (draws.mean(0) - plain).abs() / (draws.std(0) / 300**0.5 + 1e-9)
        assert error.max() < 5


@pytest.mark.parametrize(
    ("lengths", "parents"), [((2, 2), (1, None)), ((2, 2), (None,)), ((1, 1, 1), (None, 0, 2))]
)
def test_packings_that_make_no_sense_are_refused(
    lengths: tuple[int, ...], parents: tuple[int | None, ...]
) -> None:
    with pytest.raises(ValueError, match="packed"):
        Packed(lengths, parents)
