"""What a model expected: equal to the definitions, to the scores of exams and to the filters of sampling."""

import math

import numpy as np
import pytest
import torch

from matura.core.errors import MaturaError
from matura.core.settings import Sampling
from matura.inspect.reading import Inputs, inputs
from matura.inspect.tokens import (
    Expectation,
    Expectations,
    cut,
    expectations,
    level,
    same_vocabulary,
    separator,
)
from matura.model import config as c
from matura.model.logprobs import continuation_kl, continuation_logprobs
from matura.model.transformer import Transformer
from tests.inspect.readings import reading
from tests.model import tiny
from tests.tiny_models import VOCABULARY, chatml, network

TOKENIZER = chatml().tokenizer
TEXT = "hello 12 hello, the end"
BEGIN = 0


def given(model: Transformer, text: str = TEXT) -> Inputs:
    return inputs(model.config, TOKENIZER, text, begin=BEGIN)


def test_every_number_is_what_its_definition_says() -> None:
    model = network()
    found = expectations(model, TOKENIZER, given(model), top=4)
    ids = [BEGIN, *TOKENIZER.encode(TEXT)]
    with torch.inference_mode():
        logits = model.logits(model.decode(torch.tensor([ids]))[0]).double().numpy()
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert [one.id for one in found.tokens] == ids[1:]
    assert [one.position for one in found.tokens] == list(range(1, len(ids)))
    for i, one in enumerate(found.tokens):
        assert one.probability == pytest.approx(p[i, ids[i + 1]], rel=1e-4)
        assert one.surprisal == pytest.approx(-np.log2(p[i, ids[i + 1]]), abs=1e-4)
        assert one.entropy == pytest.approx(-(p[i] * np.log2(p[i])).sum(), abs=1e-4)
        assert one.rank == 1 + (p[i] > p[i, ids[i + 1]]).sum()
        best = np.argsort(-p[i])[:4]
        assert [other.id for other in one.alternatives] == best.tolist()
        assert [other.probability for other in one.alternatives] == pytest.approx(p[i, best], rel=1e-4)
    assert found.given == ("<|endoftext|>",)
    assert (found.pseudo, found.kl, found.other_perplexity) == (False, None, None)


def test_perplexity_is_that_of_the_exams() -> None:
    model = network()
    ids = TOKENIZER.encode(TEXT)
    (logprobs,) = continuation_logprobs(model, [([BEGIN], ids)])
    found = expectations(model, TOKENIZER, given(model))
    assert found.perplexity == pytest.approx(math.exp(-sum(logprobs) / len(ids)), rel=1e-4)
    assert found.surprisal == pytest.approx(-sum(logprobs) / len(ids) / math.log(2), rel=1e-4)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = network(), network(seed=3)
    whole = expectations(model, TOKENIZER, given(model), other=other)
    monkeypatch.setattr("matura.inspect.tokens.CHUNK", 3)
    parts = expectations(model, TOKENIZER, given(model), other=other)
    assert [one.id for one in parts.tokens] == [one.id for one in whole.tokens]
    assert [one.kl for one in parts.tokens] == pytest.approx([one.kl for one in whole.tokens], abs=1e-4)


def test_two_models_side_by_side() -> None:
    model, other = network(), network(seed=3)
    found = expectations(model, TOKENIZER, given(model), other=other)
    (nats,) = continuation_kl(model, other, [([BEGIN], TOKENIZER.encode(TEXT))])
    assert [one.kl for one in found.tokens] == pytest.approx([n / math.log(2) for n in nats], abs=1e-4)
    alone = expectations(other, TOKENIZER, given(other))
    assert [one.other for one in found.tokens] == pytest.approx(
        [one.probability for one in alone.tokens], rel=1e-4
    )
    assert found.other_perplexity == pytest.approx(alone.perplexity, rel=1e-4)
    assert found.kl == pytest.approx(sum(nats) / len(nats) / math.log(2), abs=1e-4)
    assert found.kl > 0.1
    twin = expectations(model, TOKENIZER, given(model), other=network())
    assert twin.kl == pytest.approx(0, abs=1e-6)


def test_only_models_with_the_same_vocabulary_are_compared() -> None:
    model = network()
    same_vocabulary(TOKENIZER, chatml().tokenizer, (model, network(seed=1)))
    smaller = tiny.build(tiny.llama_config())
    with pytest.raises(MaturaError, match="vocabularies of 269 and 97 tokens; only models with the same"):
        same_vocabulary(TOKENIZER, TOKENIZER, (model, smaller))
    changed = chatml().tokenizer
    changed.backend.add_tokens(["zebra"])
    with pytest.raises(MaturaError, match=rf"'zebra' is token None in one and {VOCABULARY} in the other"):
        same_vocabulary(TOKENIZER, changed, (model, network()))


@pytest.mark.parametrize(
    "settings",
    [
        Sampling(temperature=0.7),
        Sampling(top_k=3),
        Sampling(temperature=1.5, top_p=0.6),
        Sampling(min_p=0.3),
        Sampling(temperature=0.8, top_k=6, top_p=0.9, min_p=0.1),
    ],
    ids=str,
)
def test_what_sampling_would_cut(settings: Sampling) -> None:
    logits = torch.randn(40, generator=torch.Generator().manual_seed(2)) * 2
    p = torch.softmax(logits.double() / settings.temperature, -1).numpy()
    order = np.argsort(-p)
    chosen = order[: settings.top_k or len(p)]
    shares = p[chosen] / p[chosen].sum()
    chosen = chosen[: int((np.cumsum(shares) - shares < settings.top_p).sum())]
    chosen = chosen[p[chosen] >= settings.min_p * p[order[0]]]
    for id in (int(order[0]), int(order[2]), int(order[-1])):
        found = cut(logits, id, settings)
        assert found.tokens == len(chosen)
        assert found.share == pytest.approx(p[chosen].sum(), rel=1e-5)
        assert found.chance == pytest.approx(p[id] / p[chosen].sum() if id in chosen else 0, rel=1e-5)


