"""What a method's settings make of a model: packed bases, freezing, and one thing at a time.

Trap: T31 (an update trained on packed weights belongs to those weights).
"""

import pytest
import torch

from matura.core.config import parse
from matura.core.errors import ConfigError
from matura.core.peft_settings import BaseConfig, FreezeConfig, LoraConfig, Tuning
from matura.model import config as c
from matura.model.int4 import Int4Linear, dequantize, quantize
from matura.model.peft import tuning
from matura.model.peft.leaves import trained
from matura.model.peft.lora import lora_state, merge_lora
from matura.model.transformer import Transformer
from matura.train.batches import Example, pack
from matura.train.objectives import next_token
from tests.model.tiny import build, gpt_stack, llama_config, some_ids

INT4 = BaseConfig(format="int4", group=32)


def plain() -> Transformer:
    return build(llama_config(), dtype=torch.float32)


def logits(model: Transformer) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model.decode(some_ids(2, 12)))


def moved(model: Transformer) -> Transformer:
    with torch.no_grad():
        for tensor in lora_state(model).values():
            tensor.normal_(0, 0.2, generator=torch.Generator().manual_seed(4))
    return model


def test_a_packed_base_holds_the_blocks_matrices_and_nothing_else() -> None:
    model = tuning.quantize_base(plain(), INT4)
    packed = [name for name, module in model.named_modules() if isinstance(module, Int4Linear)]
    assert len(packed) == 14
    assert model.embed.weight.dtype == torch.float32
    source = plain().state_dict()["decoder.blocks.1.mlp.up.weight"]
    layer = model.get_submodule("decoder.blocks.1.mlp.up")
    assert isinstance(layer, Int4Linear)
    assert torch.equal(layer.dense(), dequantize(*quantize(source, 32), 32))
    torch.testing.assert_close(logits(tuning.float_base(model)), logits(tuning.quantize_base(plain(), INT4)))
    assert tuning.quantize_base(plain(), BaseConfig()).state_dict().keys() == plain().state_dict().keys()


@pytest.mark.parametrize("base", [BaseConfig(), INT4])
@pytest.mark.parametrize("method", ["lora", "bottleneck", "prefix"])
def test_a_twin_has_the_same_tensors_and_not_what_is_set_on_the_other(method: str, base: BaseConfig) -> None:
    model = tuning.quantize_base(plain(), base)
    before = logits(model)
    twin = tuning.twin(model)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shared = {**dict(twin.named_parameters()), **dict(twin.named_buffers())}
    assert tensors.keys() == shared.keys()
    assert all(tensor is shared[name] for name, tensor in tensors.items())
    more = {"lora": {"targets": ["all-linear", "embed"]}} if method == "lora" else {}
    tuning.apply(model, parse(Tuning, {"method": method, **more}, "test"), seed=1)
    with torch.no_grad():
        for parameter in trained(model).values():
            parameter.add_(0.3)
    assert torch.equal(logits(twin), before)
    assert not torch.allclose(logits(model), before, atol=0.01)
    assert tuning.added(twin) is None


@pytest.mark.parametrize("method", ["lora", "bottleneck", "prefix"])
def test_every_method_trains_on_a_packed_base_as_on_what_it_stands_for(method: str) -> None:
    ids = some_ids(13).tolist()
    batch = pack([Example(tuple(ids), (False, *[True] * 12))])
    losses, grads = [], []
    for pack_first in (True, False):
        model = tuning.quantize_base(plain(), INT4)
        model = model if pack_first else tuning.float_base(model)
        tuning.apply(model, parse(Tuning, {"method": method}, "test"), seed=1)
        if method == "lora":
            moved(model)
        loss = next_token(model.train(), batch)
        loss.backward()
        losses.append(loss.detach())
        grads.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-5)
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name], rtol=1e-4, atol=1e-4)


def test_t31_the_merge_target_is_the_base_that_the_updates_saw() -> None:
    """T31: merged equals unmerged; the same updates on the weights from before the packing are another model."""
    model = moved(tuning.apply(tuning.quantize_base(plain(), INT4), Tuning(), seed=1))
    before = logits(model)
    after = logits(merge_lora(model))
    assert (after - before).abs().max() < 1e-4 * before.abs().max()
    wrong = merge_lora(moved(tuning.apply(plain(), Tuning(), seed=1)))
    assert (logits(wrong) - before).abs().max() > 0.05 * before.abs().max()


def test_one_thing_at_a_time() -> None:
    for method in ("lora", "prefix", "bottleneck"):
        model = tuning.apply(plain(), parse(Tuning, {"method": method}, "test"))
        with pytest.raises(ConfigError, match="already: merge it first, or take its parent"):
            tuning.apply(model, Tuning())


@pytest.mark.parametrize(
    ("freeze", "frozen"),
    [
        (FreezeConfig(embeddings=True), {"embed.weight", "decoder.positions.weight"}),
        (FreezeConfig(layers=1), "decoder.blocks.0."),
        (FreezeConfig(layers=2, embeddings=True, patterns=("decoder.norm",)), ""),
        (FreezeConfig(patterns=("up", "decoder.blocks.1.norms.*")), None),
    ],
)
def test_frozen_layers_get_no_gradient_and_no_update(freeze: FreezeConfig, frozen: object) -> None:
    model = build(c.ModelConfig(vocabulary=97, context=64, decoder=gpt_stack()))
    if frozen == "":
        with pytest.raises(ConfigError, match="freeze leaves nothing to train"):
            tuning.freeze(model, freeze)
        return
    tuning.freeze(model, freeze)
    model.logits(model.decode(some_ids(1, 5))).square().sum().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    if isinstance(frozen, str):
        expected = {name for name, _ in model.named_parameters() if name.startswith(frozen)}
    elif frozen is None:
        names = [name for name, _ in model.named_parameters()]
        expected = {name for name in names if ".up." in name or name.startswith("decoder.blocks.1.norms.")}
    else:
        expected = set(frozen)  # type: ignore[call-overload]
    assert without == expected
    assert len(without) < len(list(model.parameters()))


def test_freezing_what_is_not_there_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"freeze.layers=3, but the model has 2 layers"):
        tuning.freeze(plain(), FreezeConfig(layers=3))
    with pytest.raises(ConfigError, match=r"freeze.patterns: 'gates' names nothing; layers are 0, 1, down"):
        tuning.freeze(plain(), FreezeConfig(patterns=("q", "gates")))


def test_settings_that_would_do_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="freeze is for method=full; method=lora freezes all of the model"):
        parse(Tuning, {"freeze": {"layers": 1}}, "test")
    with pytest.raises(ConfigError, match=r"base.format=int4 is for frozen weights"):
        parse(Tuning, {"method": "full", "base": {"format": "int4"}}, "test")
    with pytest.raises(ConfigError, match=r"ranks.q must be above zero"):
        parse(LoraConfig, {"ranks": {"q": 0}}, "test")


def test_full_tuning_trains_all() -> None:
    model = tuning.apply(plain(), Tuning(method="full"))
    assert trained(model).keys() == dict(model.named_parameters()).keys()
