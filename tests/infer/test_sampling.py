"""Sampling: the right set of tokens, the exact probabilities, and draws that nobody else can move."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from transformers import (
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from matura.core.errors import MaturaError
from matura.core.settings import ORDER, Sampling
from matura.infer import sampling
from matura.infer.sampling import CUTS, chain, choose, kept, sample_seed, scores, uniform


def short(settings: Sampling) -> str:
    """The settings that are not the default."""
    return " ".join(f"{name}={value}" for name, value in settings.model_dump(exclude_defaults=True).items())


SETTINGS = [
    Sampling(),
    Sampling(temperature=0.7),
    Sampling(temperature=2.5, top_k=5),
    Sampling(top_k=1),
    Sampling(top_k=10_000),
    Sampling(top_p=0.9),
    Sampling(top_p=1e-6),
    Sampling(top_p=0.999),
    Sampling(min_p=0.1),
    Sampling(min_p=1.0),
    Sampling(temperature=1.3, top_k=20, top_p=0.8),
    Sampling(temperature=0.8, top_k=50, top_p=0.95, min_p=0.05),
    Sampling(temperature=1.5, top_p=0.7, min_p=0.2),
    Sampling(typical_p=0.9),
    Sampling(typical_p=0.2),
    Sampling(typical_p=1e-6),
    Sampling(temperature=0.7, top_k=50, typical_p=0.6),
    Sampling(top_p=0.9, min_p=0.01, typical_p=0.95),
]


def some_logits(seed: int, vocabulary: int = 300, spread: float = 2.5) -> torch.Tensor:
    return torch.randn(vocabulary, generator=torch.Generator().manual_seed(seed)) * spread


def probabilities(logits_V: torch.Tensor, settings: Sampling) -> torch.Tensor:
    """What `choose` draws from, over the whole vocabulary."""
    scores, ids = kept(logits_V, settings)
    where = torch.arange(len(logits_V)) if ids is None else ids
    return torch.zeros(len(logits_V), dtype=torch.float64).index_put((where,), scores.double().softmax(-1))


def by_the_book(logits: np.ndarray, settings: Sampling) -> np.ndarray:
    """Temperature, top-k, top-p, min-p, typical one after the other, each as its definition reads."""
    scores = logits.astype(np.float64) / settings.temperature
    order = np.argsort(-scores, kind="stable")
    if settings.top_k:
        order = order[: settings.top_k]
    p = np.exp(scores[order] - scores[order].max())
    p /= p.sum()
    fewest = int(np.searchsorted(np.cumsum(p), settings.top_p)) + 1
    order, p = order[:fewest], p[:fewest]
    order = order[p >= settings.min_p * p[0]]
    if settings.typical_p < 1:
        p = np.exp(scores[order] - scores[order].max())
        p /= p.sum()
        nearest = np.argsort(np.abs(-np.log(p) + (p * np.log(p)).sum()), kind="stable")
        order = order[nearest[: int(np.searchsorted(np.cumsum(p[nearest]), settings.typical_p)) + 1]]
    found = np.zeros_like(scores)
    found[order] = np.exp(scores[order] - scores[order].max())
    return found / found.sum()


@pytest.mark.parametrize("settings", SETTINGS, ids=short)
@pytest.mark.parametrize("first_look", [4, 512])
def test_probabilities_equal_the_definition_and_transformers(
    settings: Sampling, first_look: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "FIRST_LOOK", first_look)
    for seed in range(6):
        logits = some_logits(seed, spread=(0.1, 1.0, 4.0)[seed % 3])
        found = probabilities(logits, settings)
        np.testing.assert_allclose(found, by_the_book(logits.numpy(), settings), rtol=1e-5, atol=1e-12)
        theirs = logits[None]
        warpers = [TemperatureLogitsWarper(settings.temperature)]
        warpers += [TopKLogitsWarper(settings.top_k)] if settings.top_k else []
        warpers += [TopPLogitsWarper(settings.top_p)] if settings.top_p < 1 else []
        warpers += [MinPLogitsWarper(settings.min_p)] if settings.min_p else []
        warpers += [TypicalLogitsWarper(settings.typical_p)] if settings.typical_p < 1 else []
        for warper in warpers:
            theirs = warper(None, theirs)
        torch.testing.assert_close(found, theirs[0].double().softmax(-1), rtol=1e-5, atol=1e-12)


def test_the_first_look_gives_what_sorting_everything_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    sorted_all = []
    sort = torch.Tensor.sort
    monkeypatch.setattr(torch.Tensor, "sort", lambda *a, **k: sorted_all.append(1) or sort(*a, **k))
    for seed in range(20):
        logits = some_logits(seed, 2000, spread=3.0)
        for settings in (Sampling(top_p=0.9), Sampling(min_p=0.02), Sampling(top_p=0.9, min_p=0.02)):
            quick = kept(logits, settings)
            assert not sorted_all
            with monkeypatch.context() as context:
                context.setattr(sampling, "FIRST_LOOK", 1)
                whole = kept(logits, settings)
            assert sorted_all.pop()
            for a, b in zip(quick, whole, strict=True):
                assert a is not None
                torch.testing.assert_close(a, b, rtol=0, atol=0)
    kept(some_logits(0, 2000, spread=0.1), Sampling(top_p=0.99))  # flat: the look is too small
    assert sorted_all


@pytest.mark.parametrize(
    "settings",
    [Sampling(), Sampling(top_k=7), Sampling(temperature=0.6, top_p=0.9), Sampling(min_p=0.1)],
    ids=short,
)
def test_every_token_is_drawn_as_often_as_it_is_probable(
    settings: Sampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The draws of an even grid: each token's share can differ from its probability by one step at most."""
    logits, steps = some_logits(2, 30, spread=1.0), 2000
    counts = torch.zeros(30, dtype=torch.float64)
    for n in range(steps):
        monkeypatch.setattr(sampling, "uniform", lambda seed, position, u=(n + 0.5) / steps: u)
        counts[choose(logits, settings, (), 0)] += 1
    assert (counts / steps - probabilities(logits, settings)).abs().max() < 1.5 / steps


