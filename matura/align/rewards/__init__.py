"""Rewards: what an answer is worth, as plain functions of completions.

To add one: write it in `answers.py`, give it a group of settings with a weight in `core/reward_settings.py`, and enter
it in `_built_in`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from matura.align.rewards.completion import Completion, Reward
from matura.align.rewards.weighted import Part, Scores, Weighted
from matura.core.artifact import Artifact
from matura.core.raw import RawInput
from matura.core.reward_settings import BUILT_IN, Rewards


def build(
    settings: Rewards, inputs: Mapping[str, Artifact | RawInput | None], group: str = "rewards"
) -> Weighted:
    """The rewards that have a weight; `group` is where the settings stand in the stage's.

    Reads the files of one's own functions and loads the reward model. Raises ConfigError for a function that is not
    there.
    """
    parts = [
        Part(name, weight, _reward(settings, name, inputs, group))
        for name, weight in settings.weights.items()
    ]
    return Weighted(tuple(parts))


def _reward(
    settings: Rewards, name: str, inputs: Mapping[str, Artifact | RawInput | None], group: str
) -> Reward:
    if name in BUILT_IN:
        return _built_in(settings, name)
    if name == "judge":
        from matura.align.rewards import judged

        model = inputs[f"{group}.judge.model"]
        assert model is not None
        return judged.load(model.path)
    from matura.align.rewards import own

    file = inputs[f"{group}.own.{name}.file"]
    assert file is not None
    return own.load(file.path, settings.own[name].function or name, f"{group}.own.{name}")


def _built_in(settings: Rewards, name: str) -> Reward:
    from matura.align.rewards import answers, programs

    match name:
        case "exact":
            return partial(answers.exact, settings.exact)
        case "pattern":
            assert settings.pattern.pattern is not None
            return partial(answers.pattern, settings.pattern.pattern)
        case "length":
            return partial(answers.length, settings.length)
        case "repetition":
            return partial(answers.repetition, settings.repetition)
        case "ending":
            return answers.ending
        case "tests":
            return programs.prepared(settings.tests)
    raise ValueError(f"no reward is called {name}")


__all__ = ["Completion", "Part", "Reward", "Scores", "Weighted", "build"]
