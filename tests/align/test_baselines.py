"""What a reward model is held against: rules of length, and the worth of words."""

import random

import pytest
import torch

from matura.align import baselines
from matura.align.reward_losses import bradley_terry
from matura.core.preferences import Answer, Pair, Ranking

GOOD, BAD, REST = ["please", "thanks"], ["never", "stupid"], ["a", "dog", "runs", "home", "today", "again"]


def pairs(count: int, seed: int, *, shuffled: bool = False) -> list[Pair]:
    """The polite answer is preferred; or either, by chance."""
    draw = random.Random(seed)
    made = []
    for n in range(count):
        texts = []
        for telling in (GOOD, BAD):
            said = [*draw.choices(REST, k=draw.randrange(2, 7)), draw.choice(telling)]
            draw.shuffle(said)
            texts.append(" ".join(said))
        if shuffled and draw.random() < 0.5:
            texts.reverse()
        prompt = Ranking(f"r{n}", ({"role": "user", "content": "say"},))
        made.append(Pair(prompt, Answer(texts[0]), Answer(texts[1])))
    return made


def right(margins: list[float]) -> float:
    return sum(one > 0 for one in margins) / len(margins)


def names(count: int) -> list[str]:
    return [f"g{n}" for n in range(count)]


def test_words_that_tell_are_found_and_chance_is_not() -> None:
    held = pairs(100, 2)
    model = baselines.fit(pairs(120, 1), names(120))
    assert right(model.margins(held)) > 0.95
    assert min(model.worth[word] for word in GOOD) > 0.1 > 0 > max(model.worth[word] for word in BAD)
    control = baselines.fit(pairs(120, 1, shuffled=True), names(120))
    assert right(control.margins(held)) < 0.8
    assert control.penalty > model.penalty


def test_the_fit_is_the_minimum_of_its_loss() -> None:
    """By the gradient of the loss written anew with torch."""
    learned = pairs(60, 3)
    model = baselines.fit(learned, names(60))
    known = sorted(model.worth)
    worth = torch.tensor([model.worth[word] for word in known], dtype=torch.float64, requires_grad=True)

    def rewards(texts: list[str]) -> torch.Tensor:
        rows = [[baselines.words(text).get(word, 0.0) for word in known] for text in texts]
        return torch.tensor(rows, dtype=torch.float64) @ worth

    loss = bradley_terry(
        rewards([pair.chosen.text for pair in learned]), rewards([pair.rejected.text for pair in learned])
    )
    (loss.sum() + 0.5 * model.penalty * worth.square().sum()).backward()
    assert worth.grad is not None
    assert worth.grad.norm().item() < 0.05  # of 20 at the start; minimise stops at 2e-3 of that


def test_weights_and_order_do_not_matter_where_they_should_not() -> None:
    learned = pairs(40, 4)
    model = baselines.fit(learned, names(40))
    again = baselines.fit(learned[::-1], names(40)[::-1])
    assert model.worth == pytest.approx(again.worth, abs=1e-3)
    assert baselines.fit(learned, names(40)) == model
    alone = baselines.fit(learned[:1], ["g"])
    assert alone.worth == {}
    assert alone.margins(learned) == [0.0] * 40


def test_length_rules() -> None:
    two = [
        Pair(Ranking("r", ()), Answer("long answer"), Answer("no")),
        Pair(Ranking("r", ()), Answer("a"), Answer("b")),
    ]
    assert baselines.longer(two) == [9, 0]
    assert baselines.shorter(two) == [-9, 0]
