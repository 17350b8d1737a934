"""How likely a text is: equal to a plain computation, each token once, for decoders and encoder-decoders."""

import math
from collections.abc import Sequence

import pytest
import torch

from matura.core.errors import MaturaError
from matura.evaluate.likelihood import Likelihood, continuation, text
from matura.model import config as c
from matura.model.transformer import Transformer
from matura.tokenizer.conversation import Format
from tests.model.tiny import build, gpt_stack
from tests.tiny_models import CONTEXT, VOCABULARY, chatml, network

TEXT = "Hello hello, this is a text of some words. " * 2


@pytest.fixture(scope="module")
def format() -> Format:
    return chatml()


@pytest.fixture(scope="module")
def model() -> Transformer:
    return network(scale=2.0)


def plain(model: Transformer, ids: Sequence[int], first: int) -> float:
    """The sum of log-probabilities of ids[first:], all in one row."""
    with torch.inference_mode():
        logprobs = model.logits(model.decode(torch.tensor([ids])))[0].double().log_softmax(-1)
    return sum(float(logprobs[at - 1, ids[at]]) for at in range(first, len(ids)))


def test_a_text_is_scored_after_what_begins_a_document(model: Transformer, format: Format) -> None:
    ids = format.tokenizer.encode(TEXT)
    assert format.begin_id is not None
    found = text(model, format, TEXT)
    assert found.logprob == pytest.approx(plain(model, [format.begin_id, *ids], 1), rel=1e-5)
    assert (found.tokens, found.bytes) == (len(ids), len(TEXT.encode()))
    assert found.perplexity == pytest.approx(math.exp(-found.logprob / len(ids)))
    assert found.bits_per_byte == pytest.approx(-found.logprob / math.log(2) / len(TEXT))


def test_a_text_longer_than_the_context_is_read_in_windows(model: Transformer, format: Format) -> None:
    long = TEXT * 8
    ids = format.tokenizer.encode(long)
    assert len(ids) > 2 * CONTEXT
    whole = [format.begin_id, *ids]
    expected = 0.0
    for start in range(1, len(whole), CONTEXT):
        end = min(start + CONTEXT, len(whole))
        before = max(0, end - CONTEXT - 1)
        expected += plain(model, whole[before:end], start - before)  # type: ignore[arg-type]
    found = text(model, format, long)
    assert (found.logprob, found.tokens) == (pytest.approx(expected, rel=1e-5), len(ids))
    short = text(model, format, long, window=16)
    assert short.tokens == found.tokens
    assert short.logprob != found.logprob


def test_a_continuation_is_scored_after_what_stands_before_it(model: Transformer, format: Format) -> None:
    encode = format.tokenizer.encode
    found = continuation(model, format, "hello", " and more")
    whole = encode("hello and more")
    assert found.logprob == pytest.approx(plain(model, whole, len(encode("hello"))), rel=1e-5)
    assert (found.tokens, found.bytes) == (len(whole) - len(encode("hello")), 9)
    both = text(model, format, "hello and more").logprob - text(model, format, "hello").logprob
    assert found.logprob != pytest.approx(both)  # a text by itself begins a document


def test_what_does_not_fit_loses_the_beginning_of_the_context(model: Transformer, format: Format) -> None:
    before, after = TEXT * 8, " and more"
    whole = format.tokenizer.encode(before.rstrip() + " " + after)
    new = len(format.tokenizer.encode(" " + after))
    found = continuation(model, format, before, after)
    assert found.tokens == new
    assert found.logprob == pytest.approx(plain(model, whole[-CONTEXT - 1 :], CONTEXT + 1 - new), rel=1e-5)
    long = continuation(model, format, "hello", " more" * 200)
    assert long.tokens > CONTEXT
    assert long.tokens == len(format.tokenizer.encode("hello" + " more" * 200)) - len(
        format.tokenizer.encode("hello")
    )


def test_an_encoder_decoder_answers_what_it_reads(format: Format) -> None:
    model = build(
        c.ModelConfig(
            vocabulary=VOCABULARY,
            context=64,
            encoder=gpt_stack(causal=False),
            decoder=gpt_stack(cross=True),
            start_id=3,
        ),
        scale=2.0,
    )
    encode = format.tokenizer.encode
    target = encode("more")
    with torch.inference_mode():
        memory = model.encode(torch.tensor([encode("hello")]))
        hidden = model.decode(torch.tensor([[3, *target[:-1]]]), memory_BSD=memory)
        logprobs = model.logits(hidden)[0].log_softmax(-1)
    expected = sum(float(logprobs[at, id]) for at, id in enumerate(target))
    found = continuation(model, format, "hello", "more")
    assert found == Likelihood(pytest.approx(expected, rel=1e-5), len(target), 4)
    with pytest.raises(MaturaError, match="context is 64"):
        continuation(model, format, "hello", "m" * 100)
    with pytest.raises(MaturaError, match="give the answer too"):
        text(model, format, "hello")


def test_what_cannot_be_scored_is_told(model: Transformer, format: Format) -> None:
    encoder = build(c.ModelConfig(vocabulary=97, context=16, encoder=gpt_stack(causal=False)))
    for ask in (text, continuation):
        with pytest.raises(MaturaError, match="does not write text"):
            ask(encoder, format, "a", *(["b"] if ask is continuation else []))
    with pytest.raises(MaturaError, match="leaves no token to score"):
        text(model, format, "")
    with pytest.raises(MaturaError, match="leaves no token to score"):
        continuation(model, format, "hello", "")
    with pytest.raises(MaturaError, match=f"window: expected 2 to {CONTEXT} tokens"):
        text(model, format, "hello", window=CONTEXT + 1)
