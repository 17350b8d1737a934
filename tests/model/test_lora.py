"""LoRA against the paper's formula, and what it must leave alone."""

import pytest
import torch
from torch import nn

from matura.core.errors import ConfigError
from matura.core.peft_settings import LoraConfig
from matura.model.peft.lora import LoraLinear, apply_lora, lora_state, merge_lora
from tests.model.tiny import build, llama_config, some_ids


def trained_layer(bias: bool) -> LoraLinear:
    torch.manual_seed(0)
    layer = LoraLinear(nn.Linear(6, 10, bias=bias).double(), 3, 5 / 3)
    with torch.no_grad():
        layer.b.normal_()
    return layer


@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_equal_the_paper(bias: bool) -> None:
    layer = trained_layer(bias)
    x = torch.randn(2, 4, 6, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(2, 4, 10, dtype=torch.float64)
    torch.testing.assert_close(layer(x), layer.forward_reference(x), rtol=0, atol=1e-12)
    found = torch.autograd.grad((layer(x) * upstream).sum(), (x, layer.a, layer.b))
    expected = torch.autograd.grad((layer.forward_reference(x) * upstream).sum(), (x, layer.a, layer.b))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert not layer.base.weight.requires_grad


def test_starts_as_its_parent_and_merges_to_itself() -> None:
    model, ids = build(llama_config()), some_ids(1, 9)
    before = model.logits(model.decode(ids))
    apply_lora(model, LoraConfig(rank=2), seed=3)
    # (To rounding: plain projections of queries, keys and values are one product, those with LoRA are three.)
    torch.testing.assert_close(model.logits(model.decode(ids)), before, rtol=0, atol=1e-14)
    with torch.no_grad():
        for name, tensor in lora_state(model).items():
            if name.endswith(".b"):
                tensor.normal_(0, 0.2)
    trained = model.logits(model.decode(ids))
    assert not torch.allclose(trained, before)
    merge_lora(model)
    assert not any(isinstance(module, LoraLinear) for module in model.modules())
    torch.testing.assert_close(model.logits(model.decode(ids)), trained, rtol=0, atol=1e-10)


def test_only_the_updates_are_trained_and_the_seed_decides_them() -> None:
    config = LoraConfig(rank=2, targets=("q", "v"))
    a, b = (apply_lora(build(llama_config()), config, seed=1) for _ in range(2))
    trained = {name for name, p in a.named_parameters() if p.requires_grad}
    assert trained == {f"decoder.blocks.{i}.mixers.0.{t}.{x}" for i in (0, 1) for t in "qv" for x in "ab"}
    assert set(lora_state(a)) == trained
    assert all(torch.equal(x, y) for x, y in zip(lora_state(a).values(), lora_state(b).values(), strict=True))


def test_rank_stabilized_scale() -> None:
    assert LoraConfig(rank=16, alpha=8).scale == 0.5
    assert LoraConfig(rank=16, alpha=8, rank_stabilized=True).scale == 2.0


def test_an_unknown_target_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"'query'; this model has down, embed, gate, k, o, q, up, v, and all-linear"):
        apply_lora(build(llama_config()), LoraConfig(targets=("query", "v")))
