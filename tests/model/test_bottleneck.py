"""Bottlenecks: where they stand, that they start as nothing, and that they learn."""

import pytest
import torch

from matura.core.errors import ConfigError
from matura.core.peft_settings import BottleneckConfig
from matura.model import config as c
from matura.model.peft.bottleneck import BottleneckLinear, apply_bottleneck
from matura.model.peft.leaves import trained
from matura.train.transforms import checkpoint_activations
from tests.model.tiny import build, gpt_stack, llama_config, some_ids


@pytest.mark.parametrize(("placement", "each"), [("houlsby", 2), ("pfeiffer", 1)])
def test_the_start_is_the_parent(placement: str, each: int) -> None:
    config = BottleneckConfig(placement=placement, reduction=4)
    model, ids = apply_bottleneck(build(llama_config()), config, seed=1), some_ids(1, 9)
    torch.testing.assert_close(model.decode(ids), build(llama_config()).decode(ids), rtol=0, atol=1e-12)
    places = [name for name, module in model.named_modules() if isinstance(module, BottleneckLinear)]
    assert len(places) == 2 * each
    assert all(name.endswith((".mixers.0.o", ".mlp.down")) for name in places)
    assert len(trained(model)) == 2 * each * 4
    assert trained(model)["decoder.blocks.0.mlp.down.bottleneck.down.weight"].shape == (8, 32)
    same = apply_bottleneck(build(llama_config()), config, seed=1)
    assert all(
        torch.equal(a, b) for a, b in zip(trained(model).values(), trained(same).values(), strict=True)
    )


def test_values_equal_the_paper() -> None:
    model = apply_bottleneck(build(llama_config()), BottleneckConfig(reduction=8, activation="gelu"))
    layer = model.get_submodule("decoder.blocks.0.mlp.down")
    assert isinstance(layer, BottleneckLinear)
    with torch.no_grad():
        for parameter in layer.bottleneck.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    x = torch.randn(3, 48, dtype=torch.float64)
    h, down, up = layer.base(x), layer.bottleneck.down, layer.bottleneck.up
    inner = torch.nn.functional.gelu(h @ down.weight.T + down.bias)
    torch.testing.assert_close(layer(x), h + inner @ up.weight.T + up.bias, rtol=0, atol=1e-12)


def test_it_learns_and_leaves_the_parent_alone() -> None:
    config = c.ModelConfig(vocabulary=97, context=64, decoder=gpt_stack(placement="post"))
    model = apply_bottleneck(build(config), BottleneckConfig(reduction=4)).train()
    checkpoint_activations(model)
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.03)
    ids, losses = some_ids(2, 10), []
    for _ in range(30):
        logits = model.logits(model.decode(ids[:, :-1]))
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.equal(p, frozen[n]) for n, p in model.named_parameters() if n in frozen)


def test_a_width_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"bottleneck.reduction=64 leaves nothing of a width of 32"):
        apply_bottleneck(build(llama_config()), BottleneckConfig(reduction=64))
