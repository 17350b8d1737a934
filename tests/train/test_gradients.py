"""The gradient path as a whole: every fast kernel at once against autograd of the plain formulas, in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matura.model import attention, block, layers
from matura.model import config as c
from matura.model.attention import attend_reference
from matura.model.bias import Bias
from matura.model.layers import rms_norm_reference, swiglu_reference
from matura.model.logprobs import cross_entropy, cross_entropy_reference
from matura.model.position import rotate_reference
from matura.model.transformer import Transformer
from matura.train.batches import Example, pack
from tests.model.tiny import build, gpt_stack, llama_config, some_ids


def changed(config: c.ModelConfig, **update: Any) -> c.ModelConfig:
    assert config.decoder is not None
    return config.model_copy(update={"decoder": config.decoder.model_copy(update=update)})


def relative(**more: Any) -> c.StackConfig:
    return gpt_stack(**more).model_copy(update={"position": c.RelativeBias(buckets=8, max_distance=32)})


QK_NORM = c.Attention(heads=4, kv_heads=2, head_width=8, qk_norm=c.RMSNorm(), bias="qkv")
CONFIGS = {
    "llama": llama_config(),
    "untied": llama_config(tied=False, kv_heads=1),
    "gemma": changed(
        llama_config(),
        attention=QK_NORM,
        norm_placement="sandwich",
        mlp=c.GeGLU(hidden=48),
        local=c.Local(window=5, layers=(0,)),
    ),
    "gpt": c.ModelConfig(vocabulary=97, context=128, decoder=gpt_stack()),
    "t5": c.ModelConfig(
        vocabulary=97, context=128, encoder=relative(causal=False), decoder=relative(cross=True)
    ),
    "bert": c.ModelConfig(
        vocabulary=97,
        context=128,
        encoder=gpt_stack(causal=False, placement="post"),
        head=c.LanguageHead(bias=True, transform=c.LayerNorm(), softcap=5.0),
    ),
}


def loss(model: Transformer, entropy: Callable[..., Tensor]) -> Tensor:
    """Three examples in one row, one of them longer than a block of queries, with weights of their own."""
    ids = some_ids(90).tolist()
    lengths, weights = (70, 11, 9), (1.0, 0.5, 2.0)
    pieces = [tuple(ids[: n + 1]) for n in lengths]
    made = [Example(p, (w,) * len(p)) for p, w in zip(pieces, weights, strict=True)]
    batch = pack(made)
    if model.encoder is None:
        hidden = model.decode(batch.ids_1T, mask=batch.mask)
    elif model.decoder is None:
        hidden = model.encode(batch.ids_1T, mask=batch.mask)
    else:
        hidden = model.decode(batch.ids_1T, memory_BSD=model.encode(some_ids(1, 60, seed=5)))
    features = model.features(hidden[0, batch.where_N])
    return entropy(features, model.unembedding, batch.targets_N, batch.weights_N.double())


def plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the formulas in the place of everything that is fast."""

    def attend(*args: Tensor, mask: attention.Mask = None, bias: Bias | None = None) -> Tensor:
        return attend_reference(*args, mask=mask, bias=bias)[0]  # type: ignore[arg-type]

    def gated(self: layers.Gated, x: Tensor) -> Tensor:
        gate, up = self.gate(x), self.up(x)
        return self.down(
            swiglu_reference(gate, up) if self.activation is F.silu else self.activation(gate) * up
        )

    view = block.View
    monkeypatch.setattr(
        "matura.model.transformer.View",
        lambda mask=None, memory=None, memory_mask=None, attend_=None, **_: view(
            mask, memory, memory_mask, attend
        ),
    )
    monkeypatch.setattr(
        layers.RMSNorm, "forward", lambda self, x: rms_norm_reference(x, self.weight, self.eps)
    )
    monkeypatch.setattr(layers.Gated, "forward", gated)
    monkeypatch.setattr(layers.Linear, "forward", nn.Linear.forward)
    monkeypatch.setattr(block, "rotate", rotate_reference)


@pytest.mark.parametrize("name", CONFIGS)
def test_whole_model_gradients_equal_autograd_of_the_formulas(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(CONFIGS[name], scale=2.0).train()
    fast = loss(model, cross_entropy)
    parameters = dict(model.named_parameters())
    found = torch.autograd.grad(fast, list(parameters.values()))
    plainly(monkeypatch)
    plain = loss(model, cross_entropy_reference)
    expected = torch.autograd.grad(plain, list(parameters.values()))
    torch.testing.assert_close(fast, plain, rtol=1e-12, atol=0)
    for one, a, b in zip(parameters, found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10, msg=one)
