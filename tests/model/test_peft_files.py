"""PEFT's files, in and out: the same logits there and here. Trap: T36 (scales that get lost on the way).

What peft makes of a folder is the reference; a plain reader with one scale for a whole file stands for the programs
that know no patterns.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from matura.core.errors import FormatError
from matura.core.peft_settings import BottleneckConfig, LoraConfig, PrefixConfig, Tuning
from matura.model import checkpoint, store
from matura.model.peft import peft_files, tuning
from matura.model.peft.adapter import Adapter, attach, taken
from matura.model.transformer import Transformer

Made = tuple[Any, Path]
PATTERNS = LoraConfig(
    rank=4, alpha=8, rank_stabilized=True, ranks={"decoder.blocks.1.*": 2}, alphas={"down": 32}
)


def llama(tied: bool = True) -> Any:
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=97,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            tie_word_embeddings=tied,
            initializer_range=0.2,
        )
    ).eval()


def gpt2() -> Any:
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=97, n_positions=64, n_embd=32, n_layer=2, n_head=4, initializer_range=0.2
        )
    ).eval()


def untied() -> Any:
    return llama(tied=False)


IDS = torch.randint(0, 97, (2, 11), generator=torch.Generator().manual_seed(1))


def ours(theirs: Any, folder: Path) -> Transformer:
    theirs.save_pretrained(folder)
    return store.build(checkpoint.read(folder), folder)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        if isinstance(model, Transformer):
            return model.logits(model.decode(IDS))
        found: torch.Tensor = model(IDS).logits
        return found


def random_adapter(model: Transformer, settings: Tuning) -> Adapter:
    tuning.apply(model, settings, seed=1)
    found = taken(model, settings)
    generator = torch.Generator().manual_seed(2)
    for tensor in found.tensors.values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
    return found


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Within 1e-5 of the largest logit."""
    return bool((found - expected).abs().max() < 1e-5 * expected.abs().max())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (llama, LoraConfig(rank=3)),
        (llama, PATTERNS),
        (llama, LoraConfig(targets=("decoder.blocks.1.mixers.0.q", "up"))),
        (llama, LoraConfig(rank=2, targets=("embed", "q"))),
        (untied, LoraConfig(rank=2, targets=("embed", "head", "v"))),
        (gpt2, LoraConfig(rank=2)),
        (gpt2, LoraConfig(rank=2, targets=("q", "v", "down"), alphas={"v": 3})),
    ],
    ids=["plain", "patterns", "some-layers", "tied-embedding", "untied-head", "gpt2", "gpt2-q-and-v"],
)
def test_t36_peft_reads_ours_and_we_read_it_back(
    make: Callable[[], Any], settings: LoraConfig, portable: bool, tmp_path: Path
) -> None:
    """T36: with ranks and alphas of their own and rsLoRA, whose scale is written as what it is."""
    theirs, model = make(), ours(make(), tmp_path / "base")
    adapter = random_adapter(model, Tuning(lora=settings))
    expected = logits(model)
    assert not close(expected, logits(theirs))
    peft_files.write(tmp_path / "adapter", adapter, model.config, portable=portable)
    found = peft.PeftModel.from_pretrained(theirs, str(tmp_path / "adapter"))
    assert close(logits(found), expected)
    plain = ours(make(), tmp_path / "base")
    back = peft_files.read(tmp_path / "adapter", plain.config)
    assert close(logits(attach(plain, back)), expected)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert portable <= (not config["alpha_pattern"] and not config["rank_pattern"])
    assert portable <= (config["lora_alpha"] == config["r"])
    assert not config["use_rslora"]


def test_t36_a_reader_with_one_scale_gets_a_portable_file_right(tmp_path: Path) -> None:
    """T36: and the plain file of the same adapter wrong, which is why there is the other."""
    model = ours(llama(), tmp_path / "base")
    adapter = random_adapter(model, Tuning(lora=PATTERNS))
    expected = logits(model)
    results = []
    for portable in (True, False):
        folder = tmp_path / f"adapter-{portable}"
        peft_files.write(folder, adapter, model.config, portable=portable)
        config = json.loads((folder / "adapter_config.json").read_text())
        tensors = load_file(folder / "adapter_model.safetensors")
        simple = llama()
        weights = dict(simple.named_parameters())
        for name, a in tensors.items():
            if ".lora_A." in name:
                layer = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
                b = tensors[name.replace("lora_A", "lora_B")]
                with torch.no_grad():
                    weights[f"{layer}.weight"].add_(b @ a, alpha=config["lora_alpha"] / config["r"])
        results.append(close(logits(simple), expected))
    assert results == [True, False]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (llama, {"r": 3, "lora_alpha": 5, "target_modules": "all-linear"}),
        (llama, {"r": 4, "target_modules": ["q_proj", "down_proj"], "use_rslora": True}),
        (
            llama,
            {
                "r": 4,
                "target_modules": ["q_proj", "down_proj"],
                "rank_pattern": {"down_proj": 2},
                "alpha_pattern": {"model.layers.1.self_attn.q_proj": 3},
            },
        ),
        (llama, {"r": 2, "target_modules": ["v_proj"], "layers_to_transform": [1]}),
        (untied, {"r": 2, "target_modules": ["embed_tokens", "lm_head"]}),
        (gpt2, {"r": 2, "target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}),
    ],
    ids=["all-linear", "rslora", "patterns", "one-layer", "tables", "gpt2"],
)
def test_we_read_what_peft_wrote(make: Callable[[], Any], settings: dict[str, Any], tmp_path: Path) -> None:
    model = ours(make(), tmp_path / "base")
    torch.manual_seed(3)
    theirs = peft.get_peft_model(make(), peft.LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.3)
    theirs.save_pretrained(tmp_path / "adapter")
    adapter = peft_files.read(tmp_path / "adapter", model.config)
    before = logits(model)
    assert close(logits(attach(model, adapter)), logits(theirs))
    assert not close(before, logits(theirs))


