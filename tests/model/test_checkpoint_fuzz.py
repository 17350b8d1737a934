"""Models whose settings lie: every count is changed to something absurd, and the model is loaded or refused."""

import json
import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matura.core import gguf
from matura.model.config import LanguageHead
from tests import fuzzing
from tests.gguf_files import Raw, Tensor, write_gguf

ABSURD: list[Any] = [
    0, -1, 1, 3, 10**6, 2**31, 2**40, 2**63, 10**30, 1e308, 0.5, True, None, "", "9" * 5000, [], [2**40] * 3, {},
    {"a": []},
]  # fmt: skip
RAW: list[Any] = [
    *(Raw(10, struct.pack("<Q", n)) for n in (0, 1, 3, 10**6, 2**31, 2**40, 2**63, 2**64 - 1)),
    *(Raw(11, struct.pack("<q", n)) for n in (-1, -(2**63))),
    *(Raw(12, struct.pack("<d", x)) for x in (0.0, 0.5, -1.0, 1e308, float("nan"), float("inf"))),
    True, "", "llama", [], ["a"], np.zeros(0, np.int32), np.full(3, 2**40), np.full(2, np.nan),
]  # fmt: skip
KEYS = {
    "num_labels", "id2label", "layer_types", "rope_scaling", "rope_parameters", "head_dim", "sliding_window",
    "partial_rotary_factor", "architectures", "n_inner", "num_decoder_layers", "max_window_layers", "type_vocab_size",
}  # fmt: skip
ROPES = [
    {"rope_type": kind, "factor": factor, "rope_theta": theta, "original_max_position_embeddings": context}
    | {"low_freq_factor": factor, "high_freq_factor": theta, "beta_fast": theta, "beta_slow": factor}
    for kind in ("linear", "dynamic", "llama3", "yarn", "longrope", "nothing", None)
    for factor, theta, context in [
        (0, 1, 0),
        (1e300, 1e300, 2**62),
        (-1, 0.5, 8),
        (2.0, 1e4, 8),
        ([1.0], {}, "x"),
    ]
]


