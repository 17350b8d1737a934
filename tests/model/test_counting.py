"""Parameters are counted without building the model."""

import itertools

import pytest
import torch

from matura.model import config as c
from matura.model.counting import count_parameters
from matura.model.transformer import Transformer
from tests.model.tiny import gpt_stack

POSITIONS = [c.Rope(), c.Learned(), c.Sinusoidal(), c.RelativeBias(buckets=8), c.Alibi(), c.NoPosition()]
MLPS = [
    c.SwiGLU(hidden=5),
    c.GeGLU(hidden=5),
    c.GELU(hidden=5),
    c.GELU(hidden=5, bias=False),
    c.ReLU(hidden=5),
]
NORMS = [c.RMSNorm(), c.LayerNorm(), c.LayerNorm(bias=False)]
HEADS: list[c.Head] = [
    *(
        c.LanguageHead(tied=t, bias=b, transform=n)
        for t in (True, False)
        for b in (True, False)
        for n in (None, *NORMS)
    ),
    *(c.Classifier(labels=("a", "b"), hidden=h, bias=b) for h in ("none", "tanh") for b in (True, False)),
    c.Pooler(),
    c.NoHead(),
]


def check(config: c.ModelConfig) -> None:
    with torch.device("meta"):
        model = Transformer(config)
    total, used = count_parameters(config)
    assert total == sum(p.numel() for p in model.parameters())
    blocks = [
        p for name, p in model.named_parameters() if ".blocks." in name or name.endswith("coder.norm.weight")
    ]
    blocks += [p for name, p in model.named_parameters() if name.endswith("coder.norm.bias")]
    output = sum(p.numel() for p in model.head.parameters()) if model.head is not None else 0
    output += config.vocabulary * config.width if config.tied else 0
    assert used == sum(p.numel() for p in blocks) + output


@pytest.mark.parametrize("placement", ["pre", "post", "sandwich"])
@pytest.mark.parametrize("bias", ["none", "qkv", "all"])
def test_stacks(placement: str, bias: str) -> None:
    choices = itertools.product(POSITIONS, MLPS, NORMS, (4, 1), (None, *NORMS))
    for position, mlp, norm, kv_heads, qk_norm in itertools.islice(choices, 0, None, 7):
        stack = c.StackConfig(
            layers=1, width=12, mlp=mlp, norm=norm, norm_placement=placement, position=position, embedding_norm=qk_norm,
            attention=c.Attention(heads=4, kv_heads=kv_heads, head_width=2, bias=bias, qk_norm=qk_norm),
        )  # fmt: skip
        check(c.ModelConfig(vocabulary=11, context=7, decoder=stack))


@pytest.mark.parametrize("head", HEADS)
def test_heads_and_kinds_of_models(head: c.Head) -> None:
    encoder = gpt_stack(causal=False).model_copy(update={"segments": 2})
    for one, other in (
        (encoder, None),
        (None, gpt_stack()),
        (encoder, gpt_stack(cross=True, placement="sandwich")),
    ):
        check(c.ModelConfig(vocabulary=11, context=7, encoder=one, decoder=other, head=head))
