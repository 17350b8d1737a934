"""What must hold for every family and every kind of position, in float64: caches, padding, packing, batches and fused
projections change nothing."""

import functools
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, DistilBertConfig, MarianConfig, RobertaConfig, T5Config, XLMRobertaConfig

from matura.model import config as c
from matura.model.attention import Packed
from matura.model.counting import count_parameters
from matura.model.families import registry
from matura.model.transformer import Transformer, fuse_projections
from tests.model.families.decoders import MAIN, ours_of, settings
from tests.model.tiny import some_ids

VOCABULARY, CONTEXT, ORIGINAL = 61, 64, 8
ids = functools.partial(some_ids, vocabulary=VOCABULARY)

POSITIONS: dict[str, c.Position] = {
    "rope": c.Rope(theta=100.0),
    "rope-partial": c.Rope(theta=100.0, width=4),
    "rope-linear": c.Rope(theta=100.0, scaling=c.LinearScaling(factor=3.0)),
    "rope-dynamic": c.Rope(theta=100.0, scaling=c.DynamicScaling(factor=2.0, original_context=ORIGINAL)),
    "rope-llama3": c.Rope(theta=100.0, scaling=c.Llama3Scaling(factor=8.0, original_context=16)),
    "rope-yarn": c.Rope(theta=100.0, scaling=c.YarnScaling(factor=4.0, original_context=16)),
    "learned": c.Learned(),
    "sinusoidal": c.Sinusoidal(),
    "sinusoidal-halves": c.Sinusoidal(order="halves"),
    "relative": c.RelativeBias(buckets=8, max_distance=16),
    "alibi": c.Alibi(),
    "none": c.NoPosition(),
}
EXTRAS: dict[str, dict[str, Any]] = {
    "": {},
    "-window": {"local": c.Local(window=4, layers=(1,))},
    "-softcap": {
        "attention": c.Attention(
            heads=4, kv_heads=2, head_width=8, qk_norm=c.RMSNorm(), softcap=2.0, scale=0.5
        ),
        "local": c.Local(window=4, layers=(0, 1)),
    },
}


def stack(position: c.Position, **more: Any) -> c.StackConfig:
    """Two blocks of width 32 with grouped-query attention."""
    parts: dict[str, Any] = {
        "attention": c.Attention(heads=4, kv_heads=2, head_width=8, bias="qkv"),
        "mlp": c.SwiGLU(hidden=24),
        "position": position,
    }
    return c.StackConfig(**{"layers": 2, "width": 32} | parts | more)


def model_of(**stacks: c.StackConfig) -> c.ModelConfig:
    return c.ModelConfig(vocabulary=VOCABULARY, context=CONTEXT, start_id=0, **stacks)


def read(config: Any) -> c.ModelConfig:
    """Our settings of a configuration of transformers."""
    hf = settings(config)
    return registry.by_model_type(hf["model_type"]).from_hf(hf, ())


ENCODER_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": CONTEXT + 2,
}
T5_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 40,
    "num_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
    "decoder_start_token_id": 0,
}
MARIAN = MarianConfig(
    vocab_size=VOCABULARY,
    d_model=32,
    max_position_embeddings=CONTEXT,
    **{
        f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("layers", 2), ("ffn_dim", 40))
    },
    encoder_attention_heads=4,
    decoder_attention_heads=4,
    pad_token_id=60,
    decoder_start_token_id=60,
    scale_embedding=True,
)

DECODERS: dict[str, c.ModelConfig] = {
    **{name: ours_of(name) for name in (*MAIN, "llama-biased", "qwen3-options", "phi3-partial")},
    **{
        kind + extra: model_of(decoder=stack(position, **more))
        for kind, position in POSITIONS.items()
        for extra, more in EXTRAS.items()
        if extra != "-softcap" or kind in ("rope", "rope-dynamic", "relative", "alibi")
    },
    "rope-two": model_of(
        decoder=stack(
            POSITIONS["rope-yarn"],
            local=c.Local(window=3, layers=(0,), position=c.Rope(theta=10.0)),
            norm_placement="sandwich",
        )
    ),
}
ENCODERS: dict[str, c.ModelConfig] = {
    "bert": read(BertConfig(**ENCODER_SIZES)),
    "roberta": read(RobertaConfig(**ENCODER_SIZES, pad_token_id=1)),
    "xlm-roberta": read(XLMRobertaConfig(**ENCODER_SIZES, pad_token_id=1)),
    "distilbert": read(
        DistilBertConfig(
            vocab_size=VOCABULARY,
            dim=32,
            hidden_dim=40,
            n_layers=2,
            n_heads=4,
            max_position_embeddings=CONTEXT,
        )
    ),
    **{
        kind + extra: model_of(encoder=stack(position, causal=False, **EXTRAS[extra]))
        for kind, position in POSITIONS.items()
        for extra in ("", "-window")
    },
}
TRANSLATORS: dict[str, c.ModelConfig] = {
    "t5": read(T5Config(**T5_SIZES, architectures=["T5ForConditionalGeneration"])),
    "t5-gated": read(
        T5Config(
            **T5_SIZES,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
            architectures=["T5ForConditionalGeneration"],
        )
    ),
    "marian": read(MARIAN),
    **{
        kind: model_of(
            encoder=stack(position, causal=False),
            decoder=stack(position, cross=True, local=c.Local(window=4, layers=(0,))),
        )
        for kind, position in POSITIONS.items()
    },
}
SINGLE = DECODERS | {f"encoder {name}": config for name, config in ENCODERS.items()}
ALL = SINGLE | {f"translator {name}": config for name, config in TRANSLATORS.items()}


