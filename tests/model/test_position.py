"""Rotary tables and sinusoids against transformers and the papers' formulas."""

import math

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from matura.model import config as c
from matura.model.attention import Packed
from matura.model.position import frequencies, rotate, rotate_reference, rotation, sinusoids
from matura.model.transformer import Transformer
from tests.model.tiny import build, llama_config, some_ids

HEAD, CONTEXT = 64, 2048
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 512}
YARN = {"original_max_position_embeddings": 256}
PAIRS = [
    ("linear", {}, c.LinearScaling(factor=4.0)),
    ("llama3", LLAMA3, c.Llama3Scaling(factor=4.0, original_context=512)),
    ("yarn", YARN, c.YarnScaling(factor=4.0, original_context=256)),
    (
        "yarn",
        YARN | {"beta_fast": 20, "beta_slow": 2, "attention_factor": 0.7},
        c.YarnScaling(factor=4.0, original_context=256, beta_fast=20, beta_slow=2, attention_factor=0.7),
    ),
    ("yarn", YARN | {"truncate": False}, c.YarnScaling(factor=4.0, original_context=256, whole=False)),
]


def hf_config(kind: str, theta: float, partial: float = 1.0, **more: object) -> LlamaConfig:
    rope = {"rope_type": kind, "rope_theta": theta, "partial_rotary_factor": partial} | more
    return LlamaConfig(
        hidden_size=2 * HEAD, num_attention_heads=2, max_position_embeddings=CONTEXT, rope_parameters=rope
    )


