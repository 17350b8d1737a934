"""One core, three kinds of model: causality, caches, padding and packing change nothing they should not."""

import pytest
import torch

from matura.model import config as c
from matura.model.attention import Packed
from matura.model.counting import count_parameters
from matura.model.transformer import Transformer, fuse_projections
from tests.model.tiny import build, gpt_stack, llama_config, some_ids

EXACT = {"rtol": 0, "atol": 1e-10}


def decoders() -> dict[str, c.ModelConfig]:
    return {
        "llama": llama_config(),
        "llama-untied": llama_config(tied=False, kv_heads=4),
        "gpt": c.ModelConfig(vocabulary=97, context=64, decoder=gpt_stack()),
        "gpt-post": c.ModelConfig(vocabulary=97, context=64, decoder=gpt_stack(placement="post")),
    }


@pytest.fixture(params=decoders())
def decoder(request: pytest.FixtureRequest) -> Transformer:
    return build(decoders()[request.param])


@pytest.fixture(params=["pre", "post"])
def translator(request: pytest.FixtureRequest) -> Transformer:
    return build(
        c.ModelConfig(
            vocabulary=97,
            context=64,
            encoder=gpt_stack(causal=False, placement=request.param),
            decoder=gpt_stack(cross=True, placement=request.param),
        )
    )


def test_later_tokens_change_nothing_before_them(decoder: Transformer) -> None:
    a = some_ids(1, 12)
    b = a.clone()
    b[:, 7:] = some_ids(1, 5, seed=2)
    assert not torch.equal(a, b)
    torch.testing.assert_close(decoder.decode(a)[:, :7], decoder.decode(b)[:, :7], rtol=0, atol=0)


@torch.no_grad()
def test_cached_equals_whole(decoder: Transformer) -> None:
    ids = some_ids(2, 12)
    cache = decoder.new_cache(2, capacity=3)  # has to grow
    parts = [decoder.decode(ids[:, a:b], cache=cache) for a, b in [(0, 5), (5, 6), (6, 9), (9, 10), (10, 12)]]
    torch.testing.assert_close(torch.cat(parts, 1), decoder.decode(ids), **EXACT)


@pytest.mark.parametrize("where", [[8, 0, 3, 3], []])
def test_positions_that_are_asked_for_are_those_of_the_whole(
    decoder: Transformer, translator: Transformer, where: list[int]
) -> None:
    """Values and gradients; the last MLP reads no other, all before it read all."""
    ids, where_N, read = some_ids(2, 9), torch.tensor(where, dtype=torch.long), []
    memory = {"memory_BSD": translator.encode(some_ids(2, 6)).detach()}
    for model, given in ((decoder, {}), (translator, memory)):
        read.clear()
        for block in model.decoder.blocks:
            block.mlp.register_forward_pre_hook(lambda _, given: read.append(given[0].shape[1]))
        found = model.decode(ids, where_N=where_N, **given)
        assert read == [9, len(where)]
        expected = model.decode(ids, **given)[:, where_N]
        torch.testing.assert_close(found, expected, **EXACT)
        weights = [p for p in model.decoder.parameters() if p.requires_grad]
        a, b = (
            torch.autograd.grad(one.square().sum(), weights, materialize_grads=True)
            for one in (found, expected)
        )
        for one, other in zip(a, b, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-8)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_equals_alone(decoder: Transformer, side: str) -> None:
    short, long = some_ids(1, 5), some_ids(1, 9, seed=3)
    padding = torch.zeros(1, 4, dtype=torch.long)
    row = torch.cat([padding, short] if side == "left" else [short, padding], 1)
    real = (
        torch.tensor([[False] * 4 + [True] * 5])
        if side == "left"
        else torch.tensor([[True] * 5 + [False] * 4])
    )
    mask = torch.cat([real, torch.ones(1, 9, dtype=torch.bool)])
    both = decoder.decode(torch.cat([row, long]), mask=mask)
    torch.testing.assert_close(both[0][real[0]], decoder.decode(short)[0], **EXACT)
    torch.testing.assert_close(both[1:], decoder.decode(long), **EXACT)


