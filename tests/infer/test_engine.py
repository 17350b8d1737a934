"""The engine against the plainest loop there is, and answers that never depend on their batch."""

import random
from collections.abc import Sequence

import pytest
import torch

from matura.core.errors import MaturaError
from matura.core.settings import Sampling
from matura.infer.engine import Request, generate, stream
from matura.infer.sampling import choose, sample_seed
from matura.model.transformer import Transformer
from tests.model.tiny import build, llama_config

GREEDY = Sampling(temperature=0, max_new_tokens=12)
FREE = Sampling(temperature=1.2, top_p=0.95, max_new_tokens=12)


@pytest.fixture(scope="module")
def model() -> Transformer:
    return build(llama_config())


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    draw = random.Random(seed)
    return [[draw.randrange(97) for _ in range(draw.randrange(1, 15))] for _ in range(count)]


def recomputed(
    model: Transformer, ids: Sequence[int], settings: Sampling, stop: Sequence[int] = ()
) -> list[int]:
    """One token after the other, the whole text through the model each time, nothing kept."""
    new: list[int] = []
    for position in range(settings.max_new_tokens):
        with torch.no_grad():
            logits = model.logits(model.decode(torch.tensor([[*ids, *new]]))[0, -1])
        token = choose(logits, settings, [*ids, *new], position)
        if token in stop:
            break
        new.append(token)
    return new


@pytest.mark.parametrize(
    "settings",
    [GREEDY, FREE, FREE.model_copy(update={"repetition_penalty": 1.4}), Sampling(top_k=5, max_new_tokens=12)],
    ids=["greedy", "free", "penalty", "top_k"],
)
def test_answers_equal_recomputation(model: Transformer, settings: Sampling) -> None:
    for n, ids in enumerate(prompts(4)):
        one = settings.model_copy(update={"seed": n})
        assert generate(model, [ids], one) == [recomputed(model, ids, one)]


@pytest.mark.parametrize("settings", [GREEDY, FREE], ids=["greedy", "free"])
@pytest.mark.parametrize("batch", [1, 3, 16])
def test_ragged_batches_answer_like_single_requests(
    model: Transformer, settings: Sampling, batch: int
) -> None:
    asked = prompts(9, seed=1)
    each = [settings.model_copy(update={"seed": n, "max_new_tokens": 3 + n}) for n in range(9)]
    expected = [recomputed(model, ids, one) for ids, one in zip(asked, each, strict=True)]
    assert generate(model, asked, each, batch=batch) == expected
    order = random.Random(batch).sample(range(9), 9)
    shuffled = generate(model, [asked[i] for i in order], [each[i] for i in order], batch=batch)
    assert shuffled == [expected[i] for i in order]
    assert generate(model, asked[:2], each[:2], batch=batch) == expected[:2]


def test_rows_that_stop_leave_the_others_alone(model: Transformer) -> None:
    asked = prompts(8, seed=2)
    free = [recomputed(model, ids, FREE) for ids in asked]
    stop = [free[0][2], free[3][5], free[5][0]]
    expected = [recomputed(model, ids, FREE, stop) for ids in asked]
    assert len({len(answer) for answer in expected}) > 2
    assert generate(model, asked, FREE, stop, batch=8) == expected


def test_the_seed_decides(model: Transformer) -> None:
    def with_seed(seed: int) -> list[list[int]]:
        return generate(model, [[1, 2, 3]], FREE.model_copy(update={"seed": seed}))

    assert with_seed(1) == with_seed(1)
    assert len({tuple(with_seed(seed)[0]) for seed in range(5)}) == 5


def test_tokens_come_with_their_reason_to_end(model: Transformer) -> None:
    new = recomputed(model, [5, 6], GREEDY)
    stop = new[4]
    cut = new.index(stop) + 1
    tokens = list(stream(model, [Request([5, 6], GREEDY, [stop])]))
    assert [token.id for token in tokens] == new[:cut]
    assert [token.finish for token in tokens] == [None] * (cut - 1) + ["stop"]
    tokens = list(stream(model, [Request([5, 6], GREEDY)]))
    assert [token.finish for token in tokens] == [None] * 11 + ["length"]


def test_tokens_come_as_they_are_made(model: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda *a, **k: calls.append(1) or decode(*a, **k))
    tokens = stream(model, [Request([5, 6], GREEDY)])
    assert not calls
    for made in range(1, 6):
        next(tokens)
        assert len(calls) == made


def test_the_caller_can_end_an_answer(model: Transformer) -> None:
    heard = []

    def ended(request: int, sample: int, new: list[int]) -> bool:
        heard.append((request, len(new)))
        return request == 1 and len(new) == 3

    tokens = list(stream(model, [Request([1], GREEDY), Request([2], GREEDY)], ended=ended))
    assert [t.finish for t in tokens if t.request == 1] == [None, None, "stop"]
    assert [t.finish for t in tokens if t.request == 0] == [None] * 11 + ["length"]
    assert (1, 3) in heard
    assert (1, 4) not in heard


def test_an_answer_ends_where_the_context_does(model: Transformer) -> None:
    context = model.config.context
    long, short = list(range(90)) + [1] * (context - 93), [4, 5]
    settings = Sampling(temperature=0, max_new_tokens=200)
    both = generate(model, [long, short], settings)
    assert [len(long) + len(both[0]), len(short) + len(both[1])] == [context, context]
    assert both == [generate(model, [ids], settings)[0] for ids in (long, short)]
    (token,) = stream(model, [Request([1] * (context - 1), settings)])
    assert token.finish == "length"


