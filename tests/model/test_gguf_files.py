"""Adapters as GGUF files: what llama.cpp makes of a model with one. Trap: T36 (scales, and the order of rows)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from benchmarks.gguf import judge
from matura.core.errors import FormatError
from matura.core.peft_settings import LoraConfig, PrefixConfig, Tuning
from matura.model import config as c
from matura.model import gguf_writer
from matura.model.families.weights import same
from matura.model.peft import gguf_files, layouts, tuning
from matura.model.peft.adapter import Adapter, taken
from matura.model.transformer import Transformer
from matura.tokenizer import to_gguf
from tests.model.tiny import build, llama_config
from tests.tiny_models import CONTEXT, VOCABULARY, chatml, network

METADATA = to_gguf.metadata(chatml(), VOCABULARY)
PATTERNS = LoraConfig(
    rank=4, alpha=8, rank_stabilized=True, ranks={"decoder.blocks.1.*": 2}, alphas={"down": 16, "o": 4}
)


def gpt2() -> Transformer:
    stack = c.StackConfig(
        layers=2,
        width=32,
        attention=c.Attention(heads=4, kv_heads=4, head_width=8, bias="all"),
        mlp=c.GELU(hidden=64, approximate=True),
        norm=c.LayerNorm(),
        position=c.Learned(),
    )
    config = c.ModelConfig(vocabulary=VOCABULARY, context=CONTEXT, decoder=stack, family="gpt2")
    return build(config, dtype=torch.float32)


def random_adapter(model: Transformer, settings: LoraConfig) -> Adapter:
    tuning.apply(model, Tuning(lora=settings), seed=1)
    found = taken(model, Tuning(lora=settings))
    generator = torch.Generator().manual_seed(2)
    for tensor in found.tensors.values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
    return found


PROMPTS = [[40, 50, 60, 70], [33, 34, 35, 36, 37, 38]]
NEW = 6


def theirs(file: Path, adapters: list[Path]) -> list[dict[str, Any]]:
    asked = {"context": CONTEXT, "texts": [], "messages": None, "prompts": PROMPTS, "new": NEW}
    found = judge(file, 1, adapters=[str(one) for one in adapters], **asked)
    answers: list[dict[str, Any]] = found["answers"]
    return answers


def agrees(model: Transformer, answers: list[dict[str, Any]]) -> bool:
    """Whether every token chosen there is our likeliest too, with its log-probability where it is told; to 2e-3."""
    worst = 0.0
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids = torch.tensor([[*prompt, *answer["ids"]]])
        with torch.no_grad():
            found = model.logits(model.decode(ids[:, :-1]))[0, len(prompt) - 1 :].log_softmax(-1)
        chosen = found.gather(1, ids[0, len(prompt) :, None])[:, 0]
        gaps = [found.amax(-1) - chosen]
        if answer["logprobs"]:  # none when a token is half a character
            gaps.append(chosen - torch.tensor(answer["logprobs"]))
        worst = max(worst, *(float(gap.abs().max()) for gap in gaps))
    return worst < 2e-3


@pytest.mark.parametrize("make", [network, gpt2], ids=["llama", "gpt2"])
def test_t36_llama_cpp_applies_ours(make: Callable[[], Transformer], tmp_path: Path) -> None:
    """T36: other ranks, other alphas, rsLoRA; the rows of queries and keys in llama's own order."""
    gguf_writer.write(tmp_path / "m.gguf", make(), METADATA, weights="F32")
    model = make()
    adapter = random_adapter(model, PATTERNS)
    gguf_files.write(tmp_path / "a.gguf", adapter, make().config)
    answers = theirs(tmp_path / "m.gguf", [tmp_path / "a.gguf"])
    assert agrees(model, answers)
    assert not agrees(make(), answers)


def test_the_file_says_what_llama_cpp_asks_for(tmp_path: Path) -> None:
    model = network()
    adapter = random_adapter(model, PATTERNS)
    gguf_files.write(tmp_path / "a.gguf", adapter, network().config)
    file = gguf.GGUFReader(tmp_path / "a.gguf")
    fields = {name: file.fields[name].contents() for name in file.fields if not name.startswith("GGUF.")}
    assert fields == {
        "general.architecture": "llama",
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 4.0,
    }
    tensors = {tensor.name: tensor.data for tensor in file.tensors}
    assert len(tensors) == 2 * 14
    assert tensors["blk.1.attn_k.weight.lora_a"].shape == (4, 32)
    assert tensors["blk.1.attn_k.weight.lora_b"].shape == (16, 4)
    up = dict(model.named_modules())["decoder.blocks.1.mlp.up"]
    expected = (up.b @ up.a * up.scale).detach().numpy()
    found = tensors["blk.1.ffn_up.weight.lora_b"] @ tensors["blk.1.ffn_up.weight.lora_a"]
    assert abs(found - expected).max() < 1e-6


def test_the_rows_of_queries_are_permuted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: in our order the file would load as well, and be wrong."""
    adapter = random_adapter(network(), LoraConfig(rank=2, targets=("q", "k")))
    gguf_files.write(tmp_path / "right.gguf", adapter, network().config)
    whole = layouts.layers

    def unpermuted(entries: Any, config: c.ModelConfig) -> Any:
        plain = [same(e.theirs, e.ours[0]) if len(e.ours) == 1 else e for e in entries]
        return whole(plain, config)

    monkeypatch.setattr(layouts, "layers", unpermuted)
    gguf_files.write(tmp_path / "wrong.gguf", adapter, network().config)
    right, wrong = (
        {t.name: t.data for t in gguf.GGUFReader(tmp_path / f"{name}.gguf").tensors}
        for name in ("right", "wrong")
    )
    assert right.keys() == wrong.keys()
    differ = {name for name, data in right.items() if (data != wrong[name]).any()}
    assert differ == {f"blk.{i}.attn_{part}.weight.lora_b" for i in (0, 1) for part in "qk"}


def test_what_has_no_place_in_gguf_is_refused(tmp_path: Path) -> None:
    table = random_adapter(build(llama_config(), dtype=torch.float32), LoraConfig(targets=("embed",)))
    with pytest.raises(FormatError, match="leave the embedding alone; merge it"):
        gguf_files.write(tmp_path / "a.gguf", table, llama_config())
    model = tuning.apply(
        build(llama_config()), settings := Tuning(method="prefix", prefix=PrefixConfig(tokens=2))
    )
    with pytest.raises(FormatError, match="a prefix adapter has no low-rank updates"):
        gguf_files.write(tmp_path / "a.gguf", taken(model, settings), llama_config())
    other = llama_config().model_copy(update={"family": "bert"})
    with pytest.raises(FormatError):
        gguf_files.write(tmp_path / "a.gguf", table, other)
    assert not (tmp_path / "a.gguf").exists()
