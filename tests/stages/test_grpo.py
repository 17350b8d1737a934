"""Practice with GRPO: what is rewarded becomes likelier, a random reward teaches nothing, and a killed run ends in the
same bits."""

import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

from matura.core.artifact import Artifact
from matura.core.config import parse
from matura.core.errors import ConfigError, MaturaError
from matura.core.raw import raw_input
from matura.model import store
from matura.stages import grpo
from tests.killing import killed_after
from tests.stages.pictures import MARK
from tests.stages.practising import World, rows, run_stage, world_of

REWARDS = """
import random

def plain(completions):
    return [sum(letter.isascii() for letter in one.text) / (len(one.text) + 1) for one in completions]

def chance(completions):
    return [random.Random(one.text + one.prompt.id).random() for one in completions]

def silent(completions):
    return [None for one in completions]

def some(completions):
    return [None if "7" in one.prompt.id else float(len(one.text)) for one in completions]
"""
QUICK: dict[str, Any] = {
    "iterations": 3,
    "prompts_each": 4,
    "rollouts": {"samples": 4, "max_new_tokens": 6},
    "updates": {"epochs": 2, "minibatches": 2, "kl": 0.05},
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


def practise(world: World, folder: Path, reward: str = "plain", **settings: Any) -> Artifact:
    """A run of the stage with a reward of the file."""
    return run_stage(grpo, world, folder, {reward: 1}, QUICK | settings)


def weights(made: Artifact) -> bytes:
    return (
        made.path / ("adapter.safetensors" if store.adapter_settings(made.path) else "model.safetensors")
    ).read_bytes()


@pytest.mark.usefixtures("drawn")
def test_a_reward_becomes_more_frequent_and_the_log_says_how(world, tmp_path):
    made = practise(
        world,
        tmp_path / "out",
        method="full",
        iterations=20,
        prompts_each=6,
        updates={"accumulate": 2},
        meter_every=20,
    )
    told = rows(made)
    rewards = [row["reward"] for row in told if "reward" in row]
    assert len(rewards) == 20
    assert statistics.fmean(rewards[-3:]) > statistics.fmean(rewards[:3]) + 0.2
    assert made.summary["heldout_reward_after"] > made.summary["heldout_reward_before"]
    first = told[1]
    assert first["ratio"] == pytest.approx(1, abs=1e-4)
    assert first["rollout_gap"] < 1e-4
    assert {
        "reward.plain",
        "reward_std",
        "even_groups",
        "answer_tokens",
        "ended",
        "unjudged",
    } <= first.keys()
    assert {"policy_entropy", "clip_share", "clip_share_low", "clip_share_high", "approx_kl"} <= first.keys()
    assert told[0]["heldout_answer_kl"] == pytest.approx(0, abs=1e-6)
    assert made.summary["heldout_answer_kl"] > 0
    assert MARK in (made.path / "report.html").read_text()


def test_a_reward_by_chance_teaches_nothing(world, tmp_path):
    """The control: what is measured beside it and not learned from stays where it was."""
    settings = {"method": "full", "iterations": 20, "prompts_each": 6, "updates": {"accumulate": 2}}
    rewards = {"chance": 1.0, "plain": 0.0}
    made = run_stage(grpo, world, tmp_path / "out", rewards, QUICK | settings | {"meter_every": 20})
    plain = [row["reward.plain"] for row in rows(made) if "reward.plain" in row]
    assert len(plain) == 20
    assert abs(statistics.fmean(plain[-3:]) - statistics.fmean(plain[:3])) < 0.1


@pytest.mark.parametrize(
    ("settings", "step"),
    [({"lora": {"rank": 2}}, 4), ({"method": "full"}, 6)],
    ids=["lora, between iterations", "full, inside one"],
)
def test_t37_killed_and_resumed_is_bit_for_bit(world, tmp_path, settings, step):
    settings = {"iterations": 2} | settings
    whole = practise(world, tmp_path / "whole", **settings)
    with killed_after(step):
        practise(world, tmp_path / "killed", **settings)
    again = practise(world, tmp_path / "killed", **settings)
    assert weights(again) == weights(whole)
    assert rows(again) == rows(whole)


def test_another_seed_is_another_run(world, tmp_path):
    one, other = (practise(world, tmp_path / str(seed), iterations=1, seed=seed) for seed in (0, 1))
    assert weights(one) != weights(other)


def test_t27_rewards_that_judge_nothing_stop_the_run_and_some_that_do_not_are_counted(world, tmp_path):
    with pytest.raises(MaturaError, match="none of the first 16 answers was judged by silent"):
        practise(world, tmp_path / "silent", "silent")
    made = practise(world, tmp_path / "some", "some", iterations=3, updates={})
    unjudged = [row["unjudged"] for row in rows(made) if "unjudged" in row]
    assert 0 < max(unjudged) <= 0.5


def test_t27_where_all_groups_are_even_nothing_moves(world, tmp_path):
    (tmp_path / "even.py").write_text("def even(completions):\n    return [1.0] * len(completions)\n")
    even = world | {"file": raw_input(tmp_path / "even.py")}
    made = practise(even, tmp_path / "out", "even", method="full", updates={}, iterations=6)
    before, after = (store.load(one.path) for one in (world["model"], made))
    for (name, was), (_, now) in zip(before.named_parameters(), after.named_parameters(), strict=True):
        assert torch.equal(was, now), name
    assert any("zero-variance groups" in alarm for alarm in made.summary["alarms"])
    assert "alarm" in made.summary["line"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rollouts": {"samples": 1}}, "nobody to be compared with"),
        ({"rollouts": {"top_k": 5}}, "only the temperature can be set"),
        ({"rewards": {"own": {}}}, "nothing has a weight"),
        ({"updates": {"minibatches": 3, "accumulate": 6}}, "the answers to one stay together"),
        ({"lora": {"dropout": 0.1}}, "lora.dropout would change the probabilities"),
        ({"forgetting": {"kl": 0.1}}, "anchors of fine-tuning"),
        ({"prompts_each": 10_000, "rollouts": {"max_new_tokens": 256}}, "is more than 1,000,000 tokens"),
        ({"meter_every": 0, "meter_prompts": 3}, "meter_prompts would do nothing"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    values = {"model": "m", "prompts": "p", "rewards": {"exact": {"weight": 1}}} | settings
    if settings.get("rewards"):
        values["rewards"] = settings["rewards"]
    with pytest.raises(ConfigError, match=message):
        parse(grpo.Config, values, "test")
