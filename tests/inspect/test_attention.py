"""Recorded attention: equal to the reference implementation, only what was asked for, and without any effect."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from matura.core.errors import MaturaError
from matura.inspect.attention import _looking_on, record
from matura.inspect.reading import Inputs
from matura.model import config as c
from tests.inspect.readings import reading
from tests.model import tiny
from tests.model.families.reference import close, randomized, saved

SIZES = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
IDS = [7, 12, 30, 7, 12, 44, 9]
OTHERS = [3, 50, 21, 8]


def eager(cls: Any, config: Any) -> Any:
    return randomized(cls._from_config(config, attn_implementation="eager"))


def test_a_decoder_with_shared_key_heads_equals_transformers(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(**SIZES, num_key_value_heads=2, intermediate_size=48)
    theirs = eager(transformers.LlamaForCausalLM, config)
    (found,) = record(saved(tmp_path, theirs), Inputs(target=reading(IDS)))
    expected = theirs(torch.tensor([IDS]), output_attentions=True).attentions
    close(found.weights_LHTS, torch.cat(expected))
    assert (found.part, found.causal, found.all_heads, found.kv_heads) == ("decoder", True, 4, 2)
    assert found.weights_LHTS.std(1).max() > 0.05  # heads that share keys still differ


def test_an_encoder_equals_transformers(tmp_path: Path) -> None:
    config = transformers.BertConfig(**SIZES, intermediate_size=48, max_position_embeddings=16)
    theirs = eager(transformers.BertModel, config)
    (found,) = record(saved(tmp_path, theirs), Inputs(reading(IDS)))
    close(found.weights_LHTS, torch.cat(theirs(torch.tensor([IDS]), output_attentions=True).attentions))
    assert (found.part, found.causal) == ("encoder", False)


def test_all_three_attentions_of_an_encoder_decoder_equal_transformers(tmp_path: Path) -> None:
    config = transformers.T5Config(
        vocab_size=61, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_decoder_layers=3, num_heads=4
    )
    theirs = eager(transformers.T5ForConditionalGeneration, config)
    given = Inputs(reading(IDS), reading(OTHERS))
    ids, target = torch.tensor([IDS]), torch.tensor([OTHERS])
    expected = theirs(ids, decoder_input_ids=target, output_attentions=True)
    model = saved(tmp_path, theirs)
    found = {one.part: one for one in record(model, given)}
    close(found["encoder"].weights_LHTS, torch.cat(expected.encoder_attentions))
    close(found["decoder"].weights_LHTS, torch.cat(expected.decoder_attentions))
    close(found["cross"].weights_LHTS, torch.cat(expected.cross_attentions))
    (some,) = record(model, given, only=["cross"], layers=[2, 1], heads=[3])  # biased by relative positions
    assert torch.equal(some.weights_LHTS, found["cross"].weights_LHTS[1:, 3:])
    (some,) = record(model, given, only=["decoder"], heads=[2, 1])
    assert torch.equal(some.weights_LHTS, found["decoder"].weights_LHTS[:, 1:3])


def test_rows_sum_to_one_and_nothing_looks_ahead() -> None:
    (found,) = record(tiny.build(tiny.llama_config()), Inputs(target=reading(IDS)))
    assert found.weights_LHTS.dtype == torch.float64
    torch.testing.assert_close(found.weights_LHTS.sum(-1), torch.ones(2, 4, 7, dtype=torch.float64))
    seen = torch.ones(7, 7, dtype=torch.bool).tril()
    assert torch.equal(found.weights_LHTS != 0, seen.expand(2, 4, 7, 7))


def test_a_sliding_window_shows() -> None:
    config = tiny.llama_config()
    assert config.decoder is not None
    local = config.decoder.model_copy(update={"local": c.Local(window=3, layers=(1,))})
    (found,) = record(tiny.build(config.model_copy(update={"decoder": local})), Inputs(target=reading(IDS)))
    far = torch.ones(7, 7, dtype=torch.bool).tril(-3)
    assert found.weights_LHTS[0][:, far].all()
    assert not found.weights_LHTS[1][:, far].any()


def test_looking_changes_neither_the_output_nor_the_model() -> None:
    model = tiny.build(tiny.llama_config(), dtype=torch.float32)
    ids = torch.tensor([IDS])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        plain = model.decode(ids)
        places = {("decoder", i): range(4) for i in range(2)}
        watched = model.decode(ids, attend=_looking_on(places, places, {}))
        record(model, Inputs(target=reading(IDS)))
        after = model.decode(ids)
    assert torch.equal(plain, watched)
    assert torch.equal(plain, after)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_only_what_was_asked_for_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    from matura.inspect import attention

    computed: list[int] = []
    real = attention.attend_reference

    def counting(q_BHTK: torch.Tensor, *args: Any, **more: Any) -> Any:
        computed.append(q_BHTK.shape[1])
        return real(q_BHTK, *args, **more)

    model = tiny.build(tiny.llama_config(layers=5))
    (whole,) = record(model, Inputs(target=reading(IDS)))
    monkeypatch.setattr(attention, "attend_reference", counting)
    (some,) = record(model, Inputs(target=reading(IDS)), layers=[3, 1], heads=[2])
    assert computed == [1, 1]
    assert (some.layers, some.heads) == ((1, 3), (2,))
    torch.testing.assert_close(some.weights_LHTS, whole.weights_LHTS[[1, 3]][:, [2]], rtol=1e-10, atol=1e-10)


def test_too_many_weights_are_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.build(tiny.llama_config(), dtype=torch.float32)
    size = 2 * 4 * 7 * 7 * 4
    assert record(model, Inputs(target=reading(IDS)), limit=size)
    assert record(model, Inputs(target=reading(IDS)), layers=[0], heads=[1], limit=size // 8)
    monkeypatch.setattr(model, "decode", lambda *args, **more: pytest.fail("it ran"))
    with pytest.raises(
        MaturaError, match=r"2 layers x 4 heads x 7 x 7 tokens.*fewer layers or heads, shorten"
    ):
        record(model, Inputs(target=reading(IDS)), limit=size - 1)


def test_what_is_not_there_is_told() -> None:
    model = tiny.build(tiny.llama_config())
    given = Inputs(target=reading(IDS))
    with pytest.raises(MaturaError, match="the decoder has no layer 2: its layers are 0 to 1"):
        record(model, given, layers=[0, 2])
    with pytest.raises(MaturaError, match="the decoder has no head 4: its heads are 0 to 3"):
        record(model, given, heads=[4])
    with pytest.raises(MaturaError, match="no cross attention here; there is: decoder"):
        record(model, given, only=["cross"])
    with pytest.raises(
        MaturaError, match=r"no cross attention here \(give a target text\); there is: encoder"
    ):
        record(model, Inputs(reading(IDS)), only=["cross"])
