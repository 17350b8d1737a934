"""Rankings as batches: a prompt counts once (T19), together is one by one (T1), and the figures that are logged."""

import math

import pytest
import torch

from matura.align.preferred import answered
from matura.align.ranked import TIED, Ranked, pack_ranked, ranked, rewards
from matura.align.reward_losses import bradley_terry, plackett_luce
from matura.align.reward_model import set_reward_head
from matura.align.reward_training import Objective, Rule, figures, look
from matura.core.preferences import Answer, Ranking
from matura.model.transformer import Transformer
from tests.tiny_models import chatml, network

TEXTS = ["yes", "no never", "it may be", "perhaps so"]


def judged(name: str, *ranks: int | None, scores: bool = False) -> Ranking:
    answers = [
        Answer(text, rank=None if scores else rank, score=-float(rank or 0) if scores else None)
        for text, rank in zip(TEXTS, ranks, strict=False)
    ]
    return Ranking(name, ({"role": "user", "content": f"is it {name}?"},), tuple(answers))


def examples(*rankings: Ranking) -> list[Ranked]:
    return ranked(rankings, chatml(), 200, answered).examples


def model() -> Transformer:
    return set_reward_head(network(), seed=3).double()


def rewards_of(own: Transformer, one: Ranked) -> torch.Tensor:
    batch = pack_ranked([one])
    return rewards(own, batch.ids_1T, batch.mask, batch.spans_N)


def test_places_are_the_order_with_its_ties() -> None:
    (one,) = examples(judged("a", 2, 1, 2, 4))
    assert sorted(one.places) == [1, 2, 2, 4]
    assert len(one.choices) == 5
    assert sum(choice.weight for choice in one.choices) == pytest.approx(1)
    assert all(one.places[choice.chosen] < one.places[choice.rejected] for choice in one.choices)
    assert examples(judged("tie", 1, 1), judged("none", None, None)) == []
    (two,) = examples(judged("some", 1, None, 2))
    assert len(two.places) == 2


def test_a_prompt_counts_once_however_many_answers_it_has() -> None:
    own, four, two = model(), examples(judged("a", 1, 2, 3, 4))[0], examples(judged("b", 2, 1))[0]
    batch = pack_ranked([four, two])
    assert batch.weight == 2
    assert batch.weights_P.sum().item() == pytest.approx(2)
    r4, r2 = rewards_of(own, four), rewards_of(own, two)
    pairs = torch.stack([bradley_terry(r4[c.chosen], r4[c.rejected]) for c in four.choices])
    (pick,) = two.choices
    expected = pairs.mean() + bradley_terry(r2[pick.chosen], r2[pick.rejected])
    got = Objective(Rule())(own, batch)
    assert got.item() == pytest.approx(expected.item(), rel=1e-6)
    ordered = plackett_luce(r4, four.places) / 3 + plackett_luce(r2, two.places)
    assert Objective(Rule("plackett-luce"))(own, batch).item() == pytest.approx(ordered.item(), rel=1e-6)


@pytest.mark.parametrize(
    "rule", [Rule(), Rule(margin=0.5, centring=0.1), Rule("plackett-luce", centring=0.1)]
)
def test_together_is_one_by_one(rule: Rule) -> None:
    own = model()
    rows = examples(judged("a", 1, 2, 3, scores=True), judged("b", 2, 1), judged("c", 1, 1, 2, scores=True))
    grads = []
    for batches in ([rows], [[one] for one in rows]):
        own.zero_grad()
        sum(Objective(rule)(own, pack_ranked(batch)) for batch in batches).backward()  # type: ignore[union-attr]
        grads.append({name: p.grad.clone() for name, p in own.named_parameters() if p.grad is not None})
    for name, one in grads[0].items():
        torch.testing.assert_close(one, grads[1][name], rtol=1e-6, atol=1e-9)


def test_margins_are_the_distance_of_scores() -> None:
    batch = pack_ranked(examples(judged("a", 1, 3, scores=True)))
    r_N = torch.tensor([0.4, 0.1])
    assert batch.margins_P.tolist() == [2.0]
    order = [batch.chosen_P.item(), batch.rejected_P.item()]
    difference = (r_N[order[0]] - r_N[order[1]]).item()
    expected = math.log1p(math.exp(-(difference - 0.5 * 2.0))) + 0.1 * 0.25
    assert Rule(margin=0.5, centring=0.1)(r_N, batch).item() == pytest.approx(expected, rel=1e-6)


def test_figures_and_looks_agree_with_training() -> None:
    """T38: held-out figures come from the same numbers, weighted by prompts."""
    own, rows = network(), examples(judged("a", 1, 2, 3, 4), judged("b", 2, 1), judged("c", 1, 2))
    set_reward_head(own, seed=3)
    batch, rule = pack_ranked(rows), Rule(centring=0.1)
    with torch.no_grad():
        r_N = rewards(own, batch.ids_1T, batch.mask, batch.spans_N)
    told, seen = figures(r_N, batch), look(chatml(), rows, rule)(own)
    assert seen["heldout_loss"] == pytest.approx(rule(r_N, batch).item() / 3, rel=1e-5)
    for name, value in told.items():
        assert seen[f"heldout_{name}"] == pytest.approx(value, rel=1e-4, abs=1e-5)
    assert told["reward_min"] <= told["reward_mean"] <= told["reward_max"]
    assert figures(torch.zeros(8), batch)["accuracy"] == 0.5


def test_too_many_ties_are_dropped_and_counted() -> None:
    answers = tuple(Answer(f"text {n}", rank=1 if n < 12 else 2) for n in range(13))
    row = Ranking("r", ({"role": "user", "content": "which?"},), answers)
    made = ranked([row], chatml(), 200, answered)
    assert (made.examples, made.dropped) == ([], {TIED: 12})