def test_the_ends_of_the_draw_stay_inside_of_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.tensor([-float("inf"), 1.0, 0.5, -float("inf")])
    for draw in (0.0, 1 - 2**-53):
        monkeypatch.setattr(sampling, "uniform", lambda seed, position, u=draw: u)
        for settings in (Sampling(), Sampling(top_p=0.99), Sampling(min_p=0.01)):
            assert choose(logits, settings, (), 0) in (1, 2)


def test_draws_are_even_and_depend_on_seed_and_position_only() -> None:
    draws = np.array([[uniform(seed, position) for position in range(100)] for seed in range(50)])
    assert (draws >= 0).all()
    assert (draws < 1).all()
    assert len(np.unique(draws)) == draws.size
    share = np.sort(draws.ravel())
    assert np.abs(share - np.arange(1, 5001) / 5000).max() < 1.36 / np.sqrt(5000) * 1.3
    assert uniform(3, 4) == draws[3, 4]
    assert uniform(1, 23) != uniform(12, 3)


def test_greedy_takes_the_best_after_the_penalty() -> None:
    logits = torch.tensor([1.0, 3.0, 2.9])
    assert choose(logits, Sampling(temperature=0), [], 0) == 1
    assert choose(logits, Sampling(temperature=0, repetition_penalty=1.5), [1], 0) == 2
    assert choose(logits, Sampling(temperature=0.001), [], 0) == 1


WARPERS = {
    "temperature": lambda s: TemperatureLogitsWarper(s.temperature),
    "top_k": lambda s: TopKLogitsWarper(s.top_k),
    "top_p": lambda s: TopPLogitsWarper(s.top_p),
    "min_p": lambda s: MinPLogitsWarper(s.min_p),
    "typical_p": lambda s: TypicalLogitsWarper(s.typical_p),
}


@pytest.mark.parametrize("seed", range(8))
def test_any_order_of_the_cuts_equals_transformers_in_that_order(seed: int) -> None:
    names = list(WARPERS)
    random.Random(seed).shuffle(names)
    values = {"temperature": 0.6 + 0.2 * seed, "top_k": 20, "top_p": 0.8, "min_p": 0.03, "typical_p": 0.9}
    settings = Sampling(order=tuple(names), **values)
    logits = some_logits(seed)
    whole = scores(chain(settings), logits, (), 0)
    found = probabilities(whole, chain(settings).last)
    theirs = logits[None]
    for name in names:
        theirs = WARPERS[name](settings)(None, theirs)
    torch.testing.assert_close(found, theirs[0].double().softmax(-1), rtol=1e-5, atol=1e-12)


def test_the_order_matters_and_what_is_off_is_no_step() -> None:
    logits = torch.tensor([2.0, 1.9, 1.0, 0.0])
    late = Sampling(temperature=0.0, top_k=1, repetition_penalty=5.0)
    early = Sampling(temperature=0.0, top_k=1, repetition_penalty=5.0, order=(*CUTS[1:], *ORDER[:7], CUTS[0]))
    assert choose(logits, late, [0], 0) == 1
    assert choose(logits, early, [0], 0) == 0
    assert chain(Sampling(top_k=5, top_p=0.3)).steps == ()
    assert chain(Sampling(temperature=0, top_k=5)).greedy
    assert not chain(early).greedy


