"""LoRA against the paper's formula, and what it must leave alone.

Traps: T31 (merging), T32 (tied embeddings), T33 (targets that match nothing), T35 (the chunked loss and a head with
an update).
"""

import pytest
import torch
from torch import nn

from matura.core.errors import ConfigError
from matura.core.peft_settings import LoraConfig
from matura.model import config as c
from matura.model.heads import Unembedding
from matura.model.int4 import Int4Linear
from matura.model.layers import outputs
from matura.model.logprobs import cross_entropy, cross_entropy_reference
from matura.model.peft import lora
from matura.model.peft.lora import LoraLinear, apply_lora, lora_state, merge_lora, updates
from matura.model.transformer import Transformer, fuse_projections
from tests.model.tiny import build, gpt_stack, llama_config, some_ids


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


def neighbours(kind: str) -> list[LoraLinear]:
    """Layers of one input, each with a width, a rank and a scale of its own."""
    torch.manual_seed(0)
    made = []
    for width, rank, scale in ((10, 3, 0.5), (6, 1, 2.0), (4, 2, -1.0)):
        base: nn.Linear | Int4Linear = nn.Linear(8, width, bias=kind == "bias" and width != 6)
        if kind == "int4":
            base = Int4Linear(base, 32)
        made.append(LoraLinear(base, rank, scale).double())
    with torch.no_grad():
        for layer in made:
            layer.b.normal_()
    return made


