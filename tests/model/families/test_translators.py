import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.models.t5.modeling_t5 import T5LayerNorm

from matura.core.errors import FormatError
from matura.model import checkpoint
from matura.model import config as c
from matura.model.counting import count_parameters
from matura.model.families import registry
from matura.model.transformer import Transformer
from tests.model.families.reference import VOCABULARY, close, ids, padding, randomized, read, saved, written

T5: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 6,  # not width / heads
    "d_ff": 48,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "decoder_start_token_id": 0,
}
FLAN = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
MARIAN: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 40,
    "max_position_embeddings": 64,
    "activation_function": "relu",
    "scale_embedding": True,
    "pad_token_id": 60,
    "decoder_start_token_id": 60,
    "eos_token_id": 0,
    "forced_eos_token_id": None,
}
SOURCE_MASK, TARGET_MASK = padding(9, 5), padding(7, 7)


def t5(**more: Any) -> Any:
    return randomized(transformers.T5ForConditionalGeneration(transformers.T5Config(**T5 | more)))


def flan(**more: Any) -> Any:
    """As Flan-T5 is stored: an output matrix of its own, and nothing scaled."""
    model = t5(**FLAN | more)
    head = 0.2 * torch.randn(VOCABULARY, 32, generator=torch.Generator().manual_seed(5))
    model.lm_head.weight = torch.nn.Parameter(head)
    model.config.tie_word_embeddings = False
    model.all_tied_weights_keys.pop("lm_head.weight", None)
    return model


def marian(**more: Any) -> Any:
    return randomized(transformers.MarianMTModel(transformers.MarianConfig(**MARIAN | more)))


MODELS = {
    "t5": t5,
    "flan": flan,
    "marian": marian,
    "swish": lambda **more: marian(activation_function="swish", **more),
}
ALL = pytest.mark.parametrize("name", MODELS)


