"""Prefixes: a text that is read beforehand is the same as one that stands before, and what a cache holds is trained.

Trap: T34 (prefix tuning with recomputed activations).
"""

from collections.abc import Callable

import pytest
import torch

from matura.core.errors import ConfigError
from matura.core.peft_settings import PrefixConfig
from matura.core.settings import Sampling
from matura.infer.engine import generate
from matura.model import config as c
from matura.model.attention import Packed
from matura.model.peft.leaves import trained
from matura.model.peft.prefix import PrefixedStack, apply_prefix
from matura.model.transformer import Transformer
from matura.train.batches import Example, pack
from matura.train.objectives import next_token
from matura.train.transforms import checkpoint_activations
from tests.model.tiny import build, gpt_stack, llama_config, some_ids


def gpt() -> c.ModelConfig:
    return c.ModelConfig(vocabulary=97, context=64, decoder=gpt_stack())


def local() -> c.ModelConfig:
    config = llama_config()
    assert config.decoder is not None
    stack = config.decoder.model_copy(update={"local": c.Local(window=6, layers=(0,))})
    return config.model_copy(update={"decoder": stack})


def relative() -> c.ModelConfig:
    config = llama_config()
    assert config.decoder is not None
    stack = config.decoder.model_copy(update={"position": c.RelativeBias(buckets=8, max_distance=16)})
    return config.model_copy(update={"decoder": stack})


CONFIGS: list[Callable[[], c.ModelConfig]] = [llama_config, gpt, local, relative]
TEXT = [5, 9, 61, 3, 7]


def prefixed(config: c.ModelConfig, ids: list[int] = TEXT) -> Transformer:
    return apply_prefix(build(config), PrefixConfig(tokens=len(TEXT)), ids=ids)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_prefix_from_a_text_is_that_text(config: Callable[[], c.ModelConfig]) -> None:
    """With local layers, learned positions and relative ones too."""
    ids = some_ids(2, 11)
    before = torch.tensor([TEXT] * 2)
    plain = build(config())
    expected = plain.decode(torch.cat([before, ids], 1))[:, len(TEXT) :]
    found = prefixed(config()).decode(ids)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("config", CONFIGS)