@pytest.mark.parametrize("kind", ["plain", "bias", "int4"])
def test_layers_of_one_input_equal_the_paper_each(kind: str) -> None:
    layers = neighbours(kind)
    x = torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True)
    inputs = (x, *(p for layer in layers for p in (layer.a, layer.b)))
    found, expected = outputs(layers, x), [layer.forward_reference(x) for layer in layers]
    upstream = [torch.randn_like(y) for y in expected]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    for a, b in zip(
        torch.autograd.grad(found, inputs, upstream),
        torch.autograd.grad(expected, inputs, upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_a_layer_whose_output_is_not_used_moves_nothing() -> None:
    layers = neighbours("plain")
    x = torch.randn(5, 8, dtype=torch.float64, requires_grad=True)
    outputs(layers, x)[1].sum().backward()
    (expected,) = torch.autograd.grad(layers[1].forward_reference(x).sum(), x)
    assert x.grad is not None
    torch.testing.assert_close(x.grad, expected, rtol=0, atol=1e-12)
    assert layers[0].b.grad is None or not layers[0].b.grad.any()
    assert layers[1].b.grad is not None
    assert layers[1].b.grad.any()


def test_layers_of_one_input_with_dropout_each_have_their_own() -> None:
    layers = neighbours("plain")
    x = torch.ones(40, 8, dtype=torch.float64)
    for layer in layers:
        layer.dropout = 0.5
    layers[0].eval()
    torch.manual_seed(7)
    found = outputs(layers, x)
    torch.manual_seed(7)
    for a, b in zip(found, [layer(x) for layer in layers], strict=True):
        assert torch.equal(a, b)
    assert (found[1].std(0) > 0).all()
    assert (found[0] == found[0][0]).all()


@pytest.mark.parametrize(
    ("kind", "tokens", "sums"), [("plain", 5, 3), ("plain", 4, 4), ("plain", 2, 6), ("int4", 5, 6)]
)
def test_a_sum_is_kept_where_it_is_smaller_than_what_the_layer_reads_and_writes(
    kind: str, tokens: int, sums: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The widest of three is not with a token less; one of packed weights never is. Gradients are the same. An input
    that needs none, as in the first block of a frozen model, has no use for a second sum."""
    made: list[int] = []
    exact = lora._Frozen.plus
    monkeypatch.setattr(lora._Frozen, "plus", lambda *given: made.append(1) or exact(*given))
    layers = neighbours(kind)
    x = torch.randn(tokens, 8, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(sum(y.square().sum() for y in outputs(layers, x)), x)
    assert len(made) == sums
    (expected,) = torch.autograd.grad(sum(one.forward_reference(x).square().sum() for one in layers), x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    made.clear()
    torch.cat(list(outputs(layers, x.detach())), -1).sum().backward()
    assert len(made) == 3
    assert all(layer.a.grad is not None for layer in layers)


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many layers were computed together, each time that some were."""
    counts: list[int] = []
    exact = lora._products
    monkeypatch.setattr(lora, "_products", lambda layers, x: counts.append(len(layers)) or exact(layers, x))
    return counts


def gradients(model: Transformer) -> list[torch.Tensor]:
    model.zero_grad()
    model.decode(some_ids(1, 9)).square().sum().backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


def test_a_block_computes_its_layers_of_one_input_together(
    together: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And gets the gradients of the paper's formula in every layer."""
    model = moved(apply_lora(build(llama_config()), LoraConfig(rank=2)))
    found = gradients(model)
    assert together == [3, 1, 2, 1] * 2
    monkeypatch.setattr(LoraLinear, "forward", LoraLinear.forward_reference)
    monkeypatch.delattr(LoraLinear, "together")
    for one, expected in zip(found, gradients(model), strict=True):
        torch.testing.assert_close(one, expected, rtol=0, atol=1e-9)


def test_a_layer_without_neighbours_of_its_kind_is_computed_alone(together: list[int]) -> None:
    """So is one that somebody looks at through a hook."""
    gradients(moved(apply_lora(build(llama_config()), LoraConfig(targets=("q", "v", "up")))))
    assert together == [1, 1, 1] * 2
    together.clear()
    model, seen = apply_lora(build(llama_config(layers=1)), LoraConfig()), []
    model.get_submodule("decoder.blocks.0.mixers.0.k").register_forward_hook(lambda *_: seen.append(1))
    gradients(model)
    assert (together, seen) == ([1, 1, 1, 1, 2, 1], [1])


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
    with pytest.raises(
        ConfigError, match=r"'query'; this model has down, embed, gate, k, o, q, up, v, and all-linear"
    ):
        apply_lora(build(llama_config()), LoraConfig(targets=("query", "v")))


def moved(model: Transformer, seed: int = 5) -> Transformer:
    """Updates that say something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in lora_state(model).values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) * 0.2)
    return model


def logits(model: Transformer, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model.decode(ids))


def test_t31_merged_equals_unmerged_in_float32() -> None:
    """T31: to 1e-5 of the largest logit, with all kinds of layers updated."""
    ids = some_ids(2, 20)
    model = moved(
        apply_lora(build(llama_config(), dtype=torch.float32), LoraConfig(targets=("all-linear", "embed")))
    )
    before = logits(model, ids)
    after = logits(merge_lora(model), ids)
    assert (after - before).abs().max() < 1e-5 * before.abs().max()
    assert model.state_dict().keys() == build(llama_config()).state_dict().keys()


def test_all_linear_is_what_the_blocks_have() -> None:
    gpt = c.ModelConfig(vocabulary=97, context=64, decoder=gpt_stack())
    names = {one.name for one in updates(apply_lora(build(gpt), LoraConfig(rank=2)))}
    assert names == {
        f"decoder.blocks.{i}.{part}"
        for i in range(2)
        for part in ("mixers.0.q", "mixers.0.k", "mixers.0.v", "mixers.0.o", "mlp.up", "mlp.down")
    }


@pytest.mark.parametrize(
    ("targets", "count"),
    [
        (("q",), 2),
        (("decoder.blocks.1.mixers.0.q",), 1),
        (("decoder.blocks.0.*",), 7),
        (("decoder.blocks.?.mlp.*", "o"), 8),
        (("all-linear", "q"), 14),
    ],
)
def test_t33_targets_choose_exactly_what_they_name(targets: tuple[str, ...], count: int) -> None:
    """T33: no more and no less, in a model of one layer too."""
    assert len(list(updates(apply_lora(build(llama_config()), LoraConfig(targets=targets))))) == count
    one = apply_lora(build(llama_config(layers=1)), LoraConfig())
    assert len(list(updates(one))) == 7


@pytest.mark.parametrize("target", ["q_proj", "decoder.blocks.7.*", "blocks.0.mixers.0.q", ""])
def test_t33_a_target_that_matches_nothing_is_an_error(target: str) -> None:
    """T33: beside one that matches too, and the message lists what there is."""
    with pytest.raises(ConfigError, match="this model has down, embed, gate, k, o, q, up, v, and all-linear"):
        apply_lora(build(llama_config()), LoraConfig(targets=("q", target)))


def test_ranks_and_alphas_of_their_own() -> None:
    config = LoraConfig(
        rank=4, alpha=8, targets=("q", "down"), ranks={"decoder.blocks.1.*": 2}, alphas={"down": 3}
    )
    found = {
        one.name: (len(one.a_RI), one.scale) for one in updates(apply_lora(build(llama_config()), config))
    }
    assert found == {
        "decoder.blocks.0.mixers.0.q": (4, 2.0),
        "decoder.blocks.0.mlp.down": (4, 0.75),
        "decoder.blocks.1.mixers.0.q": (2, 4.0),
        "decoder.blocks.1.mlp.down": (2, 1.5),
    }
    with pytest.raises(ConfigError, match=r"lora.ranks: 'up' names none of the 2 layers"):
        apply_lora(build(llama_config()), LoraConfig(targets=("q",), ranks={"up": 2}))


def test_dropout_is_of_the_update_alone_and_off_outside_training() -> None:
    model = moved(apply_lora(build(llama_config()), LoraConfig(dropout=0.5)))
    plain = moved(apply_lora(build(llama_config()), LoraConfig()))
    ids = some_ids(1, 9)
    assert torch.equal(logits(model, ids), logits(plain, ids))
    model.train()
    torch.manual_seed(1)
    first, second = logits(model, ids), logits(model, ids)
    assert not torch.equal(first, second)
    layer = next(module for module in model.modules() if isinstance(module, LoraLinear))
    with torch.no_grad():
        layer.b.zero_()
        x = torch.randn(2, 5, 32, dtype=torch.float64)
        torch.testing.assert_close(layer(x), layer.base(x))


@pytest.mark.parametrize("tied", [True, False])
def test_t32_a_tied_embedding_stays_tied(tied: bool) -> None:
    """T32: an update of the embedding is seen where tokens are read and, tied, where they are scored; merged too."""
    plain = build(llama_config(tied=tied))
    model = moved(apply_lora(build(llama_config(tied=tied)), LoraConfig(rank=2, targets=("embed",))))
    (one,) = updates(model)
    with torch.no_grad():
        plain.embed.weight.add_(one.b_OR @ one.a_RI, alpha=one.scale)
    ids = some_ids(1, 9)
    torch.testing.assert_close(logits(model, ids), logits(plain, ids), rtol=0, atol=1e-12)
    torch.testing.assert_close(logits(merge_lora(model), ids), logits(plain, ids), rtol=0, atol=1e-12)
    assert model.state_dict().keys() == plain.state_dict().keys()


def test_t32_the_output_matrix_of_its_own() -> None:
    """T32: `head` is an error where there is none apart from the embedding, with the name that is right."""
    model = moved(apply_lora(build(llama_config(tied=False)), LoraConfig(rank=2, targets=("head",))))
    ids, plain = some_ids(1, 9), build(llama_config(tied=False))
    assert not torch.allclose(logits(model, ids), logits(plain, ids))
    assert torch.equal(model.decode(ids), plain.decode(ids))
    with pytest.raises(ConfigError, match="output matrix is its embedding; `embed` updates both"):
        apply_lora(build(llama_config()), LoraConfig(targets=("head", "q")))


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize(("tied", "target"), [(True, "embed"), (False, "head")])
@pytest.mark.parametrize("positions", [0, 7])
def test_t35_the_chunked_loss_sees_the_update_of_the_head(
    tied: bool, target: str, softcap: float | None, positions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T35: loss and gradients in chunks equal those of all logits at once, tied or not, capped, and with no target."""
    monkeypatch.setattr("matura.model.logprobs.CHUNK", 3)
    model = moved(apply_lora(build(llama_config(tied=tied)), LoraConfig(rank=2, targets=(target, "q"))))
    ids, targets = some_ids(1, 7), some_ids(positions, seed=2)
    weights = torch.linspace(0.5, 1.5, positions, dtype=torch.float64)
    state = list(lora_state(model))
    results = []
    for loss in (cross_entropy, cross_entropy_reference):
        for parameter in model.parameters():
            parameter.grad = None
        matrix = Unembedding(model.unembedding.weight_VD, None, softcap)
        value = loss(model.decode(ids)[0, :positions], matrix, targets, weights)
        value.backward()
        grads = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
        results.append((value.detach(), grads))
    (found, grads), (expected, reference) = results
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert len(grads) == len(state)
    for name, grad in grads.items():
        torch.testing.assert_close(grad, reference[name], rtol=0, atol=1e-10)
    if positions:
        assert all(grad is not None and grad.abs().max() > 0 for grad in grads.values())


def test_a_model_that_was_fused_for_inference_uses_its_updates() -> None:
    """The joint matrix of queries, keys and values would be used in the place of the layers."""
    ids = some_ids(1, 9)
    with torch.inference_mode():
        expected = moved(apply_lora(build(llama_config()), LoraConfig()))
        fused = moved(apply_lora(fuse_projections(build(llama_config())), LoraConfig()))
        torch.testing.assert_close(logits(fused, ids), logits(expected, ids), rtol=0, atol=1e-12)