def test_requests_that_cannot_be_answered_are_told_before_any_work(model: Transformer) -> None:
    with pytest.raises(MaturaError, match="request 1: the prompt is empty"):
        generate(model, [[1], []], GREEDY)
    context = model.config.context
    with pytest.raises(MaturaError, match=f"{context} tokens and the model's context is {context}"):
        generate(model, [[1] * context], GREEDY)
    assert generate(model, [], GREEDY) == []
    with pytest.raises(ValueError, match="argument"):
        generate(model, [[1], [2]], [GREEDY])


def test_progress_hears_of_every_token(model: Transformer) -> None:
    heard: list[int] = []
    answers = generate(model, prompts(3), GREEDY, advance=heard.append)
    assert sum(heard) == sum(map(len, answers)) == 36


@pytest.mark.parametrize("batch", [3, 16])
def test_samples_of_one_prompt_equal_requests_of_their_own(
    model: Transformer, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = prompts(3, seed=4)
    several = FREE.model_copy(update={"n": 4, "seed": 9, "max_new_tokens": 8, "repetition_penalty": 1.2})
    alone = [
        several.model_copy(update={"n": 1, "seed": sample_seed(9, sample)})
        for _ in asked
        for sample in range(4)
    ]
    expected = generate(model, [ids for ids in asked for _ in range(4)], alone)
    assert len({tuple(ids) for ids in expected}) > 8
    assert generate(model, asked, several, batch=batch) == expected
    read = []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda ids, **k: read.append(tuple(ids.shape)) or decode(ids, **k))
    tokens = list(stream(model, [Request(asked[0], several)]))
    assert read[0] == (1, len(asked[0]))
    assert set(read[1:]) == {(4, 1)}
    assert [[t.id for t in tokens if t.sample == sample] for sample in range(4)] == expected[:4]


def test_logprobs_are_the_models_own(model: Transformer) -> None:
    settings = Sampling(
        temperature=0.7, top_k=3, repetition_penalty=1.5, max_new_tokens=6, logprobs=4, seed=2
    )
    requests = [Request([5, 6, 7], settings), Request([1], settings.model_copy(update={"logprobs": 0}))]
    tokens = [*stream(model, requests), *stream(model, [Request([1], FREE)])]
    ids = [5, 6, 7]
    for token in (t for t in tokens[:12] if t.request == 0):
        with torch.no_grad():
            expected = model.logits(model.decode(torch.tensor([ids]))[0, -1]).log_softmax(-1)
        assert token.logprob == pytest.approx(float(expected[token.id]), abs=1e-10)
        best = expected.topk(4)
        assert [id for id, _ in token.top] == best.indices.tolist()
        assert [value for _, value in token.top] == pytest.approx(best.values.tolist(), abs=1e-10)
        ids.append(token.id)
    assert all(t.logprob is not None and t.top == () for t in tokens[:12] if t.request == 1)
    assert all(t.logprob is None and t.top == () for t in tokens[12:])


def test_bans_and_constraints_hold_in_a_batch(model: Transformer) -> None:
    asked = prompts(4, seed=5)
    free = generate(model, asked, FREE)
    words = [ids[:1] for ids in free] + [ids[3:5] for ids in free]

    def even(ids: Sequence[int]) -> list[int] | None:
        return list(range(0, 97, 2)) if len(ids) % 2 else None

    requests = [Request(ids, FREE, bad_words=words, allowed=even) for ids in asked]
    answers: list[list[int]] = [[] for _ in asked]
    for token in stream(model, requests):
        answers[token.request].append(token.id)
    assert answers != free
    assert any(id % 2 for ids in answers for id in ids[::2])
    for prompt, ids in zip(asked, answers, strict=True):
        assert all(id % 2 == 0 for id in ids[1::2])
        whole = [*prompt, *ids]
        for word in words:
            ends = range(len(prompt) + 1, len(whole) + 1)
            assert not any(whole[end - len(word) : end] == word for end in ends)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request([1], Sampling(stop=("a",))), r"^sampling\.stop holds texts"),
        (Request([1], Sampling(bad_words=("a",))), r"sampling\.bad_words holds texts"),
        (Request([1], Sampling(logit_bias={97: 1.0})), r"logit_bias names token 97; .* 0 to 96"),
        (Request([1], bad_words=[[3, -1]]), "bad_words names token -1"),
        (Request([1], bad_words=[[]]), "bad_words has an empty sequence"),
        (Request([1], source=[2]), "^this model has no encoder"),
        (Request([1], stop_ids=[3, 10**9]), "stop_ids names token 1000000000; .* 0 to 96"),
        (Request([1, 97]), "the prompt names token 97; .* 0 to 96"),
        (Request([-1]), "the prompt names token -1"),
    ],
    ids=["stop", "bad_words", "bias", "ids", "empty", "source", "stop_ids", "prompt", "negative"],
)
def test_what_a_request_cannot_ask_is_told(model: Transformer, request_: Request, message: str) -> None:
    with pytest.raises(MaturaError, match=message):
        next(stream(model, [request_]))


def test_one_of_several_requests_is_named(model: Transformer) -> None:
    for wrong in (Request([1], stop_ids=[97]), Request([])):
        with pytest.raises(MaturaError, match=r"^request 1: "):
            next(stream(model, [Request([1]), wrong]))


def test_generate_has_no_place_for_logprobs(model: Transformer) -> None:
    with pytest.raises(MaturaError, match="generate gives ids alone"):
        generate(model, [[1]], Sampling(logprobs=0))
