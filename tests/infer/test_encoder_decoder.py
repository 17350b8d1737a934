"""Models that read a source and write an answer: batched equals single, and both equal the plainest loop."""

import random
from collections.abc import Sequence

import pytest
import torch

from matura.core.errors import MaturaError
from matura.core.settings import Sampling
from matura.infer.engine import Request, stream
from matura.infer.sampling import choose, sample_seed
from matura.model import config as c
from matura.model.transformer import Transformer
from tests.model.tiny import build, gpt_stack, llama_config

GREEDY = Sampling(temperature=0, max_new_tokens=8)
FREE = Sampling(temperature=1.3, top_k=20, max_new_tokens=8)


def config(position: c.Position, **more: object) -> c.ModelConfig:
    """Encoder and decoder with the same kind of positions."""
    both = [gpt_stack(causal=causal, cross=causal) for causal in (False, True)]
    encoder, decoder = (stack.model_copy(update={"position": position}) for stack in both)
    values = {"vocabulary": 97, "context": 24, "start_id": 3} | more
    return c.ModelConfig(encoder=encoder, decoder=decoder, **values)


@pytest.fixture(
    scope="module",
    params=[c.RelativeBias(buckets=8, max_distance=16), c.Learned(), c.Rope(), c.Sinusoidal(), c.Alibi()],
    ids=lambda position: position.kind,
)
def model(request: pytest.FixtureRequest) -> Transformer:
    made = build(config(request.param))
    if isinstance(request.param, c.RelativeBias):
        with torch.no_grad():
            for stack in (made.encoder, made.decoder):
                stack.bias.weight.normal_(generator=torch.Generator().manual_seed(0))
    return made


def sources(count: int, seed: int = 0) -> list[list[int]]:
    draw = random.Random(seed)
    return [[draw.randrange(97) for _ in range(draw.randrange(1, 20))] for _ in range(count)]


def recomputed(model: Transformer, request: Request, sample: int = 0) -> list[int]:
    """One token after the other, all of it through the model each time."""
    settings = request.sampling.model_copy(update={"seed": sample_seed(request.sampling.seed, sample)})
    ids = list(request.ids or [3])
    with torch.no_grad():
        memory = model.encode(torch.tensor([request.source]))
        for position in range(settings.max_new_tokens):
            hidden = model.decode(torch.tensor([ids]), memory_BSD=memory)
            ids.append(choose(model.logits(hidden[0, -1]), settings, ids, position))
            if ids[-1] in request.stop_ids:
                break
    return ids[len(request.ids or [3]) :]


def answered(model: Transformer, requests: Sequence[Request], batch: int) -> dict[tuple[int, int], list[int]]:
    found: dict[tuple[int, int], list[int]] = {}
    for token in stream(model, requests, batch=batch):
        found.setdefault((token.request, token.sample), []).append(token.id)
    return found


def test_batches_answer_like_single_requests(model: Transformer) -> None:
    stops = recomputed(model, Request(source=sources(1)[0], sampling=FREE))[2:4]
    requests = [
        Request(
            ids=[[], [3, 5], [7, 8, 9]][i % 3],
            sampling=(GREEDY, FREE)[i % 2].model_copy(update={"seed": i, "max_new_tokens": 2 + i}),
            stop_ids=stops,
            source=source,
        )
        for i, source in enumerate(sources(6))
    ]
    expected = {(i, 0): recomputed(model, request) for i, request in enumerate(requests)}
    assert len({len(ids) for ids in expected.values()}) > 2
    for batch in (1, 3, 16):
        assert answered(model, requests, batch) == expected


def test_samples_share_the_reading(model: Transformer) -> None:
    requests = [
        Request(source=source, sampling=FREE.model_copy(update={"n": 3})) for source in sources(2, seed=1)
    ]
    expected = {(i, k): recomputed(model, requests[i], k) for i in range(2) for k in range(3)}
    assert len({tuple(ids) for ids in expected.values()}) > 3
    assert answered(model, requests, 16) == expected


def test_only_learned_and_rotary_positions_end_with_the_context(model: Transformer) -> None:
    bounded = model.config.decoder.position.kind in ("learned", "rope")
    long = Request(source=[5], sampling=GREEDY.model_copy(update={"max_new_tokens": 40}))
    tokens = list(stream(model, [long]))
    assert len(tokens) == (24 - 1 if bounded else 40)
    assert tokens[-1].finish == "length"
    request = Request(source=[5] * 25, sampling=GREEDY)
    if bounded:
        with pytest.raises(MaturaError, match="source has 25 tokens and the model's context is 24"):
            next(stream(model, [request]))
        assert len(list(stream(model, [Request(source=[5] * 24, sampling=GREEDY)]))) == 8
    else:
        assert [t.id for t in stream(model, [request])] == recomputed(model, request)


def test_what_a_model_cannot_answer_is_told() -> None:
    both = build(config(c.Learned(), start_id=None))
    with pytest.raises(MaturaError, match=r"^this model answers a source text"):
        next(stream(both, [Request([1])]))
    with pytest.raises(MaturaError, match="this model has no start token"):
        next(stream(both, [Request(source=[1])]))
    assert len(list(stream(both, [Request([1], GREEDY, source=[1])]))) == 8
    encoder = build(c.ModelConfig(vocabulary=97, context=24, encoder=gpt_stack(causal=False)))
    with pytest.raises(MaturaError, match="has no decoder and cannot write"):
        next(stream(encoder, [Request([1])]))
    assert build(llama_config()).encoder is None