def test_packed_sequences_each_stand_after_the_prefix(config: Callable[[], c.ModelConfig]) -> None:
    model, ids = prefixed(config()), some_ids(1, 20)
    lengths = (5, 5, 4, 6)
    packed = model.decode(ids, mask=Packed(lengths))
    alone = torch.cat([model.decode(part) for part in ids.split(list(lengths), 1)], 1)
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-12)
    branches = Packed((6, 4, 10), (None, 0, None))
    both = model.decode(ids, mask=branches)
    torch.testing.assert_close(both[:, :10], model.decode(ids[:, :10]), rtol=0, atol=1e-12)
    torch.testing.assert_close(both[:, 10:], model.decode(ids[:, 10:]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_engine_answers_batches_with_a_prefix(config: Callable[[], c.ModelConfig]) -> None:
    """With a cache and padding, as with the text in the prompt; a cache that is still empty begins with the prefix."""
    prompts = [[4, 8, 15], [16], [23, 42, 4, 8, 15, 16, 23]]
    greedy = Sampling(temperature=0, max_new_tokens=8)
    found = generate(prefixed(config()), prompts, greedy)
    assert found == generate(build(config()), [[*TEXT, *ids] for ids in prompts], greedy)
    assert found != generate(build(config()), prompts, greedy)


def test_only_the_prefix_is_trained_and_the_context_is_shorter() -> None:
    model = prefixed(llama_config())
    assert trained(model).keys() == {"decoder.keys", "decoder.values"}
    assert model.config.context == 128 - len(TEXT)
    assert isinstance(model.decoder, PrefixedStack)
    again, other = (apply_prefix(build(llama_config()), PrefixConfig(tokens=4), seed=s) for s in (1, 2))
    same = apply_prefix(build(llama_config()), PrefixConfig(tokens=4), seed=1)
    assert torch.equal(trained(again)["decoder.keys"], trained(same)["decoder.keys"])
    assert not torch.equal(trained(again)["decoder.keys"], trained(other)["decoder.keys"])


def test_a_short_text_is_repeated_and_a_long_one_cut() -> None:
    long = apply_prefix(build(llama_config()), PrefixConfig(tokens=5), ids=[*TEXT, 1, 2, 3])
    short = apply_prefix(build(llama_config()), PrefixConfig(tokens=5), ids=[7, 8])
    assert torch.equal(trained(long)["decoder.values"], trained(prefixed(llama_config()))["decoder.values"])
    expected = prefixed(llama_config(), [7, 8, 7, 8, 7])
    assert torch.equal(trained(short)["decoder.keys"], trained(expected)["decoder.keys"])


def batch() -> list[Example]:
    rows = [some_ids(n, seed=n).tolist() for n in (9, 9, 6)]
    return [Example(tuple(ids), (False, *[True] * (len(ids) - 1))) for ids in rows]


@pytest.mark.parametrize("config", CONFIGS)
def test_t34_gradients_are_the_same_with_recomputed_activations(config: Callable[[], c.ModelConfig]) -> None:
    """T34: a block that runs again must not find its own keys in the cache already."""
    results = []
    for which in ("none", "full"):
        model = checkpoint_activations(prefixed(config()).train(), which)
        loss = next_token(model, pack(batch()))
        loss.backward()
        assert isinstance(model.decoder, PrefixedStack)
        results.append((loss.detach(), model.decoder.keys.grad, model.decoder.values.grad))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert results[0][1].abs().max() > 0


def test_t34_a_prefix_of_no_effect_is_the_base() -> None:
    """T34: keys that no query looks at, in a model whose positions are not moved by what stands before."""
    config = llama_config()
    assert config.decoder is not None
    stack = config.decoder.model_copy(update={"position": c.NoPosition()})
    config = config.model_copy(update={"decoder": stack})
    plain = build(config)
    model = apply_prefix(build(config), PrefixConfig(tokens=4))
    assert isinstance(model.decoder, PrefixedStack)
    ids, mask = some_ids(1, 12), torch.ones(1, 12, dtype=torch.bool)
    changed = model.decode(ids)
    assert not torch.allclose(changed, plain.decode(ids))
    from matura.model.block import View
    from matura.model.peft.prefix import Past, run_after

    hidden = torch.zeros(1, 4, dtype=torch.bool)
    past = Past(model.decoder.keys[:, None], model.decoder.values[:, None], hidden)
    found = run_after(past, model.decoder.base, model.embed(ids), View(mask))
    torch.testing.assert_close(found, plain.decode(ids), rtol=0, atol=1e-12)


def test_a_prefix_learns() -> None:
    model = prefixed(llama_config()).train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for _ in range(30):
        loss = next_token(model, pack(batch()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_an_encoder_alone_has_a_prefix_too() -> None:
    config = c.ModelConfig(vocabulary=97, context=64, encoder=gpt_stack(causal=False), head=c.NoHead())
    model, ids = apply_prefix(build(config), PrefixConfig(tokens=5), ids=TEXT), some_ids(2, 6)
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    whole = model.encode(ids, mask=mask)
    torch.testing.assert_close(whole[1:, :4], model.encode(ids[1:, :4]), rtol=0, atol=1e-12)
    assert not torch.allclose(whole, build(config).encode(ids, mask=mask))


def test_a_decoder_with_an_encoder_trains_with_recomputed_activations() -> None:
    config = c.ModelConfig(
        vocabulary=97, context=64, encoder=gpt_stack(causal=False), decoder=gpt_stack(cross=True), start_id=0
    )
    grads = []
    for which in ("none", "full"):
        model = checkpoint_activations(apply_prefix(build(config), PrefixConfig(tokens=5), ids=TEXT), which)
        memory = model.encode(some_ids(2, 6))
        model.decode(some_ids(2, 4), memory_BSD=memory).square().sum().backward()
        assert isinstance(model.decoder, PrefixedStack)
        grads.append(model.decoder.keys.grad)
    torch.testing.assert_close(grads[0], grads[1], rtol=0, atol=1e-10)


def test_models_without_a_place_for_a_prefix_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"prefix.tokens=128 leaves nothing of a context of 128"):
        apply_prefix(build(llama_config()), PrefixConfig(tokens=128))
    config = llama_config()
    assert config.decoder is not None
    rope = c.Rope(scaling=c.DynamicScaling(factor=2, original_context=16))
    stack = config.decoder.model_copy(update={"position": rope})
    with pytest.raises(ConfigError, match="dynamic scaling"):
        apply_prefix(build(config.model_copy(update={"decoder": stack})), PrefixConfig())
