"""Positions that are added to scores: T5's buckets against transformers, ALiBi against its paper."""

import math

import pytest
import torch
from transformers.models.t5.modeling_t5 import T5Attention

from matura.model import config as c
from matura.model.attention import Packed, Rule, attend
from matura.model.bias import AlibiBias, RelativeBias, alibi_slopes, build_bias, distances
from tests.model.tiny import build, gpt_stack, some_ids


@pytest.mark.parametrize("max_distance", [20, 128, 500])
@pytest.mark.parametrize("buckets", [4, 8, 31, 32])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("T", "S"), [(300, 300), (1, 700), (3, 40)])
def test_buckets_are_those_of_transformers(
    T: int, S: int, causal: bool, buckets: int, max_distance: int
) -> None:
    bias = RelativeBias(2, c.RelativeBias(buckets=buckets, max_distance=max_distance), causal)
    with torch.no_grad():
        bias.weight.copy_(torch.arange(2 * buckets).view(buckets, 2))
    expected = T5Attention._relative_position_bucket(distances(T, S), not causal, buckets, max_distance)
    assert torch.equal(bias(T, S)[0, 0].long(), 2 * expected)
    assert torch.equal(bias(T, S)[0, 1].long(), 2 * expected + 1)
    assert bias(T, S).shape == (1, 2, T, S)


def test_distances_count_from_the_last_queries() -> None:
    assert distances(2, 4).tolist() == [[-2, -1, 0, 1], [-3, -2, -1, 0]]


def paper_slopes(heads: int) -> list[float]:
    """Section 3: 2^(-8/n), 2^(-16/n), ...; otherwise those of the power of two below, then every other one of the
    power above."""
    if math.log2(heads).is_integer():
        return [2 ** (-8 * i / heads) for i in range(1, heads + 1)]
    below = 2 ** int(math.log2(heads))
    return paper_slopes(below) + paper_slopes(2 * below)[0::2][: heads - below]


@pytest.mark.parametrize("heads", range(1, 21))
def test_slopes_are_those_of_the_paper(heads: int) -> None:
    assert alibi_slopes(heads) == pytest.approx(paper_slopes(heads), rel=1e-15)


def test_the_penalty_is_the_slope_times_the_distance() -> None:
    found = AlibiBias(4)(3, 5)
    for h, slope in enumerate(paper_slopes(4)):
        for t in range(3):
            for s in range(5):
                assert float(found[0, h, t, s]) == pytest.approx(-slope * abs(s - (t + 2)), abs=1e-15)


@torch.no_grad()
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("position", [c.Alibi(), c.RelativeBias(buckets=8, max_distance=20)])
def test_packed_padded_and_cached_distances(position: c.Position, causal: bool) -> None:
    stack = gpt_stack(causal=causal).model_copy(update={"position": position})
    model = build(c.ModelConfig(vocabulary=97, context=64, **{"decoder" if causal else "encoder": stack}))
    if isinstance(position, c.RelativeBias):
        (model.decoder or model.encoder).bias.weight.normal_(generator=torch.Generator().manual_seed(1))
    run = model.decode if causal else model.encode
    ids, exact = some_ids(1, 12), {"rtol": 0, "atol": 1e-10}
    whole, short = run(ids), run(ids[:, :5])
    packed = run(torch.cat([ids, ids[:, :5]], 1), mask=Packed((12, 5)))
    torch.testing.assert_close(packed, torch.cat([whole, short], 1), **exact)
    for real in (torch.arange(12) >= 7, torch.arange(12) < 5):
        row = torch.zeros(1, 12, dtype=torch.long)
        row[0, real] = ids[0, :5]
        torch.testing.assert_close(run(row, mask=real[None])[:, real], short, **exact)
    if causal:
        cache = model.new_cache(1)
        parts = [model.decode(ids[:, a:b], cache=cache) for a, b in [(0, 5), (5, 6), (6, 12)]]
        torch.testing.assert_close(torch.cat(parts, 1), whole, **exact)


def test_a_bias_is_trained_through_every_way_of_attention() -> None:
    bias = RelativeBias(2, c.RelativeBias(buckets=4, max_distance=8), causal=True)
    q, k, v = torch.randn(3, 1, 2, 6, 4)
    for mask in (None, Packed((4, 2))):
        (grad,) = torch.autograd.grad(attend(q, k, v, Rule(True), mask=mask, bias=bias).sum(), bias.weight)
        assert grad.abs().sum() > 0


def test_only_positions_that_are_added_to_scores_have_a_bias() -> None:
    for position, kind in ((c.Alibi(), AlibiBias), (c.RelativeBias(), RelativeBias), (c.Rope(), type(None))):
        assert type(build_bias(gpt_stack().model_copy(update={"position": position}))) is kind