@pytest.mark.parametrize("width", [HEAD, HEAD // 2])
@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
@pytest.mark.parametrize(("kind", "more", "scaling"), PAIRS)
def test_scaled_frequencies_are_those_of_transformers(
    kind: str, more: dict[str, object], scaling: c.Scaling, theta: float, width: int
) -> None:
    config = hf_config(kind, theta, width / HEAD, factor=4.0, **more)
    expected, expected_factor = ROPE_INIT_FUNCTIONS[kind](config)
    rope = c.Rope(theta=theta, scaling=scaling, width=None if width == HEAD else width)
    found, factor = frequencies(rope, HEAD)
    torch.testing.assert_close(found.float(), expected, rtol=2e-6, atol=0)
    assert factor == pytest.approx(expected_factor, abs=1e-12)
    if kind != "linear":  # some frequencies are kept and some are slowed, or the test says little
        plain, _ = frequencies(c.Rope(theta=theta, width=rope.width), HEAD)
        assert torch.isclose(found, plain).any()
        assert torch.isclose(found, plain / 4).any()


@pytest.mark.parametrize("length", [1, CONTEXT, CONTEXT + 1, 3 * CONTEXT])
@pytest.mark.parametrize("width", [HEAD, HEAD // 2])
def test_dynamic_frequencies_are_those_of_transformers(length: int, width: int) -> None:
    config = hf_config("dynamic", 10_000.0, width / HEAD, factor=2.0)
    expected, _ = ROPE_INIT_FUNCTIONS["dynamic"](config, seq_len=length)
    rope = c.Rope(scaling=c.DynamicScaling(factor=2.0, original_context=CONTEXT), width=width)
    cos, sin = rotation(rope, torch.ones(1, 1), HEAD, torch.float64, torch.tensor([[length]]))
    torch.testing.assert_close(torch.atan2(sin, cos).flatten().float(), expected, rtol=2e-6, atol=0)


def test_the_formula_of_plain_frequencies() -> None:
    found, factor = frequencies(c.Rope(theta=500.0), 6)
    assert found.tolist() == pytest.approx([1, 500 ** (-2 / 6), 500 ** (-4 / 6)], rel=1e-15)
    assert factor == 1.0


def dynamic_pair() -> tuple[Transformer, LlamaModel]:
    """The same weights in both; the original context of 8 tokens is soon left."""
    ours = llama_config()
    assert ours.decoder is not None
    rope = c.Rope(scaling=c.DynamicScaling(factor=4.0, original_context=8))
    decoder = ours.decoder.model_copy(update={"position": rope})
    model = build(ours.model_copy(update={"decoder": decoder}))
    theirs = LlamaModel(
        LlamaConfig(
            vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, rms_norm_eps=1e-5, max_position_embeddings=8,
            rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10_000.0},
        )
    ).double()  # fmt: skip
    names = {"norms.0": "input_layernorm", "norms.1": "post_attention_layernorm", "mixers.0": "self_attn"}
    state = {}
    for name, tensor in model.state_dict().items():
        new = name.removeprefix("decoder.").replace("blocks", "layers").replace("embed.", "embed_tokens.")
        for old, theirs_name in names.items():
            new = new.replace(old, theirs_name)
        last = new.split(".")[-2]
        state[
            new.replace(f"{last}.weight", f"{last}_proj.weight") if len(last) < 5 and "layers" in new else new
        ] = tensor
    theirs.load_state_dict(state)
    return model, theirs.eval()


@torch.no_grad()
@pytest.mark.parametrize("length", [5, 8, 9, 30])
def test_dynamic_positions_beyond_the_context_are_those_of_transformers(length: int) -> None:
    model, theirs = dynamic_pair()
    ids = some_ids(2, length)
    # transformers computes its frequencies and angles in float32
    torch.testing.assert_close(model.decode(ids), theirs(ids).last_hidden_state, rtol=0, atol=2e-5)


@torch.no_grad()
@pytest.mark.parametrize(("layers", "length"), [(2, 8), (1, 20)])
def test_dynamic_positions_cached(layers: int, length: int) -> None:
    """Keys are turned anew as the sequence grows; with more layers what they were made of stays as it was."""
    model, _ = dynamic_pair()
    model.decoder.blocks = model.decoder.blocks[:layers]
    ids, cache, step = some_ids(1, length), model.new_cache(1), length // 4
    for start in range(0, length, step):
        part = model.decode(ids[:, start : start + step], cache=cache)
        whole = model.decode(ids[:, : start + step])
        torch.testing.assert_close(part, whole[:, start:], rtol=0, atol=1e-10)


@torch.no_grad()
def test_dynamic_positions_packed_and_padded() -> None:
    model, _ = dynamic_pair()
    ids, exact = some_ids(1, 20), {"rtol": 0, "atol": 1e-10}
    short, long = model.decode(ids[:, :5]), model.decode(ids)
    assert not torch.allclose(short, long[:, :5])
    packed = model.decode(torch.cat([ids, ids[:, :5]], 1), mask=Packed((20, 5)))
    torch.testing.assert_close(packed, torch.cat([long, short], 1), **exact)
    # Rows of one batch have each their own length.
    mask = torch.tensor([[False] * 15 + [True] * 5, [True] * 20])
    rows = model.decode(torch.cat([torch.cat([ids[:, :15], ids[:, :5]], 1), ids]), mask=mask)
    torch.testing.assert_close(rows[:1, 15:], short, **exact)
    torch.testing.assert_close(rows[1:], long, **exact)


@pytest.mark.parametrize("width", [16, 6, 2])
def test_a_rotation_turns_the_leading_dimensions(width: int) -> None:
    x = torch.randn(2, 5, 3, 16, dtype=torch.float64, requires_grad=True)
    table = rotation(c.Rope(theta=100.0, width=width), torch.arange(5)[None], 16, torch.float64)
    found = rotate(x, table)
    expected = torch.cat([rotate_reference(x[..., :width], table), x[..., width:]], -1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-15)
    with torch.no_grad():
        torch.testing.assert_close(rotate(x, table), expected, rtol=0, atol=1e-15)
    upstream = torch.randn_like(x)
    (a,), (b,) = (torch.autograd.grad(y, x, upstream, retain_graph=True) for y in (found, expected))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-15)


def test_scores_of_turned_heads_depend_on_the_distance_only() -> None:
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64)

    def score(at: int, to: int) -> float:
        places = (rotation(c.Rope(), torch.tensor([[p]]), 8, torch.float64) for p in (at, to))
        a, b = (rotate(x, place) for x, place in zip((q, k), places, strict=True))
        return float((a * b).sum())

    assert score(7, 3) == pytest.approx(score(100_007, 100_003), abs=1e-9)
    assert abs(score(7, 3) - score(7, 4)) > 1e-6


@pytest.mark.parametrize("width", [8, 10, 7])
def test_sinusoids_are_the_formula_of_the_paper(width: int) -> None:
    positions = np.array([0, 1, 5, 1000])
    expected = np.zeros((4, width))
    for row, position in enumerate(positions):
        for i in range((width + 1) // 2):
            angle = position / 10_000 ** (2 * i / width)
            expected[row, 2 * i] = math.sin(angle)
            if 2 * i + 1 < width:
                expected[row, 2 * i + 1] = math.cos(angle)
    halves = np.concatenate([expected[:, 0::2], expected[:, 1::2]], -1)
    at = torch.tensor(positions)[None]
    for order, values in (("interleaved", expected), ("halves", halves)):
        found = sinusoids(order, at, width, torch.float64)
        np.testing.assert_allclose(found[0].numpy(), values, rtol=0, atol=1e-12)
