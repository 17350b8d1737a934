"""The loss, its gradients and the logits against transformers on the same weights, and packed against alone."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama

from matura.model.attention import Packed
from matura.model.config import ModelConfig, Rope
from matura.model.families.llama import LLAMA
from matura.model.transformer import Transformer
from matura.train.batches import Example, pack
from matura.train.objectives import next_token
from tests.model.tiny import build, llama_config, some_ids
from tests.train.test_batches import examples


def names(config: ModelConfig) -> dict[str, str]:
    """transformers' names of tensors -> ours."""
    return {entry.theirs: entry.ours[0] for entry in LLAMA.entries(config)}


class _Doubled:
    """`torch` for the reference, whose norms and angles go through float32 whatever the model's dtype is."""

    float32 = float = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@pytest.fixture
def double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modeling_llama, "torch", _Doubled())
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


def reference(model: Transformer) -> LlamaForCausalLM:
    """The same weights in transformers."""
    config = model.config
    assert config.decoder is not None
    assert isinstance(config.decoder.position, Rope)
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocabulary,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=config.decoder.layers,
            num_attention_heads=4,
            num_key_value_heads=config.decoder.attention.kv_heads,
            max_position_embeddings=config.context,
            rms_norm_eps=1e-5,
            tie_word_embeddings=config.tied,
            attn_implementation="eager",
        )
    ).double()
    ours = model.state_dict()
    state = {name: ours[mine] for name, mine in names(config).items()}
    if config.tied:
        state["lm_head.weight"] = ours["embed.weight"]
    theirs.load_state_dict(state)
    exponents = torch.arange(0, 8, 2, dtype=torch.float64) / 8
    theirs.model.rotary_emb.inv_freq = config.decoder.position.theta**-exponents
    return theirs


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_logits_loss_and_gradients_equal_transformers(tied: bool, kv_heads: int) -> None:
    model = build(llama_config(tied=tied, kv_heads=kv_heads))
    theirs = reference(model)
    ids = some_ids(1, 40)
    expected = theirs(ids, labels=ids, use_cache=False)
    torch.testing.assert_close(model.logits(model.decode(ids)), expected.logits, rtol=0, atol=1e-10)
    expected.loss.backward()
    batch = pack([Example(tuple(ids[0].tolist()), (True,) * 40)])
    loss = next_token(model, batch) / batch.weight
    loss.backward()
    torch.testing.assert_close(loss, expected.loss, rtol=0, atol=1e-10)
    ours = dict(model.named_parameters())
    theirs_named = dict(theirs.named_parameters())
    ours_of = names(model.config)
    assert set(ours_of.values()) == set(ours)
    for name, mine in ours_of.items():
        torch.testing.assert_close(ours[mine].grad, theirs_named[name].grad, rtol=0, atol=1e-10, msg=name)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_packed_examples_give_the_loss_and_gradients_that_they_give_alone(dtype: torch.dtype) -> None:
    """T10: no contamination: no example sees another, positions restart, the first token of none is a target."""
    model = build(llama_config()).to(dtype)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    made = examples(7)
    batch = pack(made)
    batch_loss = next_token(model, batch)
    batch_loss.backward()
    packed = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    alone = 0.0
    for example in made:
        loss = next_token(model, pack([example]))
        loss.backward()
        alone += loss.item()
    assert batch_loss.item() == pytest.approx(alone, rel=tolerance)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, packed[name], rtol=tolerance, atol=tolerance)
    with torch.no_grad():  # the trap itself: one long sequence
        mixed = replace(batch, mask=Packed((sum(batch.mask.lengths),)))
        assert next_token(model, mixed).item() != pytest.approx(alone, rel=1e-3)


def test_what_is_masked_has_no_loss_but_is_read() -> None:
    model = build(llama_config())
    ids = (3, 4, 5, 6, 7)
    part = next_token(model, pack([Example(ids, (False, False, False, True, True))]))
    other = next_token(model, pack([Example((9, *ids[1:]), (False, False, False, True, True))]))
    whole = next_token(model, pack([Example(ids, (True,) * 5)]))
    head = next_token(model, pack([Example(ids[:3], (True,) * 3)]))
    assert part.item() != pytest.approx(other.item())
    assert whole.item() == pytest.approx(head.item() + part.item(), abs=1e-10)


def test_an_example_weighs_what_it_says() -> None:
    model = build(llama_config())
    one, heavy = Example((1, 2, 3), (True,) * 3), Example((1, 2, 3), (2.5,) * 3)
    assert next_token(model, pack([heavy])).item() == pytest.approx(
        2.5 * next_token(model, pack([one])).item()
    )
