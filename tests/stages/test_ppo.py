"""Practice with PPO: the reward rises, a random one teaches nothing, and a killed run ends in the same bits."""

from pathlib import Path
from typing import Any

import pytest
import torch

from matura.core.artifact import Artifact
from matura.core.config import parse
from matura.core.errors import ConfigError, MaturaError
from matura.model import store
from matura.stages import ppo
from tests.killing import killed_after
from tests.stages.pictures import MARK
from tests.stages.practising import World, rows, run_stage, world_of

REWARDS = """
import random

def vowels(completions):
    return [sum(c in "aeiou" for c in one.text) / (len(one.text) + 1) for one in completions]

def chance(completions):
    return [random.Random(one.text + one.prompt.id).random() for one in completions]

def letters(completions):
    return [sum(c.isascii() and c.isalpha() for c in one.text) for one in completions]

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
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world_of(tmp_path_factory.mktemp("world"), REWARDS)


def practise(world: World, folder: Path, reward: str = "vowels", **settings: Any) -> Artifact:
    """A run of the stage with a reward of the file."""
    return run_stage(ppo, world, folder, {reward: 1}, QUICK | settings)


KINDS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "head": (
        {"lora": {"rank": 2}, "value": {"kind": "head"}},
        (1, 4, 7),
    ),  # inside an iteration, between two, inside the next
    "critic": ({"method": "full", "value": {"kind": "critic", "rank": 2}}, (6,)),
    "left out": (
        {
            "lora": {"rank": 2},
            "kl": {"place": "loss", "coefficient": 0.1, "stop": 1e-4},
            "scoring": {"cut": "bootstrap"},
        },
        (2, 3),
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_killed_in_the_middle_of_an_iteration_it_ends_in_the_same_bits(
    name: str, world: World, tmp_path: Path
) -> None:
    """T37: with the coefficient, the values, the answers and their order."""
    kind, stops = KINDS[name]
    kind = {"iterations": 2} | kind
    whole = practise(world, tmp_path / "whole", **kind)
    assert whole.summary["steps"] == 8
    assert any(row.get("left_out") for row in rows(whole)) is (name == "left out")
    for stop in stops:
        place = tmp_path / f"killed-{stop}"
        with killed_after(stop):
            practise(world, place, **kind)
        torch.manual_seed(stop)
        made = practise(world, place, **kind)
        assert rows(made) == rows(whole)
        assert made.summary == whole.summary
        assert made.id == whole.id
        assert made.record["resumed"] == 1


def test_what_is_rewarded_becomes_likelier(world: World, tmp_path: Path) -> None:
    """A reward that a few updates can learn, beside one that says nothing of the answer."""
    practice: dict[str, Any] = {
        "method": "full",
        "iterations": 8,
        "prompts_each": 8,
        "rollouts": {"samples": 8, "max_new_tokens": 3},
        "updates": {"epochs": 2, "minibatches": 1},
        "kl": {"coefficient": 0.02},
        "meter_every": 0,
        "meter_prompts": 64,
    }
    gains = {}
    for reward in ("letters", "chance"):
        made = practise(world, tmp_path / reward, reward, **practice)
        found = [row for row in rows(made) if "reward" in row]
        gains[reward] = (found[-1]["reward"] - found[0]["reward"]) / found[0]["reward_std"]
        assert found[-1]["answer_kl"] > 0
        assert made.summary["reward_before"] == found[0]["reward"]
    assert gains["letters"] > 0.5
    assert abs(gains["chance"]) < 0.4


@pytest.mark.usefixtures("drawn")
def test_what_comes_out_writes_without_what_foresaw(world: World, tmp_path: Path) -> None:
    made = practise(world, tmp_path / "made", lora={"rank": 2}, iterations=1)
    assert {name.rpartition(".")[2] for name in store.read_adapter(made.path).tensors} == {"a", "b"}
    assert store.load(made.path).config == store.load(world["model"].path).config
    assert made.summary["alarms"] == []
    assert MARK in (made.path / "report.html").read_text()


def test_silent_rewards_stop_the_run(world: World, tmp_path: Path) -> None:
    with pytest.raises(MaturaError, match="none of 12 answers could be judged by silent"):
        practise(world, tmp_path / "made", "silent")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rewards": {"own": {}}}, "nothing has a weight"),
        ({"rollouts": {"top_k": 5}}, "only the temperature"),
        ({"rollouts": {"max_new_tokens": 200_000}}, "all of them are kept"),
        ({"updates": {"minibatches": 4, "accumulate": 2}}, "only prompts_each=6"),
        ({"lora": {"dropout": 0.1}}, "lora.dropout"),
        ({"kl": {"horizon": 7}}, "without a target"),
        ({"kl": {"coefficient": 0, "place": "loss"}}, "place would do nothing"),
        ({"kl": {"coefficient": 0, "target": 2.0}}, "cannot be steered"),
        ({"value": {"kind": "head", "rank": 2}}, "rank is for kind=critic"),
        ({"forgetting": {"kl": 0.1, "kl_on": "new"}}, "anchors of fine-tuning"),
        ({"meter_every": 0}, "meter_prompts would do nothing"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    own = {"own": {"letters": {"file": "rewards.py"}}}
    values = {"model": "m", "prompts": "p.jsonl", "rewards": own} | QUICK | settings
    with pytest.raises(ConfigError, match=message):
        parse(ppo.Config, values, "test")
