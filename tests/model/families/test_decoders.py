"""Decoder families against transformers: the same logits and gradients from the same files, both ways."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
)

from matura.core.errors import FormatError
from matura.core.settings import Sampling
from matura.infer.engine import generate
from matura.model import checkpoint
from matura.model import config as c
from matura.model.families import registry
from matura.model.transformer import Transformer
from tests.model.families.decoders import CONFIGS, MAIN, SIZES, capped, gemma3, llama, ours_of, settings
from tests.model.families.reference import close, ids, padding, randomized, read, saved, written
from tests.model.tiny import build

T = 24


def theirs_of(name: str, kind: Any = AutoModelForCausalLM) -> Any:
    return randomized(kind.from_config(capped(CONFIGS[name])))


def near(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal to 1e-5 of the largest value."""
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * max(float(expected.abs().max()), 1.0))


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_logits_are_those_of_transformers_both_ways(name: str, tmp_path: Path) -> None:
    theirs, tokens = theirs_of(name), ids(2, T)
    ours = saved(tmp_path, theirs)
    expected = theirs(tokens).logits
    assert expected.std() > 0.1
    near(ours.logits(ours.decode(tokens)), expected)
    folder = written(tmp_path / "again", ours)
    again = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    near(again(tokens).logits, expected)
    assert type(again) is type(theirs)
    assert checkpoint.read(folder).config == ours.config
    for key, tensor in read(folder).state_dict().items():
        torch.testing.assert_close(tensor, ours.state_dict()[key], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", MAIN)
def test_gradients_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    theirs, tokens = theirs_of(name), ids(2, T)
    ours = saved(tmp_path, theirs)
    for model, logits in (
        (theirs, theirs(tokens).logits),
        (ours, ours.logits(ours.decode(tokens))),
    ):
        model.zero_grad()
        torch.log_softmax(logits, -1)[..., 7].sum().backward()
    expected = {name: one.grad for name, one in theirs.named_parameters()}
    found = {name: one.grad for name, one in ours.named_parameters()}
    for entry in registry.by_name(ours.config.family).entries(ours.config):
        gradient = expected[entry.theirs]
        # What is stored shifted has the same gradient: take away where zero goes.
        parts = zip(entry.read(gradient), entry.read(torch.zeros_like(gradient)), strict=True)
        for into, (part, zero) in zip(entry.ours, parts, strict=True):
            near(found[into], part - zero)


@pytest.mark.parametrize("name", MAIN)
@torch.no_grad()
def test_without_a_head_and_as_a_classifier(name: str, tmp_path: Path) -> None:
    tokens, real = ids(2, 9), padding(6, 9)
    tokens[~real] = 0  # the padding token, by which transformers finds the ends
    plain = theirs_of(name, AutoModel)
    ours = saved(tmp_path / "plain", plain)
    assert isinstance(ours.config.head, c.NoHead)
    close(ours.decode(tokens[1:]), plain(tokens[1:]).last_hidden_state)
    close(AutoModel.from_pretrained(written(tmp_path / "p", ours))(tokens[1:])[0], plain(tokens[1:])[0])

    config = capped(type(CONFIGS[name]).from_dict(settings(CONFIGS[name])))
    config.id2label = {0: "bad", 1: "good", 2: "odd"}
    judge = randomized(AutoModelForSequenceClassification.from_config(config))
    ours = saved(tmp_path / "judge", judge)
    assert isinstance(ours.config.head, c.Classifier)
    assert ours.config.head.labels == ("bad", "good", "odd")
    expected = judge(tokens, attention_mask=real.long()).logits
    close(ours.head(ours.decode(tokens, mask=real), real), expected)
    again = AutoModelForSequenceClassification.from_pretrained(
        written(tmp_path / "j", ours), attn_implementation="eager", pad_token_id=0
    )
    close(again(tokens, attention_mask=real.long()).logits, expected)
    assert again.config.id2label == {0: "bad", 1: "good", 2: "odd"}


@pytest.mark.parametrize("name", ["qwen2", "gemma3"])
@torch.no_grad()
def test_greedy_text_is_that_of_transformers(name: str, tmp_path: Path) -> None:
    theirs, prompt = theirs_of(name), ids(1, 9)
    ours = saved(tmp_path, theirs)
    expected = theirs.generate(prompt, max_new_tokens=20, do_sample=False, pad_token_id=0, eos_token_id=2)
    new = generate(ours, [prompt[0].tolist()], Sampling(temperature=0, max_new_tokens=20), [2])[0]
    assert new == [id for id in expected[0, 9:].tolist() if id != 2]
    assert len(set(new)) > 3


def test_gpt2_files_with_other_names_are_read(tmp_path: Path) -> None:
    """The released files name the body without a prefix and hold the causal mask."""
    from safetensors.torch import load_file, save_file

    theirs, tokens = theirs_of("gpt2"), ids(1, 5)
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = {key.removeprefix("transformer."): one for key, one in load_file(file).items()}
    save_file(tensors | {"h.0.attn.bias": torch.ones(1, 1, 64, 64)}, file)
    ours = read(tmp_path)
    close(ours.logits(ours.decode(tokens)), theirs(tokens).logits)


OLDER: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "llama-linear": ("rope_scaling", {"type": "linear", "factor": 3.0}, ()),
    "llama-dynamic": ("rope_scaling", {"type": "dynamic", "factor": 2.0}, ()),
    "qwen2": ("rope_theta", {}, ("layer_types",)),
    "gemma2": ("rope_theta", {}, ("layer_types",)),
    "phi3-partial": ("rope_scaling", {}, ()),
}


