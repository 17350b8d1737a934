"""Several adapters on one model: every row of a batch gets its own, and nobody else's."""

import random
from collections.abc import Callable

import pytest
import torch

from matura.core.errors import MaturaError
from matura.core.peft_settings import BaseConfig, BottleneckConfig, LoraConfig, PrefixConfig, Tuning
from matura.core.settings import Beams, Sampling
from matura.infer import beam
from matura.infer.batch import read
from matura.infer.engine import Request, stream
from matura.model import config as c
from matura.model.peft import routing, tuning
from matura.model.peft.adapter import Adapter, attach, taken
from matura.model.transformer import Transformer, fuse_projections
from tests.model.tiny import build, gpt_stack, llama_config

LORA = Tuning(lora=LoraConfig(rank=2))
SMALL = Tuning(lora=LoraConfig(rank=3, targets=("q", "down"), alpha=5, rank_stabilized=True))
HOULSBY = Tuning(method="bottleneck", bottleneck=BottleneckConfig(reduction=4))
SHORT = Tuning(method="prefix", prefix=PrefixConfig(tokens=3))
LONG = Tuning(method="prefix", prefix=PrefixConfig(tokens=6))
KINDS = [LORA, SMALL, HOULSBY, SHORT, LONG]
GREEDY = Sampling(temperature=0, max_new_tokens=9)


def gpt() -> c.ModelConfig:
    return c.ModelConfig(vocabulary=97, context=64, decoder=gpt_stack())


def local() -> c.ModelConfig:
    config = llama_config()
    assert config.decoder is not None
    stack = config.decoder.model_copy(update={"local": c.Local(window=4, layers=(1,))})
    return config.model_copy(update={"decoder": stack})


def adapter(config: c.ModelConfig, settings: Tuning, seed: int) -> Adapter:
    """A trained adapter: with tensors that change what the model says."""
    model = tuning.apply(build(config), settings, seed)
    found = taken(model, settings)
    generator = torch.Generator().manual_seed(seed)
    for tensor in found.tensors.values():
        tensor.add_(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) * 0.4)
    return found


def requests(config: c.ModelConfig, count: int = 8) -> list[Request]:
    """Ragged prompts, with every kind of adapter and none."""
    draw = random.Random(1)
    each = [None, *(adapter(config, one, seed) for seed, one in enumerate(KINDS))]
    return [
        Request(
            [draw.randrange(97) for _ in range(draw.randrange(1, 12))],
            GREEDY.model_copy(update={"max_new_tokens": draw.randrange(3, 12)}),
            adapter=each[i % len(each)],
        )
        for i in range(count)
    ]


def answered(model: Transformer, many: list[Request], batch: int) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in many]
    for token in stream(model, many, batch=batch):
        found[token.request].append(token.id)
    return found


@pytest.mark.parametrize("config", [llama_config, gpt, local])
@pytest.mark.parametrize("fused", [False, True])
def test_rows_of_different_adapters_answer_as_alone(config: Callable[[], c.ModelConfig], fused: bool) -> None:
    """As single requests, and as models that have the one adapter only; rows without one as the model itself."""
    model = fuse_projections(build(config())) if fused else build(config())
    many = requests(config())
    together = answered(model, many, batch=8)
    assert together == answered(model, many, batch=1)
    assert together == answered(model, many, batch=3)
    for found, one in zip(together, many, strict=True):
        own = build(config()) if one.adapter is None else attach(build(config()), one.adapter)
        alone = answered(own, [Request(one.ids, one.sampling)], batch=1)
        assert [found] == alone
    bare = answered(model, [Request(one.ids, one.sampling) for one in many], batch=8)
    changed = [one.adapter is not None for one in many]
    differs = [found != plain for found, plain in zip(together, bare, strict=True)]
    assert differs[0] is False
    assert sum(differs) >= sum(changed) - 2  # an adapter need not change every greedy answer


def test_logits_of_a_mixed_batch_are_those_of_each_alone() -> None:
    many = requests(llama_config(), 6)
    model = build(llama_config())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        prompts, adapters = [one.ids for one in many], [one.adapter for one in many]
        batch, first = read(model, prompts, [()] * 6, 4, adapters)
        batch.keep([4, 0, 2, 2])
        second = batch.step([1, 2, 3, 4], [len(prompts[i]) for i in (4, 0, 2, 2)])
        for row, i, id in ((0, 4, 1), (1, 0, 2), (2, 2, 3), (3, 2, 4)):
            alone, logits = read(model, [prompts[i]], [()], 4, [adapters[i]])
            torch.testing.assert_close(first[i], logits[0], rtol=0, atol=1e-10)
            next_one = alone.step([id], [len(prompts[i])])
            torch.testing.assert_close(second[row], next_one[0], rtol=0, atol=1e-10)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_a_batch_without_adapters_is_served_by_the_model_itself() -> None:
    model = build(llama_config())
    assert routing.route(model, [None, None]).model is model
    one = adapter(llama_config(), LORA, 1)
    mixed = routing.route(model, [None, one, None])
    assert mixed.model is not model
    assert mixed.keep([2, 0]).model is model
    assert mixed.model.embed is model.embed


def test_beams_search_with_an_adapter() -> None:
    for settings in KINDS:
        one = adapter(llama_config(), settings, 3)
        found = beam.search(build(llama_config()), [5, 6, 7], Beams(beams=3, max_new_tokens=6), adapter=one)
        own = attach(build(llama_config()), one)
        assert found[0].ids == beam.search(own, [5, 6, 7], Beams(beams=3, max_new_tokens=6))[0].ids


def test_a_prefix_takes_its_place_in_the_context() -> None:
    model, one = build(llama_config()), adapter(llama_config(), LONG, 1)
    (found,) = answered(model, [Request([1] * 118, GREEDY, adapter=one)], 1)
    assert [found] == answered(attach(build(llama_config()), one), [Request([1] * 118, GREEDY)], 1)
    assert len(found) < GREEDY.max_new_tokens
    with pytest.raises(MaturaError, match="122 tokens, and the adapter's prefix takes 6 of a context of 128"):
        answered(model, [Request([1] * 122, GREEDY, adapter=one)], 1)


def test_adapters_that_cannot_stand_beside_others_are_refused() -> None:
    model = build(llama_config())
    table = adapter(llama_config(), Tuning(lora=LoraConfig(targets=("embed", "q"))), 1)
    with pytest.raises(MaturaError, match="'a' changes embed, which is no linear layer"):
        routing.check(model, table, "a")
    packed = Adapter(Tuning(base=BaseConfig(format="int4")), adapter(llama_config(), LORA, 1).tensors)
    with pytest.raises(MaturaError, match="trained on weights held as int4, and this model's are float32"):
        routing.check(model, packed, "a")
    deep = adapter(llama_config(layers=3), LORA, 1)
    with pytest.raises(MaturaError, match=r"changes decoder.blocks.2.mixers.0.q"):
        routing.check(model, deep, "a")
    wide = adapter(llama_config(kv_heads=4), LORA, 1)
    with pytest.raises(MaturaError, match=r"mixers.0.k.b has shape \(32, 2\), its settings say \(16, 2\)"):
        routing.check(model, wide, "a")
    for other in (llama_config(kv_heads=4), llama_config(layers=1)):
        with pytest.raises(MaturaError, match=r"decoder.keys has shape"):
            routing.check(model, adapter(other, SHORT, 1), "a")
    with pytest.raises(MaturaError, match="the model itself has LoRA updates"):
        routing.check(attach(build(llama_config()), table), table, "a")
    for settings in KINDS:
        routing.check(model, adapter(llama_config(), settings, 1), "a")
