"""Filling masks: which model can, what counts as a mask, and that other markup stays text."""

import pytest
import tokenizers
import torch
from tokenizers import models, pre_tokenizers

from matura.core.errors import ConfigError, MaturaError
from matura.infer.fill import fill, mask_spelling, masked_ids
from matura.model import config as c
from matura.model.transformer import Transformer
from matura.tokenizer.tokenizer import Roles, Tokenizer
from tests import tiny_encoder
from tests.model.tiny import build, llama_config
from tests.tiny_models import chatml


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny_encoder.word_pieces()


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Transformer:
    return tiny_encoder.network(tokenizer.vocab_size)


def by_hand(model: Transformer, ids: tuple[int, ...], at: int) -> torch.Tensor:
    with torch.inference_mode():
        return model.logits(model.encode(torch.tensor([ids])))[0, at].softmax(-1)


def test_probabilities_are_those_of_the_model_alone_in_any_batch(
    model: Transformer, tokenizer: Tokenizer
) -> None:
    texts = ["the [MASK] sat on the [MASK]", "[MASK]", "a big red dog and a small blue [MASK] runs"]
    for batch in (1, 2, 16):
        found = fill(model, tokenizer, texts, top_k=3, batch=batch)
        assert [len(one.fills) for one in found] == [2, 1, 1]
        for text, one in zip(texts, found, strict=True):
            assert one.ids == tuple(masked_ids(tokenizer, text))
            masks = [t for t, id in enumerate(one.ids) if id == tokenizer.mask_id]
            for at, fills in zip(masks, one.fills, strict=True):
                p = by_hand(model, one.ids, at)
                assert [best.id for best in fills] == p.topk(3).indices.tolist()
                assert [best.probability for best in fills] == pytest.approx(
                    p.topk(3).values.tolist(), abs=1e-6
                )


def test_the_text_is_shown_with_one_mask_filled(model: Transformer, tokenizer: Tokenizer) -> None:
    (found,) = fill(model, tokenizer, ["the [MASK] sat on a [MASK]"], among=[tokenizer.id("[SEP]") + 6, 8])
    first, second = found.fills
    words = {one.id: one.token for one in first}
    assert set(words.values()) == {tokenizer.token(9), tokenizer.token(8)}
    assert [one.text for one in first] == [f"the {words[one.id]} sat on a [MASK]" for one in first]
    assert [one.text for one in second] == [f"the [MASK] sat on a {words[one.id]}" for one in second]
    assert first[0].probability >= first[1].probability


def test_only_the_mask_is_markup(tokenizer: Tokenizer) -> None:
    ids = masked_ids(tokenizer, "the [SEP] [MASK]")
    assert ids[:2] == [tokenizer.id("[CLS]"), tokenizer.id("the")]
    assert ids[-2:] == [tokenizer.mask_id, tokenizer.id("[SEP]")]
    assert ids.count(tokenizer.id("[SEP]")) == 1


def test_the_other_spelling_is_taken_where_the_models_own_does_not_occur(tokenizer: Tokenizer) -> None:
    assert masked_ids(tokenizer, "the <mask> sat") == masked_ids(tokenizer, "the [MASK] sat")
    assert mask_spelling(tokenizer, "the <mask> sat") == "<mask>"
    assert mask_spelling(tokenizer, "the <mask> [MASK] sat") == "[MASK]"
    assert masked_ids(tokenizer, "the <mask> [MASK]").count(tokenizer.mask_id) == 1
    assert mask_spelling(tokenizer, "the [Mask] sat") is None


def test_a_mask_takes_in_the_spaces_that_it_says() -> None:
    letters = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = tokenizers.Tokenizer(models.BPE(vocab=letters, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens([tokenizers.AddedToken("<mask>", lstrip=True, special=True)])
    whole = backend.encode("a  <mask> b").ids
    tokenizer = Tokenizer(backend, Roles(mask="<mask>"))
    assert masked_ids(tokenizer, "a  <mask> b") == whole == masked_ids(tokenizer, "a  [MASK] b")
    assert len(whole) == 4


def test_what_cannot_be_filled_is_told(model: Transformer, tokenizer: Tokenizer) -> None:
    with pytest.raises(MaturaError, match=r"nothing to fill in 'the cat': write \[MASK\]"):
        fill(model, tokenizer, ["the [MASK]", "the cat"])
    with pytest.raises(MaturaError, match="text 1 has 43 tokens and the model's context is 24"):
        fill(model, tokenizer, ["the [MASK]", "the cat " * 20 + "[MASK]"])
    with pytest.raises(ConfigError, match="top_k"):
        fill(model, tokenizer, ["the [MASK]"], top_k=0)
    with pytest.raises(MaturaError, match="writes from left to right"):
        fill(build(llama_config()), tokenizer, ["the [MASK]"])
    headless = build(model.config.model_copy(update={"head": c.NoHead()}))
    with pytest.raises(MaturaError, match="no scores over its vocabulary"):
        fill(headless, tokenizer, ["the [MASK]"])
    with pytest.raises(MaturaError, match="no mask token"):
        fill(model, chatml().tokenizer, ["the [MASK]"])


def test_no_texts_give_no_fills(model: Transformer, tokenizer: Tokenizer) -> None:
    assert fill(model, tokenizer, []) == []
