import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from matura.core.errors import FormatError
from matura.model import checkpoint
from matura.model import config as c
from matura.model.counting import count_parameters
from matura.model.families import registry
from tests.model.families.reference import VOCABULARY, close, ids, padding, randomized, read, saved, written

SMALL = {"vocab_size": VOCABULARY, "attn_implementation": "eager"}
BERT = SMALL | {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
    "type_vocab_size": 2,
}
CONFIGS: dict[str, Any] = {
    "bert": lambda **more: transformers.BertConfig(**BERT | more),
    "roberta": lambda **more: transformers.RobertaConfig(**BERT | more),
    "xlm-roberta": lambda **more: transformers.XLMRobertaConfig(**BERT | {"type_vocab_size": 1} | more),
    "distilbert": lambda **more: transformers.DistilBertConfig(
        **SMALL
        | {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 24}
        | more
    ),
}
MASK = padding(9, 5)
FAMILIES = pytest.mark.parametrize("family", CONFIGS)


def made(auto: Any, family: str, **more: Any) -> Any:
    """A tiny random model of transformers."""
    return randomized(auto.from_config(CONFIGS[family](**more)))


def hidden(model: Any, inputs: torch.Tensor, mask: torch.Tensor, **more: Any) -> torch.Tensor:
    return model(inputs, attention_mask=mask.long(), **more)[0]


@FAMILIES
@torch.no_grad()
def test_hidden_states_and_pooled_vectors(family: str, tmp_path: Path) -> None:
    reference = made(transformers.AutoModel, family)
    model, x_BS = saved(tmp_path, reference), ids(2, 9)
    theirs = reference(x_BS, attention_mask=MASK.long())
    ours = model.encode(x_BS, mask=MASK)
    close(ours[MASK], theirs[0][MASK])
    close(model.encode(x_BS), reference(x_BS)[0])
    if family == "distilbert":
        assert model.head is None
    else:
        assert isinstance(model.config.head, c.Pooler)
        close(model.head(ours, MASK), theirs.pooler_output)
    assert count_parameters(model.config)[0] == sum(p.numel() for p in model.parameters())


@FAMILIES
@torch.no_grad()
def test_padding_on_the_left_changes_nothing(family: str, tmp_path: Path) -> None:
    reference = made(transformers.AutoModel, family)
    model = saved(tmp_path, reference)
    x_BS, mask = ids(2, 9), padding(9, 5, left=True)
    alone = reference(x_BS[1:, 4:])[0][0]
    close(model.encode(x_BS, mask=mask)[1, 4:], alone)


@pytest.mark.parametrize("family", ["bert", "roberta"])
@torch.no_grad()
def test_segments(family: str, tmp_path: Path) -> None:
    reference = made(transformers.AutoModel, family)
    model, x_BS = saved(tmp_path, reference), ids(2, 9)
    segments = (torch.arange(9) > 3).long().expand(2, 9)
    theirs = hidden(reference, x_BS, MASK, token_type_ids=segments)
    close(model.encode(x_BS, mask=MASK, segments_BS=segments)[MASK], theirs[MASK])
    assert (model.encode(x_BS, mask=MASK)[MASK] - theirs[MASK]).abs().max() > 0.01


@FAMILIES
@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_masked_language_models(family: str, tied: bool, tmp_path: Path) -> None:
    reference = made(transformers.AutoModelForMaskedLM, family, tie_word_embeddings=tied)
    model, x_BS = saved(tmp_path / "theirs", reference), ids(2, 9)
    assert model.config.tied == tied
    theirs = hidden(reference, x_BS, MASK)
    close(model.logits(model.encode(x_BS, mask=MASK))[MASK], theirs[MASK])
    written(tmp_path / "ours", model)
    back = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "ours").eval()
    close(hidden(back, x_BS, MASK)[MASK], theirs[MASK])
    assert read(tmp_path / "ours").config == model.config


@FAMILIES
@torch.no_grad()
def test_text_classifiers(family: str, tmp_path: Path) -> None:
    names = {0: "bad", 1: "middling", 2: "good"}
    auto = transformers.AutoModelForSequenceClassification
    reference = made(auto, family, id2label=names, label2id={name: i for i, name in names.items()})
    model, x_BS = saved(tmp_path / "theirs", reference), ids(2, 9)
    assert isinstance(model.config.head, c.Classifier)
    assert model.config.head.labels == ("bad", "middling", "good")
    theirs = hidden(reference, x_BS, MASK)
    close(model.head(model.encode(x_BS, mask=MASK), MASK), theirs)
    written(tmp_path / "ours", model)
    back = auto.from_pretrained(tmp_path / "ours").eval()
    close(hidden(back, x_BS, MASK), theirs)
    assert back.config.id2label == names
    assert read(tmp_path / "ours").config == model.config


@FAMILIES
@torch.no_grad()
def test_encoders_are_written_back(family: str, tmp_path: Path) -> None:
    reference = made(transformers.AutoModel, family)
    model, x_BS = saved(tmp_path / "theirs", reference), ids(2, 9)
    written(tmp_path / "ours", model)
    back = transformers.AutoModel.from_pretrained(tmp_path / "ours").eval()
    close(hidden(back, x_BS, MASK)[MASK], hidden(reference, x_BS, MASK)[MASK])
    stored, again = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "ours"))
    assert stored.keys() == again.keys()
    rows = 0 if family in ("bert", "distilbert") else 2
    assert all(torch.equal(again[name][rows:], stored[name][rows:]) for name in stored if "position" in name)
    assert all(torch.equal(again[name], stored[name]) for name in stored if "position" not in name)
    assert read(tmp_path / "ours").config == model.config


