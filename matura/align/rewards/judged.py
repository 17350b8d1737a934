"""A reward model as a reward."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from pathlib import Path

from matura.align.reward_model import Judge
from matura.align.rewards.completion import Completion, Reward
from matura.align.sequences import Prompted
from matura.core.preferences import Answer, Ranking
from matura.infer.reading import longest


def load(folder: Path) -> Reward:
    """The reward model of an artifact. Raises MaturaError for a model that is none."""
    return judged_by(Judge.load(folder))


def judged_by(judge: Judge) -> Reward:
    """A judge as a reward. What with its prompt is longer than the judge's context it cannot judge: None."""
    most = longest(judge.model)

    def judged(completions: Sequence[Completion]) -> list[float | None]:
        """Answers to one prompt that stand side by side are asked about together."""
        prompts, answers = list[Ranking](), list[list[Answer]]()
        for one in completions:
            if not prompts or one.prompt is not prompts[-1]:
                prompts.append(one.prompt)
                answers.append([])
            answers[-1].append(Answer(one.text, end=one.end))
        texts = judge.texts(prompts, answers)
        fits = [[len(text.prompt) + len(one) <= most for one in text.answers] for text in texts]
        short = [
            Prompted(text.prompt, tuple(compress(text.answers, its)))
            for text, its in zip(texts, fits, strict=True)
        ]
        scores = iter([score for row in judge.rewards(short) for score in row])
        return [next(scores) if one else None for its in fits for one in its]

    return judged
