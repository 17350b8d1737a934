"""Embeddings: the pooled hidden states that transformers computes, for encoders and decoders, alone and in batches."""

import math
from pathlib import Path

import pytest
import torch
import transformers

import matura
from matura.api import LanguageModel
from matura.core.errors import ConfigError, MaturaError
from matura.core.workspace import Workspace
from matura.infer.embed import embed
from matura.infer.reading import clipped
from matura.model import config as c
from tests import tiny_hf
from tests.model.tiny import build, gpt_stack, llama_config

TEXTS = [
    "The cat sat on the mat.",
    "a dog",
    "",
    "the small red house is in the green tree and the cat sleeps",
]
POOLS = ("mean", "first", "last")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_hf.bert(tmp_path_factory.mktemp("embed") / "encoder", "Model")


@pytest.fixture(scope="module")
def model(folder: Path) -> LanguageModel:
    return matura.load(folder, workspace=Workspace(folder.parent / "workspace"))


def theirs(folder: Path, texts: list[str], longest: int) -> torch.Tensor:
    """Sentence-transformers' recipe: mean over the attention mask, then length one."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    read = tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
    with torch.no_grad():
        hidden = transformers.AutoModel.from_pretrained(folder).eval()(**read).last_hidden_state
    weight = read["attention_mask"][..., None].float()
    return torch.nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=-1)


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_vectors_equal_the_recipe_of_sentence_transformers(
    folder: Path, model: LanguageModel, batch: int
) -> None:
    found = model.embed(TEXTS, batch=batch)
    torch.testing.assert_close(found, theirs(folder, TEXTS, 40), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(len(TEXTS)))


def test_one_text_is_one_vector(model: LanguageModel) -> None:
    assert model.embed(TEXTS[0]).shape == (32,)
    torch.testing.assert_close(model.embed(TEXTS[0]), model.embed(TEXTS[:1])[0])
    assert model.embed([]).shape == (0, 32)


def test_what_is_too_long_loses_its_end_and_that_is_said(folder: Path, model: LanguageModel) -> None:
    long = [*TEXTS, "the cat sat on " * 20]
    with pytest.warns(
        UserWarning, match=r"1 of 5 texts are longer than 40 tokens and were cut there .*: text 4"
    ):
        found = model.embed(long)
    torch.testing.assert_close(found, theirs(folder, long, 40), rtol=1e-5, atol=1e-6)
    with pytest.warns(UserWarning, match="3 of 5 texts are longer than 5 tokens"):
        found = model.embed(long, max_tokens=5)
    torch.testing.assert_close(found, theirs(folder, long, 5), rtol=1e-5, atol=1e-6)
    with pytest.raises(MaturaError, match="2 tokens leave no room for a text; allow at least 3"):
        model.embed(TEXTS, max_tokens=2)
    rows, cut = clipped(model.tokenizer, long, 6)
    assert [len(row) <= 6 for row in rows] == [True] * 5
    assert all(row[-1:] == list(model.tokenizer.suffix_ids) for row in rows)
    assert cut == [0, 3, 4]


ROWS = [[5, 6, 7], [8], [9, 10, 11, 12, 13], [14, 15]]


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
@pytest.mark.parametrize("pool", POOLS)
def test_pooling_is_over_real_tokens(kind: str, pool: str) -> None:
    encoder = c.ModelConfig(vocabulary=97, context=16, encoder=gpt_stack(causal=False), head=c.NoHead())
    model = build(llama_config() if kind == "decoder" else encoder)
    if (kind, pool) == ("decoder", "first"):
        with pytest.raises(ConfigError, match="in a decoder the first token has seen nothing but itself"):
            embed(model, ROWS, pool="first")
        return
    read = model.decode if kind == "decoder" else model.encode
    with torch.inference_mode():
        hidden = [read(torch.tensor([row]))[0] for row in ROWS]
    expected = torch.stack([{"mean": one.mean(0), "first": one[0], "last": one[-1]}[pool] for one in hidden])
    for batch in (1, 2, 9):
        found = embed(model, ROWS, pool=pool, normalize=False, batch=batch)  # type: ignore[arg-type]
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert not math.isclose(float(found[0].norm()), 1.0, abs_tol=1e-3)


def test_cls_is_another_name_of_first() -> None:
    model = build(c.ModelConfig(vocabulary=97, context=16, encoder=gpt_stack(causal=False), head=c.NoHead()))
    assert torch.equal(embed(model, ROWS, pool="cls"), embed(model, ROWS, pool="first"))
    assert not torch.equal(embed(model, ROWS, pool="cls"), embed(model, ROWS))


def test_an_encoder_decoder_embeds_with_its_encoder() -> None:
    decoder = gpt_stack(cross=True)
    both = build(c.ModelConfig(vocabulary=97, context=16, encoder=gpt_stack(causal=False), decoder=decoder))
    with torch.inference_mode():
        expected = both.encode(torch.tensor([[5, 6, 7]]))[0].mean(0)
    torch.testing.assert_close(embed(both, [[5, 6, 7]], normalize=False)[0], expected)


def test_rows_that_cannot_be_read_are_told() -> None:
    model = build(llama_config())
    with pytest.raises(MaturaError, match="text 1 is empty"):
        embed(model, [[1], []])
    with pytest.raises(
        MaturaError, match=r"^the text has 200 tokens and the model's context is 128; shorten it$"
    ):
        embed(model, [[1] * 200])
    with pytest.raises(MaturaError, match="text 1 has 200 tokens"):
        embed(model, [[1], [1] * 200])
    with pytest.raises(ConfigError, match="pool: expected 'mean', 'first', 'last', got 'max'"):
        embed(model, [[1]], pool="max")  # type: ignore[arg-type]
