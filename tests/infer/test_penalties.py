"""Every step on single scores equals transformers' processor, or the formula where transformers has none."""

import random

import pytest
import torch
from transformers import (
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    PrefixConstrainedLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
)

from matura.infer import penalties

V = 40
EXACT = {"rtol": 0, "atol": 0}


def some_scores(seed: int) -> torch.Tensor:
    return torch.randn(V, generator=torch.Generator().manual_seed(seed)) * 2.5


def history(seed: int, length: int, kinds: int = 5) -> list[int]:
    draw = random.Random(seed)
    return [draw.randrange(kinds) for _ in range(length)]


@pytest.mark.parametrize("penalty", [1.0, 1.3, 0.8])
def test_repetition(penalty: float) -> None:
    scores, seen = some_scores(1), [3, 7, 7, 39, 0]
    before = scores.clone()
    expected = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([seen]), scores[None].clone())[0]
    torch.testing.assert_close(penalties.repetition(scores, seen, penalty), expected, **EXACT)
    assert torch.equal(scores, before)
    assert penalties.repetition(scores, [], penalty) is scores


def test_presence_and_frequency_count_the_answer() -> None:
    scores, answer = some_scores(2), [3, 7, 7, 7, 0]
    counts = torch.bincount(torch.tensor(answer), minlength=V)
    before = scores.clone()
    torch.testing.assert_close(penalties.presence(scores, answer, 0.7), scores - 0.7 * (counts > 0))
    torch.testing.assert_close(penalties.frequency(scores, answer, -0.3), scores + 0.3 * counts)
    assert torch.equal(scores, before)
    assert penalties.frequency(scores, [], 1.0) is scores


def test_bias() -> None:
    bias = {3: 4.0, 39: -100.0}
    processor = SequenceBiasLogitsProcessor({(id,): value for id, value in bias.items()})
    expected = processor(torch.tensor([[1]]), some_scores(3)[None])[0]
    torch.testing.assert_close(penalties.biased(some_scores(3), bias), expected, **EXACT)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 30])
def test_no_run_of_tokens_comes_twice(size: int, length: int) -> None:
    for seed in range(10):
        seen, scores = history(seed, length), some_scores(seed)
        expected = NoRepeatNGramLogitsProcessor(size)(torch.tensor([seen]), scores[None])[0]
        found = penalties.without(scores, penalties.repeating(seen, size))
        torch.testing.assert_close(found, expected, **EXACT)
    assert penalties.repeating(history(0, 30), 0) == set()


def test_bad_words_are_never_completed() -> None:
    words = [[9], [0, 1], [1, 2, 3], [1, 1], [2, 4]]
    processor = NoBadWordsLogitsProcessor(words)
    sizes = set()
    for seed in range(40):
        seen, scores = history(seed, 1 + seed % 4), some_scores(seed)
        found = penalties.without(scores, penalties.completing(seen, words))
        torch.testing.assert_close(found, processor(torch.tensor([seen]), scores[None])[0], **EXACT)
        sizes.add(int(found.isneginf().sum()))
    assert len(sizes) > 2


def test_only_what_is_allowed() -> None:
    scores, ids = some_scores(5), [3, 4, 17]
    processor = PrefixConstrainedLogitsProcessor(lambda batch, seen: ids, num_beams=1)
    expected = processor(torch.tensor([[1]]), scores[None].clone())[0]
    torch.testing.assert_close(penalties.only(scores, ids, scores), expected, **EXACT)


def test_some_token_always_stays() -> None:
    scores = some_scores(6)
    assert penalties.without(scores, range(V)) is scores
    assert penalties.without(scores, range(V - 1)).argmax() == V - 1
    banned = penalties.without(scores, [3, 4])
    found = penalties.only(banned, [3, 4], scores)
    torch.testing.assert_close(found[[3, 4]], scores[[3, 4]], **EXACT)
    assert int(found.isneginf().sum()) == V - 2
    nothing = torch.full_like(scores, -torch.inf)
    assert penalties.only(nothing, [3], nothing)[3] == 0