def test_an_adapter_for_all_linear_layers_is_written_in_last_names(tmp_path: Path) -> None:
    """So that it says the same of a model of another size, and readers that know last names only take it."""
    model = ours(llama(), tmp_path / "base")
    peft_files.write(tmp_path / "a", random_adapter(model, Tuning()), model.config)
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    back = peft_files.read(tmp_path / "a", model.config)
    assert set(back.settings.lora.targets) == {"q", "k", "v", "o", "gate", "up", "down"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [llama, gpt2])
def test_prefixes_go_both_ways(make: Callable[[], Any], tmp_path: Path) -> None:
    model = ours(make(), tmp_path / "base")
    adapter = random_adapter(model, Tuning(method="prefix", prefix=PrefixConfig(tokens=5)))
    expected = logits(model)
    peft_files.write(tmp_path / "adapter", adapter, ours(make(), tmp_path / "base").config)
    found = peft.PeftModel.from_pretrained(make(), str(tmp_path / "adapter"))
    assert close(logits(found), expected)
    found.save_pretrained(tmp_path / "again")
    plain = ours(make(), tmp_path / "base")
    back = peft_files.read(tmp_path / "again", plain.config)
    for name, tensor in adapter.tensors.items():
        assert torch.equal(back.tensors[name], tensor)
    assert close(logits(attach(plain, back)), expected)
    assert not close(logits(ours(make(), tmp_path / "base")), expected)


Change = Callable[[dict[str, Any], dict[str, torch.Tensor]], None]


def _setting(name: str, value: Any) -> Change:
    return lambda config, tensors: config.__setitem__(name, value)


def _drop(name: str) -> Change:
    return lambda config, tensors: config.pop(name)


def _tensor(name: str, *shape: int) -> Change:
    return lambda config, tensors: tensors.__setitem__(name, torch.zeros(shape))


Q = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_setting("peft_type", "IA3"), "peft_type 'IA3' is not supported; LORA and PREFIX_TUNING are"),
        (_setting("use_dora", True), "use_dora=True is not supported"),
        (_setting("init_lora_weights", "pissa_niter_16"), "it belongs to a changed base"),
        (_setting("init_lora_weights", "lora_ga"), "it belongs to a changed base"),
        (_setting("alora_invocation_tokens", [1]), "alora_invocation_tokens=.1. is not supported"),
        (_setting("modules_to_save", ["lm_head"]), r"modules_to_save=\['lm_head'\] is not supported"),
        (_setting("bias", "all"), "bias='all' is not supported"),
        (_setting("alpha_pattern", {"(a+)+b": 2}), r"the pattern '\(a\+\)\+b' is more than a name"),
        (_drop("lora_alpha"), "the setting 'lora_alpha' is missing"),
        (_tensor("base_model.model.score.weight", 2, 2), "score.weight is no part of a low-rank update"),
        (_tensor(f"{Q}.lora_B.weight", 31, 8), "B has shape .31, 8., expected 32 rows"),
        (_tensor(f"{Q}.lora_B.weight", 32, 7), "B has shape .32, 7., expected 32 rows .* and 8 columns"),
        (_tensor(f"{Q}.lora_A.weight", 8), "expected two matrices"),
        (_tensor(f"{Q}.lora_A.weight", 8, 31), r"mixers.0.q.a has shape .8, 31., its settings say .8, 32."),
        (_tensor("base_model.model.x.lora_A.weight", 2, 2), "x: expected two matrices, A and B"),
        (_setting("lora_alpha", "much"), "could not convert string to float"),
    ],
    ids=lambda value: value if isinstance(value, str) else "change",
)
def test_files_that_say_something_else_are_refused(change: Change, message: str, tmp_path: Path) -> None:
    model = ours(llama(), tmp_path / "base")
    peft_files.write(tmp_path / "a", random_adapter(model, Tuning()), model.config)
    settings, weights = tmp_path / "a" / peft_files.CONFIG, tmp_path / "a" / peft_files.WEIGHTS
    config, tensors = json.loads(settings.read_text()), load_file(weights)
    change(config, tensors)
    settings.write_text(json.dumps(config))
    save_file(tensors, weights)
    with pytest.raises(FormatError, match=message):
        attach(ours(llama(), tmp_path / "base"), peft_files.read(tmp_path / "a", model.config))


def test_updates_of_one_side_of_a_tied_matrix_are_refused(tmp_path: Path) -> None:
    model = ours(llama(), tmp_path / "base")
    adapter = random_adapter(model, Tuning(lora=LoraConfig(rank=2, targets=("embed",))))
    peft_files.write(tmp_path / "a", adapter, model.config)
    weights = tmp_path / "a" / peft_files.WEIGHTS
    tensors = load_file(weights)
    save_file({n: t for n, t in tensors.items() if "lm_head" not in n}, weights)
    with pytest.raises(FormatError, match=r"changes only model.embed_tokens"):
        peft_files.read(tmp_path / "a", model.config)


def test_bottlenecks_have_no_form_in_peft(tmp_path: Path) -> None:
    model = ours(llama(), tmp_path / "base")
    settings = Tuning(method="bottleneck", bottleneck=BottleneckConfig(reduction=4))
    with pytest.raises(FormatError, match="PEFT has no form for method=bottleneck"):
        peft_files.write(tmp_path / "a", random_adapter(model, settings), model.config)
    assert not (tmp_path / "a").exists()