def test_temperature_zero_is_the_limit_of_small_temperatures() -> None:
    order = ("temperature", "logit_bias", "bad_words")
    settings = {"logit_bias": {2: 1.0}, "order": order}
    for seed in range(20):
        logits = some_logits(seed, 10)
        banned = [[int(logits.argmax())]]
        cold = choose(logits, Sampling(temperature=1e-6, **settings), (), 0, bad_words=banned)
        assert choose(logits, Sampling(temperature=0, **settings), (), 0, bad_words=banned) == cold


def test_several_steps_together_do_what_each_does_in_turn() -> None:
    logits, prompt, answer = some_logits(3, 50), [1, 2, 3, 1, 2], [7, 8, 7, 1, 2]
    settings = Sampling(
        logit_bias={4: 3.0},
        repetition_penalty=1.3,
        presence_penalty=0.5,
        frequency_penalty=0.25,
        no_repeat_ngram=3,
    )
    found = scores(
        chain(settings, [[2, 9], [11]], lambda ids: range(40)), logits, prompt + answer, len(answer)
    )
    expected = logits.clone()
    expected[4] += 3
    for id in {*prompt, *answer}:
        expected[id] = expected[id] / 1.3 if expected[id] > 0 else expected[id] * 1.3
    for id in {*answer}:
        expected[id] -= 0.5 + 0.25 * answer.count(id)
    for id in (3, 7, 9, 11, *range(40, 50)):  # 1 2 3 and 1 2 7 stood before, 1 2 is the end
        expected[id] = -torch.inf
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_a_constraint_hears_the_answer_and_is_always_kept() -> None:
    heard = []

    def allowed(ids: Sequence[int]) -> list[int] | None:
        heard.append(list(ids))
        return [5, 6] if len(ids) == 1 else None

    logits = some_logits(4, 20)
    best = int(logits.argmax())
    greedy = Sampling(temperature=0)
    assert choose(logits, greedy, [1, 2], 0, allowed=allowed) == best
    assert choose(logits, greedy, [1, 2, best], 1, allowed=allowed) == 5 + int(logits[6] > logits[5])
    assert heard == [[], [best]]
    # Bans that forbid all that is allowed give way.
    assert choose(logits, greedy, [1, 2, best], 1, allowed=allowed, bad_words=[[5], [6]]) in (5, 6)
    for wrong in ([], [20], [-1]):
        with pytest.raises(MaturaError, match="the constraint allows"):
            choose(logits, greedy, [1], 0, allowed=lambda ids, wrong=wrong: wrong)
    with pytest.raises(MaturaError, match=r"has allowed, but its sampling\.order leaves it out"):
        chain(Sampling(order=("temperature",)), allowed=allowed)


@pytest.mark.parametrize("settings", SETTINGS, ids=short)
def test_what_is_drawn_comes_with_the_probability_it_was_drawn_with(settings: Sampling) -> None:
    logits, once = some_logits(3), chain(settings)
    id, probability = sampling.drawn(once, logits, (), 0)
    kept_V, ids_V = kept(logits, once.last)
    at = id if ids_V is None else ids_V.tolist().index(id)
    assert probability == pytest.approx(float(kept_V.double().softmax(-1)[at]), rel=1e-5)
    assert id == choose(logits, settings, (), 0)
    assert sampling.drawn(chain(Sampling(temperature=0)), logits, (), 0) == (int(logits.argmax()), 1.0)


def test_samples_have_seeds_of_their_own() -> None:
    seeds = {sample_seed(seed, sample) for seed in range(20) for sample in range(20)}
    assert len(seeds) == 400
    assert sample_seed(7, 0) == 7


@pytest.mark.parametrize("temperature", [1e-30, 1e-37, 1e-40, 1e-45, 1e-300])
@pytest.mark.parametrize(
    "cuts", [{}, {"top_k": 5}, {"top_p": 0.9}, {"min_p": 0.1}, {"typical_p": 0.5}], ids=str
)
def test_the_smallest_temperatures_are_greedy(temperature: float, cuts: dict[str, float]) -> None:
    penalties = {"presence_penalty": 1.5, "order": [*ORDER[7:], *ORDER[:7]]}
    for seed in range(3):
        logits = some_logits(seed)
        best = int(logits.argmax())
        cold = Sampling(temperature=temperature, seed=seed, **cuts)
        assert choose(logits, cold, [best], 0) == best
        # What is subtracted after the temperature is nothing beside the scores.
        assert choose(logits, Sampling(**{**cold.model_dump(), **penalties}), [best], 1) == best