def logits(model: Transformer, x_BS: torch.Tensor, y_BT: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    memory = model.encode(x_BS, mask=mask)
    return model.logits(model.decode(y_BT, memory_BSD=memory, memory_mask_BS=mask))


def reference_logits(model: Any, x_BS: torch.Tensor, y_BT: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=x_BS, attention_mask=mask.long(), decoder_input_ids=y_BT).logits
    return found


@ALL
@torch.no_grad()
def test_logits_and_the_way_back(name: str, tmp_path: Path) -> None:
    reference, x_BS, y_BT = MODELS[name](), ids(2, 9), ids(2, 7, seed=2)
    model = saved(tmp_path / "theirs", reference)
    theirs = reference_logits(reference, x_BS, y_BT, SOURCE_MASK)
    close(logits(model, x_BS, y_BT, SOURCE_MASK), theirs)
    assert model.config.tied == (name != "flan")
    assert count_parameters(model.config)[0] == sum(p.numel() for p in model.parameters())
    folder = written(tmp_path / "ours", model)
    assert read(folder).config == model.config
    back = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    close(reference_logits(back, x_BS, y_BT, SOURCE_MASK), theirs)


@ALL
@torch.no_grad()
def test_padding_on_the_left_changes_nothing(name: str, tmp_path: Path) -> None:
    reference, x_BS, y_BT = MODELS[name](), ids(2, 9), ids(2, 7, seed=2)
    model = saved(tmp_path, reference)
    alone = reference_logits(reference, x_BS[1:, 4:], y_BT[1:], torch.ones(1, 5))
    close(logits(model, x_BS, y_BT, padding(9, 5, left=True))[1:], alone)


@ALL
@torch.no_grad()
def test_greedy_decoding_with_a_cache(name: str, tmp_path: Path) -> None:
    """No token twice, because random models repeat themselves, which would prove little."""
    same_depth = (
        {"num_decoder_layers": 2} if name in ("t5", "flan") else {}
    )  # else transformers cannot decode
    reference, x_BS = MODELS[name](**same_depth), ids(2, 9)
    model, steps = saved(tmp_path, reference), 12
    reference.generation_config = transformers.GenerationConfig(
        decoder_start_token_id=model.config.start_id,
        max_new_tokens=steps,
        no_repeat_ngram_size=1,
        do_sample=False,
        pad_token_id=0,
    )
    theirs = reference.generate(x_BS, attention_mask=SOURCE_MASK.long())
    memory = model.encode(x_BS, mask=SOURCE_MASK)
    cache = model.new_cache(2, capacity=4)
    assert model.config.start_id is not None
    found = torch.full((2, 1), model.config.start_id)
    for _ in range(steps):
        hidden = model.decode(found[:, -1:], memory_BSD=memory, memory_mask_BS=SOURCE_MASK, cache=cache)
        scores = model.logits(hidden[:, -1]).scatter(1, found, float("-inf"))
        found = torch.cat([found, scores.argmax(-1, keepdim=True)], 1)
    assert found.tolist() == theirs.tolist()


@pytest.mark.parametrize("name", ["t5", "flan", "marian"])
def test_gradients(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, also where transformers computes in float32: in T5's norms and Marian's positions."""
    monkeypatch.setattr(T5LayerNorm, "forward", float64_norm)
    exact = 1e-10
    reference = MODELS[name]()
    reference.save_pretrained(tmp_path)
    reference, model = reference.double(), read(tmp_path).double()
    if name == "marian":
        for stack in (reference.model.encoder, reference.model.decoder):
            stack.embed_positions.weight.data = sines_then_cosines(64, 32)
    x_BS, y_BT, weight = ids(2, 9), ids(2, 7, seed=2), torch.randn(2, 7, VOCABULARY, dtype=torch.float64)
    theirs, ours = (
        (f(m, x_BS, y_BT, SOURCE_MASK) * weight).sum()
        for f, m in ((reference_logits, reference), (logits, model))
    )
    torch.testing.assert_close(ours, theirs, rtol=exact, atol=exact)
    theirs.backward(), ours.backward()
    expected, state = dict(reference.named_parameters()), dict(model.named_parameters())
    compared = 0
    for entry in registry.by_name(model.config.family).entries(model.config):
        if entry.theirs in expected:
            found = state[entry.ours[0]].grad
            assert found is not None
            torch.testing.assert_close(found, expected[entry.theirs].grad, rtol=exact, atol=exact)
            compared += 1
    assert compared >= len(state) - 1  # all but Marian's output bias, which is no parameter there


def float64_norm(self: Any, x_ND: torch.Tensor) -> torch.Tensor:
    rms_N1 = (x_ND.pow(2).mean(-1, keepdim=True) + self.variance_epsilon).sqrt()
    return self.weight * x_ND / rms_N1


def sines_then_cosines(positions: int, width: int) -> torch.Tensor:
    """Marian's position vectors in float64, number by number."""
    angles = [[p / 10_000 ** (2 * j / width) for j in range(width // 2)] for p in range(positions)]
    rows = [[*map(math.sin, row), *map(math.cos, row)] for row in angles]
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("feed", ["gelu", "gelu_new", "gated-silu"])
@torch.no_grad()
def test_other_mlps_of_t5(feed: str, tmp_path: Path) -> None:
    reference, x_BS, y_BT = t5(feed_forward_proj=feed), ids(2, 9), ids(2, 7, seed=2)
    model = saved(tmp_path, reference)
    close(logits(model, x_BS, y_BT, SOURCE_MASK), reference_logits(reference, x_BS, y_BT, SOURCE_MASK))
    assert registry.by_name("t5").to_hf(model.config)["feed_forward_proj"] == feed


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_scale_and_tying_of_t5_are_apart(scaled: bool, tied: bool, tmp_path: Path) -> None:
    """transformers 5 says by one setting whether the output is scaled, and by the tensors whether it is tied."""
    reference, x_BS, y_BT = (t5 if tied else flan)(), ids(2, 9), ids(2, 7, seed=2)
    reference.config.scale_decoder_outputs = scaled
    model = saved(tmp_path / "theirs", reference)
    assert isinstance(model.config.head, c.LanguageHead)
    assert (model.config.head.tied, model.config.head.scale != 1) == (tied, scaled)
    theirs = reference_logits(reference, x_BS, y_BT, SOURCE_MASK)
    close(logits(model, x_BS, y_BT, SOURCE_MASK), theirs)
    back = transformers.AutoModelForSeq2SeqLM.from_pretrained(written(tmp_path / "ours", model)).eval()
    close(reference_logits(back, x_BS, y_BT, SOURCE_MASK), theirs)


def settings(folder: Path, **more: Any) -> None:
    """Change config.json; None removes a key."""
    hf = json.loads((folder / "config.json").read_text()) | more
    (folder / "config.json").write_text(json.dumps({k: v for k, v in hf.items() if v is not None}))


@torch.no_grad()
def test_files_of_older_versions(tmp_path: Path) -> None:
    reference, x_BS, y_BT = flan(), ids(2, 9), ids(2, 7, seed=2)
    reference.save_pretrained(tmp_path)
    settings(tmp_path, scale_decoder_outputs=None, tie_word_embeddings=False, decoder_start_token_id=None)
    tensors = load_file(tmp_path / "model.safetensors")
    copies = {
        f"{side}.embed_tokens.weight": tensors["shared.weight"].clone() for side in ("encoder", "decoder")
    }
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    save_file(tensors | copies | {unused: torch.ones(8, 4)}, tmp_path / "model.safetensors")
    model = read(tmp_path)
    assert model.config.start_id == 0
    close(logits(model, x_BS, y_BT, SOURCE_MASK), reference_logits(reference, x_BS, y_BT, SOURCE_MASK))


@pytest.mark.parametrize("stored", ["shared.weight", "encoder.embed_tokens.weight"])
@torch.no_grad()
def test_encoder_of_t5(stored: str, tmp_path: Path) -> None:
    reference, x_BS = randomized(transformers.T5EncoderModel(transformers.T5Config(**T5))), ids(2, 9)
    reference.save_pretrained(tmp_path / "theirs")
    where = tmp_path / "theirs" / "model.safetensors"
    tensors = {
        stored if "embed_tokens" in n or n == "shared.weight" else n: t for n, t in load_file(where).items()
    }
    save_file(tensors, where)
    model = read(tmp_path / "theirs")
    assert (model.config.decoder, model.config.start_id) == (None, None)
    theirs = reference(x_BS, attention_mask=SOURCE_MASK.long())[0]
    close(model.encode(x_BS, mask=SOURCE_MASK)[SOURCE_MASK], theirs[SOURCE_MASK])
    back = transformers.T5EncoderModel.from_pretrained(written(tmp_path / "ours", model)).eval()
    close(back(x_BS, attention_mask=SOURCE_MASK.long())[0][SOURCE_MASK], theirs[SOURCE_MASK])


@pytest.mark.parametrize(
    "reference",
    [
        transformers.T5Model(transformers.T5Config(**T5)),
        transformers.MarianModel(transformers.MarianConfig(**MARIAN)),
    ],
)
@torch.no_grad()
def test_models_without_a_head(reference: Any, tmp_path: Path) -> None:
    reference, x_BS, y_BT = randomized(reference), ids(2, 9), ids(2, 7, seed=2)
    model = saved(tmp_path / "theirs", reference)
    assert isinstance(model.config.head, c.NoHead)
    more = {"attention_mask": SOURCE_MASK.long(), "decoder_input_ids": y_BT}
    theirs = reference(x_BS, **more)[0]
    memory = model.encode(x_BS, mask=SOURCE_MASK)
    close(model.decode(y_BT, memory_BSD=memory, memory_mask_BS=SOURCE_MASK), theirs)
    back = type(reference).from_pretrained(written(tmp_path / "ours", model)).eval()
    close(back(x_BS, **more)[0], theirs)


@torch.no_grad()
def test_marian_without_a_bias_and_with_stored_positions(tmp_path: Path) -> None:
    reference, x_BS, y_BT = marian(scale_embedding=False), ids(2, 9), ids(2, 7, seed=2)
    reference.final_logits_bias.zero_()
    reference.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["final_logits_bias"]
    positions = reference.model.encoder.embed_positions.weight.data.clone()
    save_file(tensors | {"model.encoder.embed_positions.weight": positions}, tmp_path / "model.safetensors")
    model = read(tmp_path)
    assert model.config.head == c.LanguageHead(bias=False)
    close(logits(model, x_BS, y_BT, SOURCE_MASK), reference_logits(reference, x_BS, y_BT, SOURCE_MASK))


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("t5", {"feed_forward_proj": "gated-mish"}, "feed_forward_proj='gated-mish' is not supported"),
        ("t5", {"architectures": ["T5ForQuestionAnswering"]}, "'T5ForQuestionAnswering' is not supported"),
        ("t5", {"d_kv": None}, "the setting 'd_kv' is missing"),
        ("marian", {"activation_function": "mish"}, "activation_function='mish' is not supported"),
        ("marian", {"share_encoder_decoder_embeddings": False}, "share_encoder_decoder_embeddings=False"),
        ("marian", {"tie_word_embeddings": False}, "tie_word_embeddings=False is not supported"),
        ("marian", {"decoder_vocab_size": 50}, "decoder_vocab_size=50 is not supported"),
        ("marian", {"normalize_before": True}, "normalize_before=True is not supported"),
        ("marian", {"decoder_attention_heads": 5}, "cannot be cut into 5 heads"),
        ("marian", {"architectures": ["MarianForCausalLM"]}, "'MarianForCausalLM' is not supported"),
    ],
)
def test_refused_settings(name: str, changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    MODELS[name]().save_pretrained(tmp_path)
    settings(tmp_path, **changed)
    with pytest.raises(FormatError, match=message) as caught:
        checkpoint.read(tmp_path)
    assert "config.json" in str(caught.value)


@pytest.mark.parametrize("name", ["t5", "marian"])
def test_what_a_layout_cannot_hold_is_not_written(name: str, tmp_path: Path) -> None:
    config = saved(tmp_path, MODELS[name]()).config
    assert config.decoder is not None
    changed = config.decoder.model_copy(update={"norm_placement": "sandwich"})
    to_hf = registry.by_name(config.family).to_hf
    with pytest.raises(FormatError, match=r"no place for decoder\.norm_placement='sandwich'"):
        to_hf(config.model_copy(update={"decoder": changed}))
    with pytest.raises(FormatError, match=r"no place for head\.scale="):
        to_hf(config.model_copy(update={"head": c.LanguageHead(scale=0.3, bias=name == "marian")}))
    assert config.encoder is not None
    encoder = config.encoder.model_copy(update={"mlp": c.GeGLU(hidden=4, approximate=False)})
    with pytest.raises(FormatError, match="has no place for this MLP"):
        to_hf(config.model_copy(update={"encoder": encoder}))