@pytest.mark.parametrize(
    ("family", "key", "name"),
    [
        (f, k, n)
        for f, k in (("bert", "hidden_act"), ("distilbert", "activation"))
        for n in ("gelu_new", "relu")
    ]
    + [("roberta", "hidden_act", "gelu_new")],
)
@torch.no_grad()
def test_activations(family: str, key: str, name: str, tmp_path: Path) -> None:
    reference = made(transformers.AutoModelForMaskedLM, family, **{key: name})
    model, x_BS = saved(tmp_path, reference), ids(2, 9)
    close(model.logits(model.encode(x_BS)), reference(x_BS).logits)
    assert registry.by_name(family).to_hf(model.config)[key] == name


def test_gradients(tmp_path: Path) -> None:
    more = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    reference = made(transformers.AutoModelForMaskedLM, "bert", **more)
    reference.save_pretrained(tmp_path)
    reference.double().train()
    model = read(tmp_path).double().train()
    x_BS, wanted = ids(2, 9), ids(2, 9, seed=2)
    theirs = reference(x_BS, attention_mask=MASK.long(), labels=wanted.masked_fill(~MASK, -100)).loss
    logits = model.logits(model.encode(x_BS, mask=MASK))
    ours = torch.nn.functional.cross_entropy(logits[MASK], wanted[MASK])
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    theirs.backward(), ours.backward()
    expected = dict(reference.named_parameters())
    state = dict(model.named_parameters())
    for entry in registry.by_name("bert").entries(model.config):
        found = state[entry.ours[0]].grad
        assert found is not None
        torch.testing.assert_close(found, expected[entry.theirs].grad, rtol=1e-10, atol=1e-10)


def rewritten(folder: Path, names: Any) -> Path:
    """The folder with every tensor under the name that `names` gives it; None drops one."""
    tensors = load_file(folder / "model.safetensors")
    renamed = {names(name): tensor for name, tensor in tensors.items()}
    renamed.pop(None, None)
    save_file(renamed, folder / "model.safetensors")
    return folder


def settings(folder: Path, **more: Any) -> None:
    """Change config.json; None removes a key."""
    hf = json.loads((folder / "config.json").read_text()) | more
    kept = {key: value for key, value in hf.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))


@torch.no_grad()
def test_names_of_the_first_checkpoints(tmp_path: Path) -> None:
    reference = made(transformers.AutoModelForPreTraining, "bert")
    reference.save_pretrained(tmp_path)
    settings(tmp_path, tie_word_embeddings=None)

    def old(name: str) -> str:
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        return name.replace("cls.predictions.bias", "cls.predictions.decoder.bias")

    rewritten(tmp_path, old)
    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors.keys() > {"bert.pooler.dense.weight", "cls.seq_relationship.weight"}
    save_file(
        tensors | {"bert.embeddings.position_ids": torch.arange(24)[None]}, tmp_path / "model.safetensors"
    )
    model, x_BS = read(tmp_path), ids(2, 9)
    close(model.logits(model.encode(x_BS)), reference(x_BS).prediction_logits)


@pytest.mark.parametrize("pooler", [True, False])
@torch.no_grad()
def test_an_encoder_under_the_prefix_of_a_whole_model(pooler: bool, tmp_path: Path) -> None:
    reference = made(transformers.AutoModel, "bert")
    reference.save_pretrained(tmp_path)
    rewritten(tmp_path, lambda name: f"bert.{name}" if pooler or "pooler" not in name else None)
    model, x_BS = read(tmp_path), ids(2, 9)
    assert isinstance(model.config.head, c.Pooler if pooler else c.NoHead)
    close(model.encode(x_BS), reference(x_BS)[0])


@pytest.mark.parametrize(
    ("family", "changed", "message"),
    [
        ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'"),
        ("bert", {"is_decoder": True}, "is_decoder=True is not supported"),
        ("bert", {"hidden_act": "mish"}, "hidden_act='mish' is not supported; known: gelu"),
        ("bert", {"architectures": ["BertForTokenClassification"]}, "'BertForTokenClassification' is not"),
        ("bert", {"num_attention_heads": 5}, "a width of 32 cannot be cut into 5 heads"),
        ("roberta", {"pad_token_id": 0}, "pad_token_id=0 is not supported; expected 1"),
        ("distilbert", {"activation": "silu"}, "activation='silu' is not supported"),
        ("distilbert", {"dim": None}, "the setting 'dim' is missing"),
    ],
)
def test_refused_settings(family: str, changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    made(transformers.AutoModel, family).save_pretrained(tmp_path)
    settings(tmp_path, **changed)
    with pytest.raises(FormatError, match=message) as caught:
        checkpoint.read(tmp_path)
    assert "config.json" in str(caught.value)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_what_a_layout_cannot_hold_is_not_written(family: str, tmp_path: Path) -> None:
    config = saved(tmp_path, made(transformers.AutoModelForMaskedLM, family)).config
    assert config.encoder is not None
    changed = config.encoder.model_copy(update={"norm_placement": "pre"})
    with pytest.raises(FormatError, match=r"no place for encoder\.norm_placement='pre'"):
        registry.by_name(family).to_hf(config.model_copy(update={"encoder": changed}))
    with pytest.raises(FormatError, match=r"no place for embedding_scale=2\.0"):
        registry.by_name(family).to_hf(config.model_copy(update={"embedding_scale": 2.0}))