def test_packed_equals_alone_in_values_and_gradients(decoder: Transformer) -> None:
    pieces = [some_ids(1, n, seed=n) for n in (4, 4, 7, 1)]
    parameters = list(decoder.parameters())

    def gradients(outs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(sum(out.sin().sum() for out in outs), parameters, allow_unused=True)

    packed = decoder.decode(torch.cat(pieces, 1), mask=Packed((4, 4, 7, 1))).split([4, 4, 7, 1], 1)
    alone = [decoder.decode(piece) for piece in pieces]
    for a, b in zip(packed, alone, strict=True):
        torch.testing.assert_close(a, b, **EXACT)
    for a, b in zip(gradients(list(packed)), gradients(alone), strict=True):
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


@torch.no_grad()
def test_fused_projections_change_nothing(decoder: Transformer) -> None:
    ids = some_ids(2, 9)
    names = set(decoder.state_dict())
    expected = decoder.decode(ids)
    fused = fuse_projections(decoder)
    torch.testing.assert_close(fused.decode(ids), expected, **EXACT)
    cache = fused.new_cache(2)
    parts = [fused.decode(ids[:, a:b], cache=cache) for a, b in [(0, 5), (5, 6), (6, 9)]]
    torch.testing.assert_close(torch.cat(parts, 1), expected, **EXACT)
    assert set(fused.state_dict()) == names


def test_an_encoder_sees_both_sides_and_ignores_padding() -> None:
    model = build(c.ModelConfig(vocabulary=97, context=64, encoder=gpt_stack(causal=False)))
    ids = some_ids(1, 6)
    changed = ids.clone()
    changed[0, 5] = (changed[0, 5] + 1) % 97
    assert not torch.allclose(model.encode(ids)[0, 0], model.encode(changed)[0, 0])
    padded = torch.cat([ids, torch.zeros(1, 3, dtype=torch.long)], 1)
    mask = torch.tensor([[True] * 6 + [False] * 3])
    torch.testing.assert_close(model.encode(padded, mask=mask)[:, :6], model.encode(ids), **EXACT)


@torch.no_grad()
def test_an_encoder_decoder_caches_and_masks_its_memory(translator: Transformer) -> None:
    source, target = some_ids(2, 6), some_ids(2, 8, seed=2)
    real = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    memory = translator.encode(source, mask=real)
    whole = translator.decode(target, memory_BSD=memory, memory_mask_BS=real)
    cache = translator.new_cache(2)
    parts = [
        translator.decode(target[:, a:b], memory_BSD=memory, memory_mask_BS=real, cache=cache)
        for a, b in [(0, 3), (3, 4), (4, 8)]
    ]
    torch.testing.assert_close(torch.cat(parts, 1), whole, **EXACT)
    short = translator.encode(source[1:, :4])
    torch.testing.assert_close(translator.decode(target[1:], memory_BSD=short), whole[1:], **EXACT)


def test_the_same_seed_gives_the_same_weights() -> None:
    a, b, other = (Transformer(llama_config()).initialize(seed) for seed in (1, 1, 2))
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.embed.weight, other.embed.weight)


@pytest.mark.parametrize("name", decoders())
def test_parameters_are_counted(name: str) -> None:
    config = decoders()[name]
    total, _ = count_parameters(config)
    assert total == sum(p.numel() for p in Transformer(config).parameters())


def test_settings_that_make_no_model_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of kv_heads"):
        c.Attention(heads=4, kv_heads=3, head_width=8)
    with pytest.raises(ValueError, match="encoder, a decoder or both"):
        c.ModelConfig(vocabulary=10, context=10)
    with pytest.raises(ValueError, match="no encoder"):
        build(llama_config()).encode(some_ids(1, 2))


def test_training_joins_the_projections_and_computes_the_same(
    decoder: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gradients() -> dict[str, torch.Tensor]:
        decoder.zero_grad()
        decoder.logits(decoder.decode(some_ids(2, 7))).square().mean().backward()
        return {n: p.grad.clone() for n, p in decoder.named_parameters() if p.grad is not None}

    def watched() -> dict[str, torch.Tensor]:
        """With the inputs of one projection looked at: then it must be called."""
        seen: list[torch.Size] = []
        looking = (
            decoder.decoder.blocks[0]
            .mixers[0]
            .k.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
        )
        found = gradients()
        looking.remove()
        assert seen == [torch.Size([2, 7, 32])]
        return found

    joined, mixed = gradients(), watched()
    monkeypatch.setattr("matura.model.block.joined", lambda _: None)
    apart = gradients()
    assert joined.keys() == apart.keys() == dict(decoder.named_parameters()).keys()
    for name, gradient in apart.items():
        torch.testing.assert_close(joined[name], gradient, **EXACT, msg=name)
        torch.testing.assert_close(mixed[name], gradient, **EXACT, msg=name)