@pytest.mark.parametrize("name", OLDER)
def test_settings_of_older_versions_mean_the_same(name: str) -> None:
    _, scaling, dropped = OLDER[name]
    hf = settings(CONFIGS[name])
    turns = hf.pop("rope_parameters")
    older = {key: value for key, value in hf.items() if key not in dropped} | {
        "rope_theta": turns["rope_theta"],
        "rope_scaling": scaling or None,
        "partial_rotary_factor": turns.get("partial_rotary_factor", 1.0),
    }
    assert registry.by_model_type(hf["model_type"]).from_hf(older, ()) == ours_of(name)


def test_older_settings_of_gemma3_mean_the_same() -> None:
    hf = settings(gemma3(num_hidden_layers=7, layer_types=None, sliding_window_pattern=3))
    older = {key: value for key, value in hf.items() if key not in ("rope_parameters", "layer_types")} | {
        "rope_theta": 1000.0,
        "rope_local_base_freq": 100.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "sliding_window_pattern": 3,
    }
    family = registry.by_name("gemma3_text")
    found = family.from_hf(older, ())
    assert found == family.from_hf(hf, ())
    assert found.decoder is not None
    assert found.decoder.local is not None
    assert found.decoder.local.layers == (0, 1, 3, 4, 6)


@pytest.mark.parametrize("name", MAIN)
def test_missing_settings_mean_what_transformers_takes_them_for(name: str) -> None:
    """Only the sizes are given; everything else is the default of the family's class."""
    sizes = {key: value for key, value in settings(CONFIGS[name]).items() if key in SIZES or key[:2] == "n_"}
    del sizes["pad_token_id"], sizes["bos_token_id"], sizes["eos_token_id"]
    sizes.pop("num_key_value_heads", None)
    sizes |= {} if name == "gpt2" else {"num_attention_heads": 32, "hidden_size": 64}
    whole = settings(type(CONFIGS[name])(**sizes))
    family = registry.by_model_type(whole["model_type"])
    assert family.from_hf(sizes, ()) == family.from_hf(whole, ())


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("llama", {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1.0}}, "scaling 'longrope' is not"),
    (
        "llama",
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1.0, "factor": 2.0, "mscale": 0.7}},
        "mscale=0.7 of yarn",
    ),
    ("llama", {"partial_rotary_factor": 0.5}, r"partial_rotary_factor=0\.5 is not supported"),
    (
        "llama-dynamic",
        {
            "rope_parameters": {
                "rope_type": "dynamic",
                "rope_theta": 1.0,
                "factor": 2.0,
                "original_max_position_embeddings": 8,
            }
        },
        "original_max_position_embeddings=8",
    ),
    ("llama", {"mlp_bias": True}, "mlp_bias=True is not supported; expected False"),
    ("llama", {"architectures": ["LlamaForTokenClassification"]}, "'LlamaForTokenClassification' is not"),
    ("gpt2", {"architectures": ["GPT2DoubleHeadsModel"]}, "'GPT2DoubleHeadsModel' is not supported"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention=True"),
    ("gpt2", {"activation_function": "swish"}, "activation_function='swish' is not supported; gelu_new"),
    ("gpt2", {"embd_pdrop": 0.2}, r"embd_pdrop=0\.2 beside resid_pdrop=0\.1"),
    ("mistral", {"layer_types": ["full_attention"] * 3}, "layer_types="),
    ("qwen2", {"layer_types": ["full_attention"]}, "layer_types has 1 entries for 3 layers"),
    ("qwen2", {"layer_types": ["linear_attention"] * 3}, "layer_types 'linear_attention' is not supported"),
    ("qwen2", {"use_sliding_window": False}, "but sliding_window is not set"),
    ("qwen3", {"hidden_act": "gelu"}, "hidden_act='gelu' is not supported; expected 'silu'"),
    ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention=True"),
    ("gemma2", {"hidden_activation": "gelu"}, "hidden_activation='gelu'"),
    ("gemma3", {"attn_logit_softcapping": 50.0}, r"attn_logit_softcapping=50\.0"),
    ("gemma3", {"rope_parameters": {"rope_type": "default"}}, "must be given for full_attention"),
    ("gemma3", {"model_type": "gemma3"}, "'gemma3' is not supported; did you mean"),
    ("mistral", {"num_hidden_layers": 10**9}, "1000000000 layers"),
    (
        "phi3",
        {"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}},
        "'longrope': LongRoPE .* is not supported; use a model of 4k context",
    ),
    ("phi3", {"embd_pdrop": 0.5}, r"embd_pdrop=0\.5 is not supported"),
    ("llama", {"id2label": {"0": "a", "2": "b"}, "architectures": ["LlamaForSequenceClassification"]}, "gap"),
]


@pytest.mark.parametrize(("name", "change", "message"), REFUSED, ids=lambda one: str(one)[:40])
def test_what_the_core_does_not_know_is_refused(name: str, change: dict[str, Any], message: str) -> None:
    hf = settings(CONFIGS[name]) | change
    with pytest.raises(FormatError, match=message):
        registry.by_model_type(hf["model_type"]).from_hf(hf, ())


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("llama", {"mlp": c.GELU(hidden=48)}, "no place for decoder.mlp"),
        ("llama", {"position": c.Alibi()}, "no place for decoder.position"),
        ("llama", {"local": c.Local(window=4, layers=(0,))}, "no place for decoder.local"),
        ("mistral", {"local": c.Local(window=4, layers=(0, 2))}, "no place for decoder.local.layers"),
        ("qwen3", {"norm_placement": "post"}, "no place for decoder.norm_placement='post'"),
        ("gemma3", {"dropout": 0.1}, r"no place for decoder.dropout=0\.1"),
        ("gpt2", {"norm": c.RMSNorm()}, "no place for decoder.norm"),
    ],
)
def test_a_model_that_a_family_cannot_hold_is_not_written(
    name: str, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    config = ours_of(name)
    assert config.decoder is not None
    odd = config.model_copy(update={"decoder": config.decoder.model_copy(update=change)})
    with pytest.raises(FormatError, match=message):
        checkpoint.write_hf(tmp_path / "m", build(odd))


def test_the_released_settings_of_large_models_are_understood() -> None:
    """Facts of published models, by their own settings."""
    llama31 = settings(
        llama(
            {
                "rope_type": "llama3",
                "rope_theta": 500_000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
            max_position_embeddings=131_072,
        )
    )
    position = registry.by_name("llama").from_hf(llama31, ()).last_stack.position
    assert position == c.Rope(theta=500_000.0, scaling=c.Llama3Scaling(factor=8.0, original_context=8192))
    gemma = registry.by_name("gemma3_text").from_hf(settings(gemma3(query_pre_attn_scalar=16)), ())
    assert gemma.last_stack.attention.scale is None
    assert gemma.embedding_scale == 32**0.5


def test_a_model_trained_here_can_be_written(tmp_path: Path) -> None:
    """Settings that no file named, only our own values."""
    config = c.ModelConfig(
        vocabulary=61,
        context=32,
        decoder=c.StackConfig(
            layers=2,
            width=32,
            attention=c.Attention(heads=4, kv_heads=1, head_width=8),
            mlp=c.SwiGLU(hidden=40),
        ),
        family="llama",
    )
    model: Transformer = build(config, dtype=torch.float32)
    theirs = AutoModelForCausalLM.from_pretrained(written(tmp_path / "m", model))
    tokens = ids(1, 12)
    close(theirs(tokens).logits, model.logits(model.decode(tokens)))