def build(config: c.ModelConfig) -> Transformer:
    """Every weight random, so that norms, biases and positions matter too."""
    model = Transformer(config).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            base = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.normal_(0.0, 0.15, generator=generator).add_(base)
    return model


def near(found: Tensor, expected: Tensor) -> None:
    """Equal to 1e-10 of the largest value."""
    limit = 1e-10 * max(float(expected.detach().abs().max()), 1.0)
    torch.testing.assert_close(found, expected, rtol=0, atol=limit)


def dynamic(config: c.ModelConfig) -> bool:
    position = config.last_stack.position
    return isinstance(position, c.Rope) and isinstance(position.scaling, c.DynamicScaling)


def states(model: Transformer, tokens: Tensor, mask: Any = None) -> Tensor:
    """Hidden states of a model with one stack."""
    return (model.encode if model.decoder is None else model.decode)(tokens, mask=mask)


def padded(rows: Sequence[Tensor], *, left: bool) -> tuple[Tensor, Tensor]:
    """Rows of different lengths as one batch, and where they are real."""
    longest = max(row.shape[1] for row in rows)
    batch = torch.full((len(rows), longest), 3)
    real = torch.zeros(len(rows), longest, dtype=torch.bool)
    for i, row in enumerate(rows):
        place = slice(longest - row.shape[1], None) if left else slice(None, row.shape[1])
        batch[i, place], real[i, place] = row[0], True
    return batch, real


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_cached_equals_uncached(name: str) -> None:
    model, length = build(DECODERS[name]), 56
    if dynamic(model.config):
        length = ORIGINAL  # beyond, see the next test
    tokens, cuts = ids(2, length), [0, 3, 4, length - 3, length - 2, length]
    cache = model.new_cache(2, capacity=3)
    parts = [model.decode(tokens[:, a:b], cache=cache) for a, b in pairwise(cuts)]
    near(torch.cat(parts, 1), model.decode(tokens))


@pytest.mark.parametrize("steps", [range(1, 24), [5, 6, 20, 24]])
@torch.no_grad()
def test_dynamic_scaling_turns_cached_keys_anew(steps: Sequence[int]) -> None:
    """Beyond the original context every new token changes the angles of all. A cache follows in the first layer; what
    deeper layers keep was computed when the text was shorter, here and elsewhere."""
    model = build(model_of(decoder=stack(POSITIONS["rope-dynamic"], layers=1)))
    tokens, cache = ids(1, max(steps)), model.new_cache(1)
    start = 0
    for end in steps:
        found = model.decode(tokens[:, start:end], cache=cache)
        near(found[:, -1], model.decode(tokens[:, :end])[:, -1])
        start = end


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_cached_with_padding_on_the_left_equals_alone(name: str) -> None:
    model = build(DECODERS[name])
    short = min(ORIGINAL, 8)
    rows = [ids(1, short - 3, seed=2), ids(1, short, seed=3)]
    batch, real = padded(rows, left=True)
    cache = model.new_cache(2)
    model.decode(batch[:, : short - 2], mask=real[:, : short - 2], cache=cache)
    model.decode(batch[:, short - 2 : short - 1], mask=real[:, :-1], cache=cache)
    last = model.decode(batch[:, -1:], mask=real, cache=cache)
    for i, row in enumerate(rows):
        near(last[i, -1], model.decode(row)[0, -1])


