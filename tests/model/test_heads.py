"""Heads and blocks against forwards written out by hand."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from matura.core.errors import FormatError
from matura.model import config as c
from matura.model.heads import Classifier, LanguageHead, Pooler, pick
from matura.model.transformer import Transformer
from tests.model.tiny import build, gpt_stack, some_ids

EXACT = {"rtol": 0, "atol": 1e-12}
LEFT = torch.tensor([[False, False, True, True, True], [True] * 5])
RIGHT = torch.tensor([[True, True, True, False, False], [True] * 5])


@pytest.mark.parametrize(
    ("real", "which", "expected"),
    [
        (None, "first", [0, 0]),
        (None, "last", [4, 4]),
        (LEFT, "first", [2, 0]),
        (LEFT, "last", [4, 4]),
        (RIGHT, "first", [0, 0]),
        (RIGHT, "last", [2, 4]),
        (None, "mean", [2, 2]),
        (LEFT, "mean", [3, 2]),
        (RIGHT, "mean", [1, 2]),
    ],
)
def test_what_is_read_on_both_sides_of_padding(
    real: torch.Tensor | None, which: c.Pool, expected: list[int]
) -> None:
    hidden = torch.arange(10.0).view(2, 5, 1)
    assert pick(hidden, real, which).flatten().tolist() == [expected[0], 5 + expected[1]]


@pytest.mark.parametrize("pool", ["first", "last", "mean"])
@pytest.mark.parametrize("hidden", ["none", "tanh", "relu"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_classifier(pool: str, hidden: str, bias: bool) -> None:
    """T5: the last real token is read, not the last or the first padded one."""
    head = Classifier(6, c.Classifier(labels=("a", "b", "c"), pool=pool, hidden=hidden, bias=bias)).double()
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    if pool == "mean":
        row = torch.stack([x[0, :3].mean(0), x[1].mean(0)])
    else:
        row = x[torch.arange(2), torch.tensor([0, 0] if pool == "first" else [2, 4])]
    if hidden != "none":
        row = row @ head.dense.weight.T + head.dense.bias
        row = row.tanh() if hidden == "tanh" else row.clamp(min=0)
    expected = row @ head.out.weight.T + (head.out.bias if bias else 0)
    torch.testing.assert_close(head(x, RIGHT), expected, **EXACT)
    assert (head.out.bias is not None) == bias


def test_a_pooler_reads_the_first_token() -> None:
    head = Pooler(6).double()
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    expected = torch.tanh(x[torch.arange(2), [2, 0]] @ head.dense.weight.T + head.dense.bias)
    torch.testing.assert_close(head(x, LEFT), expected, **EXACT)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("scale", "softcap"), [(1.0, None), (0.25, None), (0.25, 3.0)])
@pytest.mark.parametrize("transform", [None, c.LayerNorm(eps=1e-12), c.RMSNorm()])
def test_a_language_head(
    tied: bool, bias: bool, scale: float, softcap: float | None, transform: c.Norm | None
) -> None:
    settings = c.LanguageHead(tied=tied, bias=bias, scale=scale, softcap=softcap, transform=transform)
    model = build(c.ModelConfig(vocabulary=97, context=64, decoder=gpt_stack(), head=settings))
    head, x = model.head, torch.randn(2, 3, 32, dtype=torch.float64)
    assert isinstance(head, LanguageHead)
    y = x
    if transform is not None:
        y = F.gelu(y @ head.dense.weight.T + head.dense.bias)
        if isinstance(transform, c.LayerNorm):
            y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, unbiased=False, keepdim=True) + 1e-12).sqrt()
        else:
            y = y / (y.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    if bias:
        torch.nn.init.normal_(head.bias)
    expected = scale * y @ (model.embed.weight if tied else head.weight).T + (head.bias if bias else 0)
    if softcap:
        expected = softcap * torch.tanh(expected / softcap)
    torch.testing.assert_close(model.logits(x), expected, **EXACT)
    assert ("head.weight" in model.state_dict()) != tied


def test_a_model_without_language_head_has_no_logits() -> None:
    model = build(c.ModelConfig(vocabulary=97, context=64, decoder=gpt_stack(), head=c.NoHead()))
    with pytest.raises(FormatError, match="no scores"):
        model.logits(torch.zeros(1, 32))


def attention(
    block: torch.nn.Module, part: int, x: torch.Tensor, y: torch.Tensor, causal: bool
) -> torch.Tensor:
    """Attention from x to y in two heads of width 8 per key/value head, by the formula."""
    m = block.mixers[part]
    q, k, v = (
        F.linear(z, p.weight, p.bias).unflatten(-1, (-1, 8)) for z, p in ((x, m.q), (y, m.k), (y, m.v))
    )
    k, v = k.repeat_interleave(2, 2), v.repeat_interleave(2, 2)
    scores = torch.einsum("bthk,bshk->bhts", q, k) * 0.4
    if causal:
        scores = scores + torch.full(scores.shape[-2:], float("-inf"), dtype=torch.float64).triu(1)
    out = torch.einsum("bhts,bshk->bthk", scores.softmax(-1), v).flatten(2)
    return F.linear(out, m.o.weight, m.o.bias)


def norm(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], module.weight, module.bias, 1e-5)


@pytest.mark.parametrize("placement", ["pre", "post", "sandwich"])
@pytest.mark.parametrize("cross", [True, False])
def test_norm_placements_are_those_written_by_hand(placement: str, cross: bool) -> None:
    stack = gpt_stack(cross=cross, placement=placement).model_copy(
        update={"attention": c.Attention(heads=4, kv_heads=2, head_width=8, bias="all", scale=0.4)}
    )
    encoder = gpt_stack(causal=False) if cross else None
    model = build(c.ModelConfig(vocabulary=97, context=64, encoder=encoder, decoder=stack))
    for name, parameter in model.named_parameters():
        if "norm" in name:  # norms of ones and zeros would hide which is used
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(len(name)))
    ids, memory = some_ids(2, 5), torch.randn(2, 7, 32, dtype=torch.float64)
    decoder = model.decoder
    x = model.embed.weight[ids] + decoder.positions.weight[:5]
    for block in decoder.blocks:
        parts = [lambda h, b=block: attention(b, 0, h, h, causal=True)]
        if cross:
            parts.append(lambda h, b=block: attention(b, 1, h, memory, causal=False))
        parts.append(
            lambda h, b=block: F.linear(
                F.gelu(F.linear(h, b.mlp.up.weight, b.mlp.up.bias)), b.mlp.down.weight, b.mlp.down.bias
            )
        )
        for i, part in enumerate(parts):
            if placement == "pre":
                x = x + part(norm(block.norms[i], x))
            elif placement == "post":
                x = norm(block.norms[i], x + part(x))
            else:
                x = x + norm(block.out_norms[i], part(norm(block.norms[i], x)))
    expected = x if placement == "post" else norm(decoder.norm, x)
    found = model.decode(ids, memory_BSD=memory if cross else None)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("where", ["stack", "attention"])
def test_dropout_is_there_in_training_and_only_there(where: str) -> None:
    stack = gpt_stack()
    if where == "stack":
        stack = stack.model_copy(update={"dropout": 0.4})
    else:
        stack = stack.model_copy(update={"attention": stack.attention.model_copy(update={"dropout": 0.4})})
    model = build(c.ModelConfig(vocabulary=97, context=64, decoder=stack))
    plain = build(c.ModelConfig(vocabulary=97, context=64, decoder=gpt_stack()))
    ids = some_ids(2, 6)
    assert torch.equal(model.decode(ids), plain.decode(ids))
    model.train()
    torch.manual_seed(0)
    first, second = model.decode(ids), model.decode(ids)
    torch.manual_seed(0)
    assert not torch.equal(first, second)
    assert torch.equal(model.decode(ids), first)


def test_every_head_is_built_for_its_value() -> None:
    heads = [c.LanguageHead(), c.Classifier(labels=("a",)), c.Pooler(), c.NoHead()]
    built = [
        Transformer(c.ModelConfig(vocabulary=9, context=9, decoder=gpt_stack(), head=h)).head for h in heads
    ]
    assert [type(head).__name__ for head in built] == ["LanguageHead", "Classifier", "Pooler", "NoneType"]


def test_an_embedding_is_scaled_and_normed() -> None:
    for scale, embedding_norm in itertools.product((1.0, 3.0), (None, c.LayerNorm())):
        stack = gpt_stack(causal=False).model_copy(update={"embedding_norm": embedding_norm, "segments": 2})
        model = build(c.ModelConfig(vocabulary=97, context=64, encoder=stack, embedding_scale=scale))
        seen = []
        model.encoder.blocks[0].register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        ids, segments = some_ids(1, 4), torch.tensor([[0, 0, 1, 1]])
        model.encode(ids, segments_BS=segments)
        x = model.embed.weight[ids] * scale + model.encoder.positions.weight[:4]
        x = x + model.encoder.segments.weight[segments]
        expected = x if embedding_norm is None else F.layer_norm(x, (32,))
        torch.testing.assert_close(seen[0], expected, **EXACT)
