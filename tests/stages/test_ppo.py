"""Practice with PPO: the reward rises, a random one teaches nothing, and a killed run ends in the same bits."""

from pathlib import Path
from typing import Any

import pytest
import torch

from matura.core.artifact import Artifact
from matura.core.config import parse
from matura.core.metrics import MetricsLog
from matura.core.preferences import Ranking, write_rankings
from matura.core.raw import RawInput, raw_input
from matura.stages import ppo
from tests.killing import killed_after
from tests.tiny_models import network, pulled

REWARDS = """
import random

def vowels(completions):
    return [sum(c in "aeiou" for c in one.text) / (len(one.text) + 1) for one in completions]

def chance(completions):
    return [random.Random(one.text + one.prompt.id).random() for one in completions]

def silent(completions):
    return [None for one in completions]
"""
QUICK: dict[str, Any] = {
    "iterations": 3,
    "prompts_each": 6,
    "rollouts": {"samples": 2, "max_new_tokens": 6},
    "updates": {"epochs": 2, "minibatches": 2},
    "kl": {"coefficient": 0.05, "target": 1.0, "horizon": 50, "stop": None},
    "scoring": {"missing_stop": 0.5},
    "optimizer": {"lr": 1e-2},
    "data": {"heldout": 3},
    "meter_every": 5,
    "meter_prompts": 3,
    "forgetting": {"text": None},
    "save_every": 1,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A model, prompts and rewards."""
    place = tmp_path_factory.mktemp("world")
    (place / "rewards.py").write_text(REWARDS)
    rows = [Ranking(f"p{n}", ({"role": "user", "content": f"say {n}"},)) for n in range(12)]
    write_rankings(place / "prompts.jsonl", rows)
    return {
        "model": pulled(place, model=network(scale=2.0)),
        "prompts": raw_input(place / "prompts.jsonl"),
        "file": raw_input(place / "rewards.py"),
    }


def practise(world: dict[str, Any], folder: Path, reward: str = "vowels", **settings: Any) -> Artifact:
    """A run of the stage with a reward of the file."""
    from matura.core import artifact

    values = QUICK | settings
    values |= {"model": str(world["model"].path), "prompts": str(world["prompts"].path)}
    values["rewards"] = {"own": {reward: {"file": str(world["file"].path)}}} | values.get("rewards", {})
    config = parse(ppo.Config, values, "test")
    inputs: dict[str, Artifact | RawInput] = {
        "model": world["model"],
        "prompts": world["prompts"],
        f"rewards.own.{reward}.file": world["file"],
    }
    draft = artifact.begin(
        folder, kind=ppo.KIND, stage="ppo", version=ppo.VERSION, config=config, inputs=inputs
    )
    return ppo.run(config, inputs, draft)


def rows(made: Artifact) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if name not in ("time", "seconds", "t")}
        for row in MetricsLog(made.path / "metrics.jsonl").rows()
    ]


KINDS: list[dict[str, Any]] = [
    {"lora": {"rank": 2}},
    {"method": "full", "value": {"kind": "critic", "rank": 2}},
    {
        "lora": {"rank": 2},
        "kl": {"place": "loss", "coefficient": 0.1, "stop": 1e-4},
        "updates": {"epochs": 3},
    },
]


@pytest.mark.parametrize("kind", KINDS)
def test_killed_in_the_middle_of_an_iteration_it_ends_in_the_same_bits(
    kind: dict[str, Any], world: dict[str, Any], tmp_path: Path
) -> None:
    whole = practise(world, tmp_path / "whole", **kind)
    assert whole.summary["steps"] == 12 if "updates" not in kind else 18
    for stop in (1, 2, 4, 7):  # after the first update, inside, between iterations, inside the second
        place = tmp_path / f"killed-{stop}"
        with killed_after(stop):
            practise(world, place, **kind)
        torch.manual_seed(stop)
        made = practise(world, place, **kind)
        assert rows(made) == rows(whole)
        assert made.summary == whole.summary
        assert made.id == whole.id
        assert made.record["resumed"] == 1
