"""A reward model as a reward."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matura.align.rewards.completion import Completion, Reward
from matura.core.preferences import Answer, Ranking


def load(folder: Path) -> Reward:
    """The reward model of an artifact. Raises MaturaError for a model that is none."""
    from matura.align.reward_model import Judge

    judge = Judge.load(folder)

    def judged(completions: Sequence[Completion]) -> list[float | None]:
        """Scores; answers to one prompt that stand side by side are asked about together."""
        prompts, answers = list[Ranking](), list[list[Answer]]()
        for one in completions:
            if not prompts or one.prompt is not prompts[-1]:
                prompts.append(one.prompt)
                answers.append([])
            answers[-1].append(Answer(one.text, end=one.end))
        return [score for scores in judge.scores(prompts, answers) for score in scores]

    return judged
