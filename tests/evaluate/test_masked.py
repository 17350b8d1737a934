import pytest
import torch

from matura.core.errors import MaturaError
from matura.evaluate.bias import Pair
from matura.evaluate.masked import pair_logprobs, pseudo_logprobs
from matura.model.transformer import Transformer
from matura.tokenizer.tokenizer import Tokenizer
from tests import tiny_encoder
from tests.model.tiny import build, llama_config


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny_encoder.word_pieces()


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Transformer:
    return tiny_encoder.network(tokenizer.vocab_size)


def by_hand(model: Transformer, tokenizer: Tokenizer, ids: list[int], places: list[int]) -> float:
    total = 0.0
    for at in places:
        masked = [*ids]
        masked[at] = tokenizer.mask_id
        with torch.inference_mode():
            logits = model.logits(model.encode(torch.tensor([masked])))[0, at]
        total += float(logits.log_softmax(-1)[ids[at]])
    return total


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_every_token_is_masked_alone_in_any_batch(model, tokenizer, batch) -> None:
    rows = [tokenizer("the dog sat"), tokenizer("a big red dog runs")]
    asked = [(rows[0], [1, 3]), (rows[1], [2]), (rows[0], [])]
    found = pseudo_logprobs(model, tokenizer, asked, batch)
    wanted = [by_hand(model, tokenizer, row, places) for row, places in asked]
    assert found == pytest.approx(wanted, abs=1e-4)
    assert found[2] == 0


def test_only_what_both_sentences_have_is_scored(model, tokenizer) -> None:
    pair = Pair("1", "the dog sat", "the cat sat", "x")
    ((more, less),) = pair_logprobs(model, tokenizer, [pair])
    places = [1, 3]  # "the" and "sat", behind the token that begins a text
    assert more == pytest.approx(by_hand(model, tokenizer, tokenizer(pair.more), places), abs=1e-4)
    assert less == pytest.approx(by_hand(model, tokenizer, tokenizer(pair.less), places), abs=1e-4)


def test_equal_sentences_have_equal_scores(model, tokenizer) -> None:
    ((more, less),) = pair_logprobs(model, tokenizer, [Pair("1", "the dog sat", "the dog sat", "x")])
    assert more == less


def test_a_decoder_is_refused(tokenizer) -> None:
    with pytest.raises(MaturaError, match="fills no masks"):
        pseudo_logprobs(build(llama_config()), tokenizer, [])
