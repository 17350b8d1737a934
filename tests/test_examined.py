"""The benchmarks of exams and of planted secrets: what they ask for is what stages take, and what they conclude."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import canaries, exams, recipes, tuning_gains
from benchmarks.options import Options
from matura.core.config import check
from matura.evaluate import spec
from matura.stages import curate, encode, evaluate, pretrain, tokenizer


@pytest.mark.parametrize("quick", [False, True])
def test_every_part_of_the_exams_is_one_that_can_be_asked(quick: bool) -> None:
    parts = exams.settings(Options(quick=quick, folder=Path("rows")))
    for name, part in parts.items():
        _, problems = check(evaluate.Config, {key: part[key] for key in part if key != "stage"})
        assert problems == [], name
    every = {
        task for task in spec.builtin() if task != "gsm8k_cot8"
    }  # gsm8k with other examples, as long again
    assert {f"ability.{task}" for task in every} <= set(parts)
    assert {
        "bias.crows_pairs",
        "bias.winobias",
        "bias.bbq",
        "toxicity",
        "hallucination",
        "robustness",
    } <= set(parts)


@pytest.mark.parametrize("quick", [False, True])
def test_the_stages_of_planted_secrets_take_their_settings(quick: bool) -> None:
    kinds = {
        "curate": curate,
        "tokenizer": tokenizer,
        "encode": encode,
        "pretrain": pretrain,
        "evaluate": evaluate,
    }
    for name, stage in canaries.stages(quick=quick, seed=1).items():
        _, problems = check(
            kinds[stage["stage"]].Config, {key: stage[key] for key in stage if key != "stage"}
        )
        assert problems == [], name


def secrets(most: tuple[float, float], nowhere: tuple[float, float], copies: float) -> dict[str, Any]:
    def figure(low: float, high: float) -> dict[str, Any]:
        return {"exposure": {"low": low, "high": high, "neutral": 1.44}}

    top = {**figure(*most), "copies in what was trained on": {"value": copies}}
    return {f"planted {max(canaries.RATES)} times": top, canaries.NOWHERE: figure(*nowhere)}


def test_secrets_that_copies_gave_away() -> None:
    copied, cleaned = secrets((6, 8), (0.5, 2), 128), secrets((1, 3), (1, 2), 16)
    assert all(canaries.checks({"copied": copied, "cleaned": cleaned}).values())
    assert not any(list(canaries.checks({"copied": cleaned, "cleaned": copied}).values())[:3])
    guessed = {"copied": secrets((6, 8), (1.5, 2), 128), "cleaned": cleaned}
    assert not canaries.checks(guessed)["of secrets planted nowhere nothing is known"]


class Finished:
    """A stage that left this summary."""

    def __init__(self, **summary: Any) -> None:
        self.summary = summary


def ways(hasty: str, careful: str) -> dict[str, Any]:
    def exam(general: str) -> Finished:
        return Finished(
            metrics={"domain.bpb": {"verdict": "improved"}, "general.gold_bpb": {"verdict": general}}
        )

    front = [
        {"alpha": alpha, "general_change": 0.4 * alpha, "task_change": -0.2 * alpha} for alpha in (0, 0.4, 1)
    ]
    return {
        "exam_hasty": exam(hasty),
        "exam_careful": exam(careful),
        "hasty": Finished(forgetting={"change": 0.4}),
        "stopped": Finished(forgetting={"change": 0.02}),
        "careful": Finished(forgetting={"change": 0.0}),
        "way_back": Finished(front=front, alpha=0.4),
    }


def test_forgetting_is_told_from_learning() -> None:
    judge = recipes.JUDGES["forgetting"]
    assert all(judge(ways("regressed", "unchanged"), 0)[1].values())  # type: ignore[arg-type]
    assert not judge(ways("unchanged", "unchanged"), 0)[1]["and forgets"]  # type: ignore[arg-type]
    assert not judge(ways("regressed", "regressed"), 0)[1]["and does not forget"]  # type: ignore[arg-type]


def test_what_is_forgotten_is_read_where_a_gain_was_first_reached() -> None:
    looks = [{"gain": 0.0, "cost": 0.0}, {"gain": 0.2, "cost": 0.1}, {"gain": 0.1, "cost": 0.5}]
    assert tuning_gains.cost_at(looks, 0.1) == pytest.approx(0.05)
    assert tuning_gains.cost_at(looks, 0.3) is None
    assert set(tuning_gains.RATES) < set(tuning_gains.METHODS)