def test_at_temperature_zero_only_the_likeliest_survives() -> None:
    logits = torch.tensor([0.0, 3.0, 1.0])
    assert cut(logits, 1, Sampling(temperature=0)).chance == 1
    assert cut(logits, 1, Sampling(temperature=1e-40)) == cut(logits, 1, Sampling(temperature=0))
    found = cut(logits, 2, Sampling(temperature=0))
    assert (found.tokens, found.chance) == (1, 0)
    assert found.share == pytest.approx(float(torch.softmax(logits, -1)[1]))


def test_cuts_stand_at_every_token() -> None:
    model = network()
    ranks = [one.rank for one in expectations(model, TOKENIZER, given(model)).tokens]
    k = sorted(ranks)[len(ranks) // 2]
    found = expectations(model, TOKENIZER, given(model), sampling=Sampling(top_k=k))
    survives = [one.cut is not None and one.cut.chance > 0 for one in found.tokens]
    assert all(one.cut is not None and one.cut.tokens == k for one in found.tokens)
    assert survives == [rank <= k for rank in ranks]
    assert set(survives) == {True, False}


def masked() -> Transformer:
    head = c.LanguageHead(tied=True, bias=True, transform=c.LayerNorm())
    stack = tiny.gpt_stack(causal=False)
    config = c.ModelConfig(vocabulary=VOCABULARY, context=64, encoder=stack, head=head)
    return tiny.build(config, dtype=torch.float32)


def test_a_masked_model_is_asked_with_every_token_masked_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = masked(), chatml().tokenizer
    tokenizer.mask_id = 2
    monkeypatch.setattr("matura.inspect.tokens.MASKED_ROWS", 4)
    ids = [1, *TOKENIZER.encode(TEXT), 0]
    found = expectations(model, tokenizer, Inputs(reading(ids, (0, len(ids) - 1))))
    assert found.pseudo
    assert found.given == ("t1", "t0")
    assert [one.position for one in found.tokens] == list(range(1, len(ids) - 1))
    for one in found.tokens:
        hidden = [2 if i == one.position else id for i, id in enumerate(ids)]
        with torch.inference_mode():
            logits = model.logits(model.encode(torch.tensor([hidden]))[0, one.position])
        assert one.probability == pytest.approx(float(torch.softmax(logits, -1)[one.id]), rel=1e-4)


def test_an_encoder_decoder_is_asked_for_its_target() -> None:
    stacks = {"encoder": tiny.gpt_stack(causal=False), "decoder": tiny.gpt_stack(cross=True)}
    config = c.ModelConfig(vocabulary=VOCABULARY, context=64, start_id=0, **stacks)
    model = tiny.build(config, dtype=torch.float32)
    target = inputs(config, TOKENIZER, "hello 12", "the end")
    found = expectations(model, TOKENIZER, target)
    assert "".join(one.text for one in found.tokens) == "the end"
    assert not found.pseudo
    elsewhere = expectations(model, TOKENIZER, inputs(config, TOKENIZER, "12 hello", "the end"))
    assert abs(found.perplexity - elsewhere.perplexity) > 1e-3
    with pytest.raises(MaturaError, match="give the one it writes as the target"):
        expectations(model, TOKENIZER, inputs(config, TOKENIZER, "hello 12"))


def test_a_first_token_that_nothing_comes_before_is_not_asked_for() -> None:
    model = network()
    found = expectations(model, TOKENIZER, inputs(model.config, TOKENIZER, "hello 12"))
    assert found.given == ("hello",)
    assert found.tokens[0].position == 1
    with pytest.raises(MaturaError, match="a single token with nothing before it"):
        expectations(model, TOKENIZER, inputs(model.config, TOKENIZER, "hello"))


def test_models_that_expect_no_token_are_told() -> None:
    bare = c.ModelConfig(
        vocabulary=VOCABULARY, context=64, encoder=tiny.gpt_stack(causal=False), head=c.NoHead()
    )
    with pytest.raises(MaturaError, match="no scores over its vocabulary"):
        expectations(tiny.build(bare), TOKENIZER, Inputs(reading([1, 2, 3])))
    with pytest.raises(MaturaError, match="no mask token"):
        expectations(masked(), TOKENIZER, Inputs(reading([1, 2, 3])))


def test_levels_of_colour() -> None:
    assert [level(bits) for bits in (0, 1.99, 2, 13.9, 14, 99)] == [0, 0, 1, 6, 7, 7]


@pytest.mark.parametrize(
    ("texts", "text", "expected"),
    [
        ((" a", " cat"), "The a cat", ""),
        (("1", "2"), "12", ""),
        (("a", "cat"), "A cat", " "),
        ((" a", "\\xc3"), "a Ã", ""),
    ],
)
def test_tokens_that_hold_no_spaces_are_set_apart(texts: tuple[str, ...], text: str, expected: str) -> None:
    rows = tuple(Expectation(i, i, one, 0.5, 1, 1.0, 1.0, ()) for i, one in enumerate(texts))
    assert separator(Expectations(rows, (), pseudo=False), text) == expected