def settings(original: dict[str, Any], seed: int, rounds: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each setting absurd alone, then many at once."""
    for key in sorted(original.keys() | KEYS):
        yield f"without {key}", {name: value for name, value in original.items() if name != key}
        for value in ABSURD:
            yield f"{key}={value!r:.40}", original | {key: value}
    for key in ("rope_scaling", "rope_parameters"):
        for rope in ROPES:
            yield f"{key}={rope}", original | {key: rope}
    random = np.random.default_rng(seed)
    numbers = [key for key, value in original.items() if type(value) is int]
    for _ in range(rounds):
        chosen = random.choice(numbers, 3, replace=False)
        values = [ABSURD[int(random.integers(len(ABSURD)))] for _ in chosen]
        yield f"{list(chosen)} = {values!r:.80}", original | dict(zip(chosen, values, strict=True))


def cases(folders: list[Path], stride: int, rounds: int) -> Iterator[tuple[str, bytes]]:
    """What `read` is to do, one in `stride` of all."""
    for n, case in enumerate(every_case(folders, rounds)):
        if n % stride == 0:
            yield str(case)[:200], json.dumps(case).encode()
    for text in (
        "[" * 10**6,
        '{"a":' * 10**6,
        "9" * 10**6,
        '"' * 10**6,
        "\ud800",
        "null",
        '{"model_type": ["a"]}',
    ):
        yield f"{text[:10]!r}...", json.dumps([folders[0].name, "settings", text]).encode()


def every_case(folders: list[Path], rounds: int) -> Iterator[tuple[Any, ...]]:
    for folder in folders:
        original = json.loads((folder / "original.json").read_text())
        for name, changed in settings(original, 0, rounds):
            yield folder.name, "settings", changed, name
        yield from ((folder.name, "shape", seed) for seed in range(4 * rounds))
        if (folder / "model.gguf").exists():
            keys = [key for key in gguf.read(folder / "model.gguf").metadata if "split." not in key]
            yield from ((folder.name, "gguf", key, n) for key in keys for n in range(len(RAW) + 1))


def read(path: Path) -> None:
    """Make the file that the case asks for, and load it."""
    from matura.model.checkpoint import read as read_checkpoint
    from matura.model.store import build

    name, kind, *rest = json.loads(path.read_bytes())
    folder = path.parent / name
    if kind == "settings":
        text = rest[0] if isinstance(rest[0], str) else json.dumps(rest[0])
        (folder / "config.json").write_text(text, errors="surrogatepass")
        shutil.copy(folder / "original.safetensors", folder / "model.safetensors")
    elif kind == "shape":
        (folder / "config.json").write_bytes((folder / "original.json").read_bytes())
        reshape(folder, rest[0])
    else:
        folder = damaged_gguf(folder / "model.gguf", *rest)
    checkpoint = read_checkpoint(folder)
    build(checkpoint, folder)


def reshape(folder: Path, seed: int) -> None:
    """One tensor of another shape, or gone."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "original.safetensors")
    name = sorted(tensors)[seed % len(tensors)]
    flat = tensors.pop(name).flatten()
    changes = [
        flat,
        flat[None],
        flat[:, None, None],
        flat[: len(flat) // 2],
        flat[:0],
        flat[0],
        flat.to(torch.int8),
    ]
    if change := seed // len(tensors) % (len(changes) + 1):
        tensors[name] = changes[change - 1].clone()
    save_file(tensors, folder / "model.safetensors")


def damaged_gguf(path: Path, key: str, n: int) -> Path:
    """The file with another value under a key, or without the key."""
    whole = gguf.read(path)
    tensors = [
        Tensor(info.name, info.type, info.shape[::-1], whole.data(name).tobytes())
        for name, info in whole.tensors.items()
    ]
    values = {name: value for name, value in whole.metadata.items() if name != key}
    if n < len(RAW):
        values[key] = RAW[n]
    return write_gguf(path.with_name("damaged.gguf"), values, tensors)


def make(folder: Path) -> list[Path]:
    """Tiny models as transformers writes them, one of each kind of family."""
    import transformers as hf

    sizes = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "max_position_embeddings": 64}
    small = sizes | heads
    t5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
    marian = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in
              (("layers", 2), ("attention_heads", 4), ("ffn_dim", 48))}  # fmt: skip
    marian |= {"pad_token_id": 0, "decoder_start_token_id": 0}
    gemma3 = {"num_key_value_heads": 2, "head_dim": 8, "query_pre_attn_scalar": 8}
    models = {
        "llama": hf.LlamaForCausalLM(hf.LlamaConfig(**small, num_key_value_heads=2)),
        "gemma3": hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**small, **gemma3)),
        "classifier": hf.LlamaForSequenceClassification(hf.LlamaConfig(**small, num_key_value_heads=2)),
        "gpt2": hf.GPT2LMHeadModel(
            hf.GPT2Config(vocab_size=61, n_positions=64, n_embd=32, n_layer=2, n_head=4)
        ),
        "bert": hf.BertForMaskedLM(hf.BertConfig(**small)),
        "t5": hf.T5ForConditionalGeneration(hf.T5Config(vocab_size=61, **t5)),
        "marian": hf.MarianMTModel(hf.MarianConfig(vocab_size=61, d_model=32, **marian)),
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)
        (folder / name / "config.json").rename(folder / name / "original.json")
        (folder / name / "model.safetensors").rename(folder / name / "original.safetensors")
    return [folder / name for name in models]


def add_gguf(folder: Path) -> None:
    """The same model as GGUF, for families that have it."""
    from matura.model import checkpoint, gguf_writer, store
    from matura.model.families import registry

    shutil.copy(folder / "original.json", folder / "config.json")
    shutil.copy(folder / "original.safetensors", folder / "model.safetensors")
    model = store.build(checkpoint.read(folder), folder)
    if registry.by_name(model.config.family).gguf and isinstance(model.config.head, LanguageHead):
        gguf_writer.write(folder / "model.gguf", model, {}, weights="F32")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("stride", "least"), [(50, (100, 10)), pytest.param(11, (440, 45), marks=pytest.mark.slow)]
)
def test_settings_that_lie_never_crash_hang_or_exhaust_memory(
    stride: int, least: tuple[int, int], tmp_path: Path
) -> None:
    """One case in so many."""
    module, seconds = "tests.model.test_checkpoint_fuzz", 280 if stride < 50 else 60
    refused, accepted = fuzzing.run(module, tmp_path / "case.json", stride, seconds=seconds)
    assert refused > least[0]
    assert accepted > least[1]  # what only says how the numbers are used


if __name__ == "__main__":
    path, stride, rounds = Path(sys.argv[1]), *map(int, (*sys.argv[2:], "50", "50")[:2])
    folders = make(path.parent)
    for folder in folders:
        add_gguf(folder)
        path.write_text(json.dumps([folder.name, "settings", (folder / "original.json").read_text()]))
        read(path)  # imports everything before the memory is limited
    fuzzing.survive(cases(folders, stride, rounds), read, path)
