"""Log-probabilities of answers in trees of prompts against one answer at a time."""

import random

import pytest
import torch
from torch import Tensor

from matura.align.sequences import (
    Prompted,
    features,
    pack_answers,
    sequence_logprobs,
    sequence_logprobs_reference,
    sums,
    token_logprobs,
)
from matura.core.peft_settings import LoraConfig, PrefixConfig
from matura.model.likelihoods import likelihoods_reference
from matura.model.peft.lora import apply_lora
from matura.model.peft.prefix import apply_prefix
from matura.model.transformer import Transformer
from tests.tiny_models import network

MODELS = {
    "plain": lambda: network(scale=2.0),
    "untied": lambda: network(scale=2.0, tied=False),
    "lora": lambda: apply_lora(network(scale=2.0), LoraConfig(rank=2, targets=("all-linear", "embed"))),
    "prefix": lambda: apply_prefix(network(scale=2.0), PrefixConfig(tokens=3)),
}


def some(seed: int = 0) -> list[Prompted]:
    """Prompts with one and with several answers, of one token and of many, some of them alike."""
    make = random.Random(seed)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(make.randrange(200) for _ in range(n))

    return [
        Prompted(ids(5), (ids(4), ids(1), ids(7))),
        Prompted(ids(1), (ids(3),)),
        Prompted(ids(9), (ids(1),)),
        Prompted(ids(3), (ids(2), ids(2))),
    ]


def grads(value: Tensor, model: Transformer) -> list[Tensor]:
    trained = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(value, trained, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(trained, found, strict=True)]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("name", MODELS)
def test_a_packed_tree_equals_one_answer_at_a_time(name: str, temperature: float) -> None:
    model, rows = MODELS[name](), some()
    batch = pack_answers(rows)
    found = sequence_logprobs(model, batch, temperature)
    expected = sequence_logprobs_reference(model, rows, temperature)
    assert found.counts_S.tolist() == [4, 1, 7, 3, 1, 2, 2]
    torch.testing.assert_close(found.logprobs_S, expected.logprobs_S, rtol=1e-5, atol=1e-4)
    factors = torch.linspace(-1, 2, 7)
    for a, b in zip(
        grads((found.logprobs_S * factors).sum(), model),
        grads((expected.logprobs_S * factors).sum(), model),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-3 * float(b.abs().max().clamp(min=1e-3)))


@torch.no_grad()
def logprobs(rows: list[Prompted]) -> Tensor:
    return sequence_logprobs(network(scale=2.0), pack_answers(rows)).logprobs_S


def test_prompts_are_read_once() -> None:
    rows = some()
    batch = pack_answers(rows)
    assert batch.tokens == sum(row.size for row in rows) == 5 + 3 + 0 + 6 + 1 + 2 + 9 + 3 + 1 + 1
    assert sum(batch.mask.lengths) == batch.tokens
    assert batch.targets_N.tolist() == [id for row in rows for answer in row.answers for id in answer]
    assert batch.answer_N.tolist() == [0] * 4 + [1] + [2] * 7 + [3] * 3 + [4] + [5] * 2 + [6] * 2


def test_what_stands_beside_an_answer_changes_nothing() -> None:
    rows = some()
    alone = logprobs(rows[:1])
    torch.testing.assert_close(logprobs([*some(7), *rows[:1]])[-3:], alone, rtol=1e-5, atol=1e-5)
    swapped = rows[0]._replace(answers=(rows[0].answers[0], (7,), (9, 9)))
    torch.testing.assert_close(logprobs([swapped])[0], alone[0], rtol=1e-5, atol=1e-5)
    moved = rows[0]._replace(prompt=(3, *rows[0].prompt[1:]))  # the prompt does change it
    assert abs(logprobs([moved])[0] - alone[0]) > 1e-2


def test_entropy_and_logprobs_of_tokens() -> None:
    model, batch = network(scale=2.0), pack_answers(some())
    found = token_logprobs(model, batch, temperature=0.8, entropy=True)
    expected = likelihoods_reference(
        features(model, batch), model.unembedding, batch.targets_N, temperature=0.8, entropy=True
    )
    assert found.entropy_N is not None
    assert expected.entropy_N is not None
    torch.testing.assert_close(found.logprobs_N, expected.logprobs_N, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.entropy_N, expected.entropy_N, rtol=1e-5, atol=1e-5)
    means = sums(batch, found.logprobs_N).means_S
    torch.testing.assert_close(means[1], found.logprobs_N[4])


def test_answers_without_tokens_are_nothing_and_stay_connected() -> None:
    model = network(scale=2.0)
    found = sequence_logprobs(model, pack_answers([Prompted((1, 2), ((), ())), Prompted((4,), ((),))]))
    assert found.logprobs_S.tolist() == [0, 0, 0]
    assert found.means_S.tolist() == [0, 0, 0]
    for grad in grads(found.logprobs_S.sum(), model):
        assert not grad.any()
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        pack_answers([Prompted((1,), ((2,),)), Prompted((), ((2,),))])
