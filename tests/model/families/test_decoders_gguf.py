"""Decoder families in GGUF files: what is written means the same when it is read, under the names others know."""

import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from matura.core.errors import FormatError
from matura.model import checkpoint, gguf_writer, store
from matura.model import config as c
from matura.model.families import registry
from matura.model.families.family import Gguf
from matura.model.transformer import Transformer
from tests.gguf_files import Tensor, write_gguf
from tests.model.families.decoders import ours_of
from tests.model.tiny import build

HOLDS = (
    "gpt2",
    "llama",
    "llama-biased",
    "llama-linear",
    "mistral-full",
    "qwen2-full",
    "qwen3",
    "gemma2",
    "gemma3-capped",
    "phi3",
    "phi3-partial",
)


def config_of(name: str) -> c.ModelConfig:
    """Our settings, without what GGUF has no place for."""
    config = ours_of(name)
    assert config.decoder is not None
    changed = {"dropout": 0.0, "attention": config.decoder.attention.model_copy(update={"dropout": 0.0})}
    if name.startswith("gemma"):  # it always scales by the width of a head
        changed["attention"] = changed["attention"].model_copy(update={"scale": None})
    return config.model_copy(update={"decoder": config.decoder.model_copy(update=changed)})


def layout_of(config: c.ModelConfig) -> Gguf:
    return registry.by_name(config.family).gguf[0]


def parts(model: Transformer, **more: Any) -> tuple[dict[str, Any], list[Tensor]]:
    """Metadata and float32 tensors of a file with this model."""
    layout, state, tensors = layout_of(model.config), model.state_dict(), []
    metadata = {"general.architecture": layout.architecture} | layout.to_metadata(model.config)
    for entry in layout.entries(model.config):
        array = entry.write(tuple(state[name] for name in entry.ours)).numpy()
        data = np.ascontiguousarray(array).tobytes()
        tensors.append(Tensor(entry.theirs, "F32", tuple(reversed(array.shape)), data))
    return metadata | more, tensors


def read(path: Path) -> Transformer:
    return store.build(checkpoint.read(path), path)


@pytest.mark.parametrize("name", HOLDS)
def test_a_file_comes_back(name: str, tmp_path: Path) -> None:
    model = build(config_of(name), dtype=torch.float32)
    again = read(write_gguf(tmp_path / "m.gguf", *parts(model)))
    family = {"mistral": "llama"}.get(model.config.family, model.config.family)
    assert again.config.model_copy(update={"embedding_scale": 1.0}) == model.config.model_copy(
        update={"family": family, "embedding_scale": 1.0}
    )
    assert again.config.embedding_scale == pytest.approx(model.config.embedding_scale)
    gguf_writer.write(tmp_path / "w.gguf", model, {}, weights="F32")
    for found in (again, read(tmp_path / "w.gguf")):
        for key, tensor in model.state_dict().items():
            assert torch.equal(found.state_dict()[key], tensor), key


@pytest.mark.parametrize("name", HOLDS)
def test_names_are_those_that_llama_cpp_has(name: str) -> None:
    metadata, tensors = parts(build(config_of(name), dtype=torch.float32))
    architecture = metadata["general.architecture"]
    number = next(n for n, known in gguf.MODEL_ARCH_NAMES.items() if known == architecture)
    known = {gguf.TENSOR_NAMES[tensor] for tensor in gguf.MODEL_TENSORS[number]}
    used = {re.sub(r"blk\.\d+", "blk.{bid}", tensor.name).rpartition(".")[0] for tensor in tensors}
    assert used <= known
    keys = gguf.Keys
    values = [*vars(keys.LLM).values(), *vars(keys.Attention).values(), *vars(keys.Rope).values()]
    named = {value.replace("{arch}", architecture) for value in values if str(value).startswith("{arch}.")}
    assert {key for key in metadata if key != "general.architecture"} <= named


