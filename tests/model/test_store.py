"""Models on disk: what is saved comes back bit for bit, what others saved means the same, what lies is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from matura.core import artifact
from matura.core.artifact import Artifact
from matura.core.errors import ArtifactError, FormatError
from matura.core.peft_settings import LoraConfig, Tuning
from matura.core.settings import Sampling
from matura.infer.engine import generate
from matura.model import checkpoint, store
from matura.model.config import ModelConfig
from matura.model.counting import count_parameters
from matura.model.peft.lora import apply_lora, lora_state
from matura.model.transformer import Transformer
from tests.gguf_files import Tensor, write_gguf
from tests.model.tiny import some_ids
from tests.tiny_models import gguf_parts, network, write_gguf_model


def draft(folder: Path, kind: str = "model", **inputs: Artifact) -> artifact.Draft:
    return artifact.begin(folder, kind=kind, stage="test", version=1, config={}, inputs=inputs)


def saved(folder: Path, model: Transformer) -> Artifact:
    made = draft(folder)
    store.save(made.path, model)
    return made.commit({})


def equal(a: Transformer, b: Transformer) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_model_comes_back_bit_for_bit(tied: bool, tmp_path: Path) -> None:
    model = network(tied=tied)
    again = store.load(saved(tmp_path / "m", model).path)
    assert equal(again, model)
    assert again.config == model.config
    assert not again.training
    tensors = load_file(tmp_path / "m" / store.WEIGHTS)
    assert ("head.weight" in tensors) is not tied
    assert sum(t.numel() for t in tensors.values()) == count_parameters(model.config)[0]


def test_in_another_precision(tmp_path: Path) -> None:
    made = saved(tmp_path / "m", network())
    again = store.load(made.path, dtype=torch.float64)
    assert again.embed.weight.dtype == torch.float64
    assert torch.equal(again.embed.weight.float(), network().embed.weight)


def trained_lora(model: Transformer, config: LoraConfig) -> Transformer:
    apply_lora(model, config, seed=3)
    with torch.no_grad():
        for tensor in lora_state(model).values():
            tensor.normal_(0, 0.3, generator=torch.Generator().manual_seed(4))
    return model


@pytest.fixture
def adapted(tmp_path: Path) -> tuple[Artifact, Transformer]:
    """An artifact of updates on a parent, and the model that was saved."""
    parent = saved(tmp_path / "parent", network())
    config = LoraConfig(rank=3, alpha=5.0, targets=("q", "down"), rank_stabilized=True)
    model = trained_lora(network(), config)
    made = draft(tmp_path / "child", model=parent)
    store.save_adapter(made.path, model, Tuning(lora=config))
    return made.commit({}), model


def test_updates_come_back_on_their_parent(adapted: tuple[Artifact, Transformer]) -> None:
    made, model = adapted
    assert not (made.path / store.WEIGHTS).exists()
    again, ids = store.load(made.path), some_ids(1, 20)
    assert equal(again, model)
    assert torch.equal(again.logits(again.decode(ids)), model.logits(model.decode(ids)))
    settings = store.adapter_settings(made.path)
    assert settings is not None
    assert settings.lora.rank == 3
    assert store.adapter_settings(made.input("model").path) is None


def test_settings_from_before_there_were_other_methods_are_read(
    adapted: tuple[Artifact, Transformer],
) -> None:
    made, model = adapted
    place = made.path / store.ADAPTER_CONFIG
    old = json.loads(place.read_text())["lora"]
    for name in ("dropout", "ranks", "alphas"):
        del old[name]
    place.write_text(json.dumps(old))
    assert equal(store.load(made.path), model)


def test_updates_need_their_own_parent(adapted: tuple[Artifact, Transformer], tmp_path: Path) -> None:
    made, _ = adapted
    (tmp_path / "parent").rename(tmp_path / "away")
    with pytest.raises(ArtifactError, match="which is gone"):
        store.load(made.path)
    saved(tmp_path / "parent", network(seed=9))
    with pytest.raises(ArtifactError, match="now holds"):
        store.load(made.path)


def hf_model(tied: bool) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        rms_norm_eps=1e-5,
        tie_word_embeddings=tied,
        rope_parameters={"rope_type": "default", "rope_theta": 50_000.0},
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shards", ["5GB", "10KB"])
def test_a_hugging_face_folder_gives_the_logits_of_transformers(
    tied: bool, shards: str, tmp_path: Path
) -> None:
    theirs = hf_model(tied)
    theirs.save_pretrained(tmp_path, max_shard_size=shards)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) is (shards == "10KB")
    found = checkpoint.read(tmp_path)
    assert found.quantization is None
    ours, ids = store.build(found, tmp_path), some_ids(2, 50)
    with torch.no_grad():
        expected = theirs(ids).logits
        torch.testing.assert_close(ours.logits(ours.decode(ids)), expected, rtol=1e-5, atol=1e-5)
        generated = theirs.generate(ids[:1, :9], max_new_tokens=20, do_sample=False, pad_token_id=0)
    settings = Sampling(temperature=0, max_new_tokens=20)
    stop = theirs.generation_config.eos_token_id
    new = generate(ours, [ids[0, :9].tolist()], settings, [stop])[0]
    assert new == [id for id in generated[0, 9:].tolist() if id != stop]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "lama"}, "model_type 'lama' is not supported; did you mean 'llama'"),
        ({"attention_bias": True}, "8 missing: model.layers.0.self_attn.k_proj.bias"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu' is not supported"),
        ({"rope_parameters": {"rope_type": "other", "rope_theta": 1e4}}, "rope scaling 'other'"),
        ({"rope_parameters": {"rope_type": "linear"}}, "'factor' is missing"),
        ({"num_hidden_layers": 3}, "9 missing: model.layers.2.input_layernorm.weight"),
        ({"num_hidden_layers": 1}, "9 unknown: model.layers.1.input_layernorm.weight"),
        ({"num_hidden_layers": 10**9}, "layers input should be less than or equal to 2000, got 1000000000"),
        ({"num_hidden_layers": "two"}, "describe no model"),
        ({"num_attention_heads": 3}, "describe no model"),
        ({"num_attention_heads": 0}, "describe no model"),
        ({"head_dim": 7}, "7 of the 7 dimensions of a head is odd"),
        ({"intermediate_size": 49}, r"mlp.gate.weight has shape \(48, 32\), its settings say \(49, 32\)"),
        ({"vocab_size": 96}, r"embed.weight has shape \(97, 32\), its settings say \(96, 32\)"),
        ({"tie_word_embeddings": False}, "1 missing: lm_head.weight"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_their_weights_are_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    hf_model(tied=True).save_pretrained(tmp_path)
    settings = tmp_path / "config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | change))
    with pytest.raises(FormatError, match=message):
        store.build(checkpoint.read(tmp_path), tmp_path)


def test_a_missing_setting_is_named(tmp_path: Path) -> None:
    hf_model(tied=True).save_pretrained(tmp_path)
    settings = tmp_path / "config.json"
    settings.write_text(
        json.dumps({k: v for k, v in json.loads(settings.read_text()).items() if k != "vocab_size"})
    )
    with pytest.raises(FormatError, match="'vocab_size' is missing"):
        checkpoint.read(tmp_path)


@pytest.mark.parametrize("tied", [True, False])
def test_a_gguf_file_gives_the_same_weights(tied: bool, tmp_path: Path) -> None:
    model = network(tied=tied)
    path = write_gguf_model(tmp_path / "m.gguf", model)
    found = checkpoint.read(path)
    assert found.quantization is None
    assert equal(store.build(found, path), model)
    assert equal(store.build(checkpoint.read(tmp_path), tmp_path), model)
    assert found.config == model.config


def test_the_quantization_of_most_weights_is_known(tmp_path: Path) -> None:
    metadata, tensors = gguf_parts(network())
    tensors = [
        Tensor(t.name, "Q8_0", t.dims, bytes(34 * np.prod(t.dims) // 32))
        if len(t.dims) == 2 and t.dims[0] % 32 == 0
        else t
        for t in tensors
    ]
    found = checkpoint.read(write_gguf(tmp_path / "m.gguf", metadata, tensors))
    assert found.quantization == "Q8_0"


@pytest.mark.parametrize(
    ("more", "small", "expected"),
    [
        ({"general.file_type": 15}, 1, "Q4_K_M"),
        ({"general.file_type": 1}, 3, "Q4_0"),
        ({"general.file_type": 999}, 3, "Q4_0"),
        ({}, 3, "Q4_0"),
        ({}, 1, "Q8_0"),
    ],
)
def test_a_mixed_file_is_called_by_its_mix(
    more: dict[str, Any], small: int, expected: str, tmp_path: Path
) -> None:
    """`small` matrices of the MLP, each 6% of the weights, are in Q4_0; the others that can be are in Q8_0."""
    metadata, tensors = gguf_parts(network())
    mixed, left = [], small
    for t in tensors:
        kind, size = "Q8_0", 34
        if left and t.name.endswith(("ffn_gate.weight", "ffn_up.weight")):
            kind, size, left = "Q4_0", 18, left - 1
        whole = len(t.dims) == 2 and t.dims[0] % 32 == 0
        mixed.append(Tensor(t.name, kind, t.dims, bytes(size * np.prod(t.dims) // 32)) if whole else t)
    found = checkpoint.read(write_gguf(tmp_path / "m.gguf", metadata | more, mixed))
    assert found.quantization == expected


def test_a_file_without_quantized_weights_is_not_called_quantized(tmp_path: Path) -> None:
    path = write_gguf_model(tmp_path / "m.gguf", network(), **{"general.file_type": 15})
    assert checkpoint.read(path).quantization is None


Change = Callable[[dict[str, Any], list[Tensor]], None]


def _drop(metadata: dict[str, Any], tensors: list[Tensor]) -> None:
    del tensors[3]


def _extra(metadata: dict[str, Any], tensors: list[Tensor]) -> None:
    tensors.append(Tensor("blk.0.attn_q.bias", "F32", (32,), bytes(128)))


def _flat(metadata: dict[str, Any], tensors: list[Tensor]) -> None:
    place = next(i for i, t in enumerate(tensors) if t.name == "blk.1.attn_q.weight")
    tensors[place] = Tensor("blk.1.attn_q.weight", "F32", (1024,), bytes(4096))


def _no_embedding(metadata: dict[str, Any], tensors: list[Tensor]) -> None:
    tensors[:] = [t for t in tensors if t.name != "token_embd.weight"]


def _setting(name: str, value: Any) -> Change:
    return lambda metadata, tensors: metadata.__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop, "1 missing"),
        (_extra, "1 unknown: blk.0.attn_q.bias"),
        (_flat, r"attn_q|mixers.0.q.weight has shape \(1024,\)"),
        (_no_embedding, "expected a matrix token_embd.weight"),
        (_setting("general.architecture", "mamba"), "general.architecture 'mamba' is not supported"),
        (
            _setting("llama.block_count", 2**31),
            "layers input should be less than or equal to 2000, got 2147483648",
        ),
        (_setting("llama.block_count", "x"), "describe no model"),
        (_setting("llama.attention.head_count", 5), "m.gguf"),
        (_setting("llama.attention.head_count", 2**31), "m.gguf"),
        (_setting("llama.attention.head_count", 0), "describe no model"),
        (_setting("llama.attention.head_count_kv", 1), "has shape"),
        (_setting("llama.attention.key_length", 16), "has shape"),
        (_setting("llama.attention.key_length", 3), "3 of the 3 dimensions of a head is odd"),
        (_setting("llama.embedding_length", 2**31), "describe no model"),
        (_setting("llama.feed_forward_length", 47), r"has shape \(48, 32\), its settings say \(47, 32\)"),
        (_setting("llama.rope.scaling.type", "longrope"), "'longrope' is not supported"),
        (_setting("llama.rope.scaling.type", "yarn"), r"'llama\.rope\.scaling\.factor' is missing"),
        (_setting("llama.rope.freq_base", 0.0), "describe no model"),
        (_setting("llama.rope.freq_base", float("nan")), "describe no model"),
        (_setting("llama.attention.layer_norm_rms_epsilon", "x"), "describe no model"),
    ],
)
def test_gguf_files_that_lie_are_refused(change: Change, message: str, tmp_path: Path) -> None:
    metadata, tensors = gguf_parts(network())
    change(metadata, tensors)
    path = write_gguf(tmp_path / "m.gguf", metadata, tensors)
    with pytest.raises(FormatError, match=message):
        store.build(checkpoint.read(path), path)


def test_a_missing_gguf_setting_is_named(tmp_path: Path) -> None:
    metadata, tensors = gguf_parts(network())
    del metadata["llama.block_count"]
    path = write_gguf(tmp_path / "m.gguf", metadata, tensors)
    with pytest.raises(FormatError, match=r"'llama\.block_count' is missing"):
        checkpoint.read(path)


def test_folders_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"expected a config\.json or one GGUF model, found 0"):
        checkpoint.read(tmp_path)
    for name in ("a", "b"):
        write_gguf_model(tmp_path / f"{name}.gguf", network())
    with pytest.raises(FormatError, match=r"found 2 GGUF models"):
        checkpoint.read(tmp_path)
    with pytest.raises(FormatError, match="is a corpus, not a model"):
        store.load(draft(tmp_path / "c", "corpus").commit({}).path)


def _without_norm(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    del tensors["decoder.norm.weight"]


def _another(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    tensors["decoder.norm.bias"] = torch.zeros(32)


def _wide(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    tensors["decoder.norm.weight"] = torch.zeros(33)


def _unknown_key(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    config["vocabluary"] = 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_norm, "1 missing: decoder.norm.weight"),
        (_another, "1 unknown: decoder.norm.bias"),
        (_wide, r"decoder.norm.weight has shape \(33,\), its settings say \(32,\)"),
        (_unknown_key, "vocabluary"),
    ],
)
def test_our_own_files_are_checked_too(change: Callable[..., None], message: str, tmp_path: Path) -> None:
    model = network()
    config, tensors = model.config.model_dump(mode="json"), dict(model.state_dict())
    change(config, tensors)
    made = draft(tmp_path / "m")
    (made.path / store.CONFIG).write_text(json.dumps(config))
    save_file(tensors, made.path / store.WEIGHTS)
    with pytest.raises(Exception, match=message) as caught:
        store.load(made.commit({}).path)
    assert type(caught.value).__module__ == "matura.core.errors"


def test_a_model_without_its_settings_is_told(tmp_path: Path) -> None:
    made = saved(tmp_path / "m", network())
    (made.path / store.CONFIG).unlink()
    with pytest.raises((ArtifactError, FormatError), match=r"model\.json"):
        store.load(made.path)


def test_updates_of_another_shape_are_refused(adapted: tuple[Artifact, Transformer], tmp_path: Path) -> None:
    made, _ = adapted
    path = made.path / store.ADAPTER_WEIGHTS
    tensors = load_file(path)
    name = next(iter(tensors))
    save_file({**tensors, name: tensors[name][..., :-1].contiguous()}, path)
    with pytest.raises(FormatError, match=f"{name} has shape"):
        store.load(made.path)
    del tensors[name]
    save_file(tensors, path)
    with pytest.raises(FormatError, match=f"1 missing: {name}"):
        store.load(made.path)


def test_for_inference_the_results_are_the_same(adapted: tuple[Artifact, Transformer]) -> None:
    made, model = adapted
    quick, ids = store.load_for_inference(made.path), some_ids(1, 20)
    expected = model.logits(model.decode(ids))
    with torch.no_grad():
        torch.testing.assert_close(quick.logits(quick.decode(ids)), expected, rtol=1e-5, atol=1e-5)


def test_settings_survive_json() -> None:
    config = network().config
    assert ModelConfig.model_validate_json(config.model_dump_json()) == config


def test_what_lies_side_by_side_in_the_file_is_fused_where_it_is(tmp_path: Path) -> None:
    made = saved(tmp_path / "m", network())
    model = store.load_for_inference(made.path)
    decoder = model.decoder
    assert decoder is not None
    block = decoder.blocks[0]
    places = {
        name: tensor.untyped_storage().data_ptr()
        for name, tensor in block.named_parameters()
        if "norms" not in name
    }
    assert places["mlp.gate.weight"] == places["mlp.up.weight"] == places["mlp.down.weight"]  # the file's map
    assert places["mixers.0.q.weight"] == places["mixers.0.v.weight"] != places["mlp.up.weight"]
    ids = some_ids(2, 9, vocabulary=40)
    with torch.inference_mode():
        torch.testing.assert_close(model.decode(ids), network().decode(ids), rtol=1e-5, atol=1e-5)


def test_a_model_is_built_around_its_weights_without_filling_them_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = network().config

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("initialized")

    for name in ("normal_", "uniform_", "kaiming_uniform_"):
        monkeypatch.setattr(torch.nn.init, name, refuse)
    with torch.device("meta"):
        Transformer(config)
