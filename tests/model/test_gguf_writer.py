import tracemalloc
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from matura.core.errors import ConfigError, FormatError
from matura.model import checkpoint, store
from matura.model import config as c
from matura.model.gguf_writer import FILE_TYPES, write
from matura.model.transformer import Transformer
from matura.tokenizer import reading, to_gguf
from tests.model.families.test_decoders_gguf import HOLDS, config_of
from tests.model.tiny import build
from tests.tiny_models import CHATML, chatml, network

TOKENIZER = to_gguf.metadata(chatml(), network().config.vocabulary)


def read(path: Path) -> Transformer:
    return store.build(checkpoint.read(path), path)


@pytest.mark.parametrize("weights", FILE_TYPES)
def test_every_tensor_is_what_the_reference_makes_of_it(tmp_path: Path, weights: str) -> None:
    model, path = network(tied=False), tmp_path / "m.gguf"
    write(path, model, TOKENIZER, weights=weights)
    again, file = read(path), gguf.GGUFReader(path)
    assert again.config == model.config
    assert file.fields["general.file_type"].contents() == gguf.LlamaFileType[_name(weights)]
    tensors = {tensor.name: tensor for tensor in file.tensors}
    state, found = model.state_dict(), again.state_dict()
    for theirs, ours in {
        "token_embd": "embed",
        "output": "head",
        "output_norm": "decoder.norm",
        "blk.0.ffn_up": "decoder.blocks.0.mlp.up",
        "blk.1.ffn_down": "decoder.blocks.1.mlp.down",
        "blk.1.ffn_norm": "decoder.blocks.1.norms.1",
    }.items():
        tensor, weight = tensors[f"{theirs}.weight"], state[f"{ours}.weight"].numpy()
        # The rows of ffn_down are 48 long: no whole blocks.
        odd = theirs.endswith("ffn_down") and weights.startswith("Q")
        kind = "F32" if "norm" in theirs else "F16" if odd else weights
        assert tensor.tensor_type.name == kind
        number = gguf.GGMLQuantizationType[kind]
        expected = gguf.quants.dequantize(gguf.quants.quantize(weight, number), number)
        np.testing.assert_array_equal(found[f"{ours}.weight"].numpy(), expected)
    ids_BT = torch.arange(12)[None]
    with torch.inference_mode():
        ours, theirs = (m.logits(m.decode(ids_BT)).log_softmax(-1) for m in (model, again))
    limit = {"F32": 0, "F16": 0.02, "Q8_0": 0.2}.get(weights, 3.0)
    assert (ours - theirs).abs().max() <= limit


def _name(weights: str) -> str:
    return "ALL_F32" if weights == "F32" else f"MOSTLY_{weights}"


@pytest.mark.parametrize("name", HOLDS)
def test_every_family_with_a_layout_comes_back(tmp_path: Path, name: str) -> None:
    model, path = build(config_of(name), dtype=torch.float32), tmp_path / "m.gguf"
    write(path, model, {}, weights="F32")
    state, found = model.state_dict(), read(path).state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in state.items())
    write(path, model, {}, weights="F16")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}
    assert kinds["token_embd.weight"] == "F16"
    assert {kind for key, kind in kinds.items() if "norm" in key or key.endswith("bias")} == {"F32"}
    if name == "gpt2":
        assert kinds["position_embd.weight"] == "F32"


def test_the_file_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write(path, network(), {**TOKENIZER, "general.name": "tiny"})
    fields = gguf.GGUFReader(path).fields
    general = {key: fields[key].contents() for key in fields if key.startswith("general.")}
    assert general == {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": "tiny",
        "general.file_type": 1,
        "general.quantization_version": 2,
    }
    kinds = {key: [kind.name for kind in fields[key].types] for key in fields}
    assert kinds["llama.block_count"] == ["UINT32"]
    assert kinds["llama.attention.layer_norm_rms_epsilon"] == ["FLOAT32"]
    assert kinds["tokenizer.ggml.token_type"] == ["ARRAY", "INT32"]
    assert kinds["tokenizer.ggml.add_bos_token"] == ["BOOL"]
    files, format = reading.read(path), chatml()
    assert (files.chat_template, files.stop_ids) == (CHATML, format.stop_ids)
    assert files.tokenizer.encode("hello  end") == format.tokenizer.encode("hello  end")


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / "one.gguf", tmp_path / "other.gguf"]
    for path in paths:
        write(path, network(), TOKENIZER, weights="Q4_1")
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.gguf", "other.gguf"]


def test_one_tensor_at_a_time_is_in_memory(tmp_path: Path) -> None:
    decoder = network(layers=12).config.decoder
    assert decoder is not None
    wider = decoder.model_copy(update={"width": 256, "mlp": c.SwiGLU(hidden=512)})
    model = Transformer(network().config.model_copy(update={"decoder": wider})).initialize(0)
    path = tmp_path / "m.gguf"
    write(path, model, {})  # what is imported and kept for later is there now
    tracemalloc.start()
    try:
        write(path, model, {}, weights="F16")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size / 4


def test_weights_beyond_the_type_are_refused(tmp_path: Path) -> None:
    model, path = network(), tmp_path / "m.gguf"
    with torch.no_grad():
        model.embed.weight[3, 5] = -1e5
    for weights in ("F16", "Q8_0", "Q4_1"):
        with pytest.raises(
            FormatError, match=rf"token_embd\.weight holds 100000, which {weights} cannot hold"
        ):
            write(path, model, TOKENIZER, weights=weights)
    assert not list(tmp_path.iterdir())
    write(path, model, TOKENIZER, weights="F32")
    assert read(path).embed.weight[3, 5] == -1e5
    with torch.no_grad():
        model.embed.weight[3, 5] = torch.nan
    with pytest.raises(FormatError, match=r"holds nan, which F32 cannot hold \(the model is broken"):
        write(path, model, TOKENIZER, weights="F32")


def test_what_has_no_place_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    with pytest.raises(ConfigError, match=r"weights='q8' is no type .*; did you mean Q8_0\?"):
        write(path, network(), TOKENIZER, weights="q8")
    encoder = c.StackConfig(
        layers=1,
        width=8,
        attention=c.Attention(heads=1, kv_heads=1, head_width=8),
        mlp=c.GELU(hidden=8),
        causal=False,
    )
    bert = c.ModelConfig(vocabulary=9, context=8, encoder=encoder, family="bert")
    with pytest.raises(FormatError, match="models of the family bert have no layout in GGUF"):
        write(path, Transformer(bert), TOKENIZER)
    other = network().config.model_copy(update={"head": c.NoHead()})
    with pytest.raises(FormatError, match="this layout has no place for head"):
        write(path, Transformer(other), TOKENIZER)
    wrong: dict[str, Any] = {"general.name": None}
    with pytest.raises(TypeError, match=r"general\.name: NoneType has no form in GGUF"):
        write(path, network(), wrong)
    assert not list(tmp_path.iterdir())