@pytest.mark.parametrize("name", ["gemma2", "gemma3-capped"])
def test_the_scale_of_the_largest_gemma_is_known(name: str) -> None:
    """Files of the 27B models do not say that scores are scaled by width / heads instead of the head's width."""
    config = config_of(name)
    stack, layout = config.last_stack, layout_of(config)
    layers = {"gemma2": 46, "gemma3": 62}[layout.architecture]
    metadata = layout.to_metadata(config) | {f"{layout.architecture}.block_count": layers}
    found = layout.from_metadata(metadata, {"token_embd.weight": (61, 32)}, None)
    assert found.last_stack.attention.scale == (stack.width / stack.attention.heads) ** -0.5


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama3_scaling_is_recognized_by_its_factors(factor: float, tmp_path: Path) -> None:
    config = config_of("llama")
    scaling = c.Llama3Scaling(factor=factor, original_context=8192)
    assert config.decoder is not None
    position = c.Rope(theta=500_000.0, scaling=scaling)
    decoder = config.decoder.model_copy(update={"position": position})
    model = build(config.model_copy(update={"decoder": decoder}), dtype=torch.float32)
    metadata, tensors = parts(model)
    (factors,) = [tensor for tensor in tensors if tensor.name == "rope_freqs.weight"]
    values = np.frombuffer(factors.data, np.float32)
    assert values[0] == 1
    assert values[-1] == factor
    again = read(write_gguf(tmp_path / "m.gguf", metadata, tensors))
    assert again.config == model.config
    gguf_writer.write(tmp_path / "w.gguf", model, {}, weights="F32")
    assert read(tmp_path / "w.gguf").config == model.config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 1, 2, 7], r"these 4 factors \(up to 7\) are not those of Llama-3 scaling"),
        ([1, 8], "these 2 factors"),
        ([1, 1, 1, float("nan")], "are not those"),
        ([1, 1, 1, 0], "are not those"),
        ([2, 2, 2, 2], "are not those"),
    ],
)
def test_other_factors_are_refused(values: list[float], message: str, tmp_path: Path) -> None:
    metadata, tensors = parts(build(config_of("llama"), dtype=torch.float32))
    tensors.append(Tensor("rope_freqs.weight", "F32", (len(values),), np.float32(values).tobytes()))
    with pytest.raises(FormatError, match=message):
        checkpoint.read(write_gguf(tmp_path / "m.gguf", metadata, tensors))


def test_factors_of_one_change_nothing(tmp_path: Path) -> None:
    model = build(config_of("llama"), dtype=torch.float32)
    metadata, tensors = parts(model)
    tensors.append(Tensor("rope_freqs.weight", "F32", (4,), np.ones(4, np.float32).tobytes()))
    assert read(write_gguf(tmp_path / "m.gguf", metadata, tensors)).config == model.config


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("phi3", {"phi3.rope.scaling.type": "longrope"}, "LongRoPE .* is not supported"),
        (
            "qwen3",
            {"qwen3.rope.scaling.type": "longrope"},
            "'longrope' is not supported; none, linear and yarn",
        ),
        ("qwen3", {"qwen3.rope.scaling.yarn_attn_factor": 0.5}, r"yarn_attn_factor=0\.5 is not supported"),
        ("llama", {"llama.rope.scale_linear": 4.0}, r"scale_linear=4\.0 is not supported"),
        ("llama", {"llama.attention.causal": False}, "causal=False is not supported"),
        ("llama", {"llama.attention.value_length": 4}, "value_length=4 is not supported; expected 8"),
        ("gemma3-capped", {"gemma3.attention.sliding_window_pattern": 0}, "sliding_window_pattern=0"),
        ("gemma2", {"gemma2.block_count": 2**31}, "2147483648 layers"),
    ],
)
def test_what_the_core_does_not_know_is_refused(
    name: str, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = write_gguf(tmp_path / "m.gguf", *parts(build(config_of(name), dtype=torch.float32), **change))
    with pytest.raises(FormatError, match=message):
        checkpoint.read(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mistral", "no sliding window; this one has"),
        ("qwen2", "no place for decoder.local"),
        ("gemma2-plain", "no place for decoder.attention.bias='all'"),
        ("gpt2-options", "no place for decoder.attention.scale=1.0"),
        ("llama-dynamic", "no place for decoder.position.scaling"),
        ("llama-yarn-options", "no place for decoder.position.scaling.attention_factor"),
    ],
)
def test_a_model_that_the_layout_cannot_hold_is_not_written(name: str, message: str) -> None:
    config = ours_of(name)
    with pytest.raises(FormatError, match=message):
        layout_of(config).to_metadata(config)


def test_dropout_is_left_out() -> None:
    config = ours_of("gpt2")
    assert config.last_stack.dropout == 0.1
    assert layout_of(config).to_metadata(config)["gpt2.block_count"] == 2


def test_a_pattern_of_another_length_is_kept(tmp_path: Path) -> None:
    config = config_of("gemma3-capped")
    assert config.decoder is not None
    assert config.decoder.local is not None
    local = config.decoder.local.model_copy(update={"layers": (0, 1, 3, 4, 6)})
    decoder = config.decoder.model_copy(update={"local": local})
    model = build(config.model_copy(update={"decoder": decoder}), dtype=torch.float32)
    metadata, tensors = parts(model)
    assert metadata["gemma3.attention.sliding_window_pattern"] == 3
    found = read(write_gguf(tmp_path / "m.gguf", metadata, tensors)).config
    assert found.last_stack.local == local