@pytest.mark.parametrize("name", SINGLE)
@torch.no_grad()
def test_padded_and_batched_equal_alone(name: str) -> None:
    model = build(SINGLE[name])
    rows = [ids(1, n, seed=n) for n in (13, 20, 1)]
    alone = [states(model, row) for row in rows]
    for left in (True, False):
        batch, real = padded(rows, left=left)
        found = states(model, batch, real)
        for i, expected in enumerate(alone):
            near(found[i][real[i]], expected[0])
    together = states(model, torch.cat([rows[1], rows[1].flip(1)]))
    near(together[:1], alone[1])
    near(together[1:], states(model, rows[1].flip(1)))


@pytest.mark.parametrize("name", SINGLE)
def test_packed_equals_alone_in_values_and_gradients(name: str) -> None:
    model = build(SINGLE[name])
    lengths = (12, 12, 5, 1)
    pieces = [ids(1, n, seed=i) for i, n in enumerate(lengths)]
    parameters = list(model.parameters())
    packed = list(states(model, torch.cat(pieces, 1), Packed(lengths)).split(lengths, 1))
    alone = [states(model, piece) for piece in pieces]
    for found, expected in zip(packed, alone, strict=True):
        near(found, expected)
    one, other = (
        torch.autograd.grad(sum(out.sin().sum() for out in outs), parameters, allow_unused=True)
        for outs in (packed, alone)
    )
    assert sum(gradient is not None for gradient in one) > len(parameters) / 2
    for found_gradient, expected_gradient in zip(one, other, strict=True):
        assert (found_gradient is None) == (expected_gradient is None)
        if found_gradient is not None:
            near(found_gradient, expected_gradient)


@pytest.mark.parametrize("name", [name for name in DECODERS if not dynamic(DECODERS[name])])
@torch.no_grad()
def test_packed_continuations_equal_their_whole_texts(name: str) -> None:
    model = build(DECODERS[name])
    parent, one, other = ids(1, 9), ids(1, 4, seed=2), ids(1, 6, seed=3)
    mask = Packed((9, 4, 6), (None, 0, 0))
    found = model.decode(torch.cat([parent, one, other], 1), mask=mask)
    near(found[:, 9:13], model.decode(torch.cat([parent, one], 1))[:, 9:])
    near(found[:, 13:], model.decode(torch.cat([parent, other], 1))[:, 9:])


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_fused_projections_change_nothing(name: str) -> None:
    model, tokens = build(DECODERS[name]), ids(2, 12)
    expected = model.decode(tokens)
    fused = fuse_projections(model)
    near(fused.decode(tokens), expected)
    cache = fused.new_cache(2)
    length = ORIGINAL if dynamic(model.config) else 12
    parts = [fused.decode(tokens[:, i : i + 1], cache=cache) for i in range(length)]
    near(torch.cat(parts, 1), fused.decode(tokens[:, :length]))


@pytest.mark.parametrize("name", TRANSLATORS)
@torch.no_grad()
def test_a_translator_caches_pads_and_fuses(name: str) -> None:
    model = build(TRANSLATORS[name])
    sources, targets = [ids(1, n, seed=n) for n in (11, 6)], ids(2, ORIGINAL, seed=4)
    memories = [model.encode(source) for source in sources]
    alone = [model.decode(targets[i : i + 1], memory_BSD=memories[i]) for i in range(2)]
    for fused in (False, True):
        used = fuse_projections(model) if fused else model
        for left in (True, False):
            batch, real = padded(sources, left=left)
            memory = used.encode(batch, mask=real)
            whole = used.decode(targets, memory_BSD=memory, memory_mask_BS=real)
            cache, cuts = used.new_cache(2), [0, 3, 4, ORIGINAL]
            parts = [
                used.decode(targets[:, a:b], memory_BSD=memory, memory_mask_BS=real, cache=cache)
                for a, b in pairwise(cuts)
            ]
            for i in range(2):
                near(memory[i][real[i]], memories[i][0])
                near(whole[i], alone[i][0])
            near(torch.cat(parts, 1), whole)


@pytest.mark.parametrize("name", TRANSLATORS)
@torch.no_grad()
def test_a_padded_target_equals_alone(name: str) -> None:
    model = build(TRANSLATORS[name])
    memory, rows = model.encode(ids(1, 7)), [ids(1, 9, seed=2), ids(1, 4, seed=3)]
    for left in (True, False):
        batch, real = padded(rows, left=left)
        found = model.decode(batch, mask=real, memory_BSD=memory.expand(2, -1, -1))
        for i, row in enumerate(rows):
            near(found[i][real[i]], model.decode(row, memory_BSD=memory)[0])


@pytest.mark.parametrize("name", ALL)
def test_parameters_are_counted(name: str) -> None:
    config = ALL[name]
    with torch.device("meta"):
        model = Transformer(config)
    assert count_parameters(config)[0] == sum(parameter.numel() for parameter in model.parameters())
