"""Reward-ranked selection against its formula, written out; and why it is made within each prompt."""

import numpy as np

from matura.core.preferences import Answer, Ranking
from matura.core.records import CUT
from matura.data.preferences.selection import (
    NOT_JUDGED,
    TOO_CLOSE,
    TOO_LOW,
    Demands,
    best,
    lesson,
    ranked,
    select,
    why_not,
)


def prompt(name: str, *answers: Answer) -> Ranking:
    return Ranking(name, ({"role": "user", "content": name},), answers)


def scored(name: str, *scores: float | None) -> Ranking:
    return ranked(prompt(name, *(Answer(f"{name}{i}") for i in range(len(scores)))), scores)


def rewards(prompts: int, k: int, seed: int = 0) -> np.ndarray:
    """Prompts of unequal difficulty: the reward of an answer is its prompt's level plus noise."""
    draw = np.random.default_rng(seed)
    return draw.normal(0, 3, (prompts, 1)) + draw.normal(0, 1, (prompts, k))


def test_the_learned_answer_is_the_argmax_within_its_prompt() -> None:
    reward_PK = rewards(50, 6)
    rows = [scored(str(p), *values) for p, values in enumerate(reward_PK.tolist())]
    kept, dropped = select(rows, Demands())
    chosen = [best(row) for row in kept]
    assert [one.text for one in chosen if one] == [f"{p}{k}" for p, k in enumerate(reward_PK.argmax(1))]
    assert not dropped
    mean = np.mean([one.score for one in chosen if one and one.score is not None])
    assert np.isclose(mean, reward_PK.max(1).mean(), atol=1e-12)


def test_best_of_k_gains_what_order_statistics_say() -> None:
    """The expected largest of K standard normal draws: 0, 0.5642, 1.0294, 1.4236 for K = 1, 2, 4, 8 (Harter 1961)."""
    draw = np.random.default_rng(1)
    for k, expected in ((1, 0.0), (2, 0.5642), (4, 1.0294), (8, 1.4236)):
        rows = [scored(str(p), *values) for p, values in enumerate(draw.normal(0, 1, (4000, k)).tolist())]
        found = [one.score for row in rows if (one := best(row)) is not None and one.score is not None]
        assert abs(np.mean(found) - expected) < 0.05


def test_the_best_of_all_prompts_together_would_leave_the_hard_ones_out() -> None:
    """The control: as many answers, taken from all prompts at once, come from the easy half alone."""
    reward_PK = rewards(100, 5)
    easy = reward_PK.mean(1) > np.median(reward_PK.mean(1))
    top = np.argsort(-reward_PK.ravel())[:100] // 5
    assert np.mean(easy[top]) > 0.95
    assert len(set(top)) < 50
    kept, _ = select([scored(str(p), *values) for p, values in enumerate(reward_PK.tolist())], Demands())
    assert np.mean(easy[[int(row.id) for row in kept]]) == 0.5


def test_of_equals_the_first_is_learned_and_ranks_share_places() -> None:
    row = scored("a", 1.0, 3.0, 3.0, None, 2.0)
    assert [one.rank for one in row.answers] == [4, 1, 1, None, 3]
    chosen = best(row)
    assert chosen is not None
    assert chosen.text == "a1"


def test_people_come_before_scores_and_scores_before_thumbs() -> None:
    people = prompt(
        "a", Answer("x", rank=2, score=9.0), Answer("y", rank=1, score=1.0), Answer("z", score=99.0)
    )
    assert best(people) is people.answers[1]
    scores = prompt("a", Answer("x", score=1.0, liked=True), Answer("y", score=2.0, liked=False))
    assert best(scores) is scores.answers[1]
    thumbs = prompt("a", Answer("x", liked=False), Answer("y", liked=True))
    assert best(thumbs) is thumbs.answers[1]
    assert best(prompt("a", Answer("x"), Answer("y"))) is None
    assert best(prompt("a", Answer("x", liked=False), Answer("y"))) is None
    only = prompt("a", Answer("x", score=-1.0), Answer("y"))
    assert best(only) is only.answers[0]


def test_what_is_not_good_enough_is_left_out_with_its_reason() -> None:
    row = scored("a", 1.0, 1.5)
    assert why_not(row, Demands(least=1.5)) == ""
    assert why_not(row, Demands(least=1.6)) == TOO_LOW
    assert why_not(row, Demands(above=1.5)) == TOO_LOW
    assert why_not(row, Demands(above=1.4)) == ""
    assert why_not(row, Demands(margin=0.5)) == ""
    assert why_not(row, Demands(margin=0.6)) == TOO_CLOSE
    assert why_not(prompt("b", Answer("x")), Demands()) == NOT_JUDGED
    people = prompt("c", Answer("x", rank=1), Answer("y", rank=2))
    assert why_not(people, Demands(least=5, above=5, margin=5)) == ""
    kept, dropped = select([row, scored("b", 0.0), scored("c", None)], Demands(least=1))
    assert [one.id for one in kept] == ["a"]
    assert dropped == {TOO_LOW: 1, NOT_JUDGED: 1}


def test_an_unfinished_answer_teaches_nobody_to_stop() -> None:
    row = prompt("a", Answer("whole", rank=2), Answer("cut off", rank=1, end="length"))
    made = lesson(row)
    assert made is not None
    assert made.messages[-1] == {"role": "assistant", "content": "cut off"} | CUT
    whole = lesson(prompt("a", Answer("whole", rank=1), Answer("cut off", rank=2, end="length")))
    assert whole is not None
    assert whole.messages[-1] == {"role": "assistant", "content": "whole"}
    assert lesson(prompt("a", Answer("x"))) is None
