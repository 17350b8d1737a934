"""Let a model practise on tasks whose answers can be checked: it answers each prompt several times, and those that are
better than the others become likelier (GRPO, arXiv:2402.03300; RLOO, arXiv:2402.14740). No value model is needed.

Rewards are plain functions: the right answer, a form, unit tests, one's own; or a reward model: see docs/rewards.md.
"""

from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from matura.core import practice_settings
from matura.core.artifact import Artifact, Draft, RawInput
from matura.core.grpo_settings import GroupUpdates
from matura.core.inputs import located
from matura.core.plan import Estimate
from matura.core.rollout_settings import Rollouts

if TYPE_CHECKING:
    from matura.align.practice import Practice
    from matura.align.rewards import Weighted
    from matura.core.preferences import Ranking
    from matura.model.transformer import Transformer
    from matura.tokenizer.conversation import Format
    from matura.train.finetuning import Lesson

KIND = "model"
VERSION = 2


class Config(practice_settings.Practice):
    """What to practise, what for, and how far to go."""

    rollouts: Rollouts = Field(Rollouts(), description="How answers are written")
    updates: GroupUpdates = GroupUpdates()

    @model_validator(mode="after")
    def _compared(self) -> "Config":
        if self.rollouts.samples < 2:
            raise ValueError(
                "rollouts.samples=1 leaves an answer nobody to be compared with; give at least 2 (8 is usual)"
            )
        return self


raw_input = located


def estimate(config: Config, inputs: dict[str, Artifact | RawInput | None]) -> Estimate:
    """Time from the longest answers that may be written, read once and learned from."""
    reads = 1 + config.updates.epochs * bool(config.updates.kl)
    return practice_settings.estimate(config, inputs, reads=reads)


def run(config: Config, inputs: dict[str, Artifact | RawInput], draft: Draft) -> Artifact:
    """Make a model: the whole one, or an adapter on the parent. A killed run goes on from its last checkpoint, in the
    middle of an iteration with the answers that were written for it.

    Raises MaturaError for rewards that judge nothing, for prompts that do not fit, and when what was drawn is not what
    is trained; Diverged when the loss is no longer finite.
    """
    from functools import partial

    from matura.align.practising import practise

    return practise(config, inputs, draft, "Practice (GRPO)", partial(_lesson, config, inputs))


def _lesson(
    config: Config,
    inputs: dict[str, Artifact | RawInput],
    model: "Transformer",
    parent: "Transformer",
    format: "Format",
    judges: "Weighted",
) -> "tuple[Transformer, Lesson]":
    """The model; practice over the prompts that fit, and looks at those that are held out."""
    from matura.align import grpo
    from matura.align.asked import asked
    from matura.train.finetuning import Lesson

    found = asked(config, inputs, model, parent, format, judges)
    reference = found.reference if config.updates.kl else None
    practice = _practice(config, model, format, found.prompts, judges, reference)
    return model, Lesson(
        practice,
        grpo.objective(practice.settings, practice.tally),
        found.looks,
        found.counts,
        steps=config.iterations * practice.schedule.updates,
        accumulate=config.updates.accumulate,
        notes=practice.notes,
    )


def _practice(
    config: Config,
    model: "Transformer",
    format: "Format",
    prompts: "list[Ranking]",
    judges: "Weighted",
    reference: Any,
) -> "Practice":
    from matura.align import rollouts
    from matura.align.grpo import Surrogate
    from matura.align.practice import Practice, Schedule

    settings, updates = config.rollouts, config.updates

    def answer(asked: Any, iteration: int) -> list[rollouts.Rollout]:
        return rollouts.roll(
            model,
            format,
            asked,
            k=settings.samples,
            draw=settings.draw,
            seed=config.seed,
            iteration=iteration,
            batch=settings.batch,
        )

    def check(written: Any) -> float:
        return rollouts.check(model, written, settings.temperature)

    return Practice(
        prompts,
        answer,
        check,
        judges,
        Schedule(config.prompts_each, updates.epochs, updates.minibatches, updates.accumulate),
        Surrogate(
            updates.clip_low,
            updates.clip_high,
            updates.kl,
            settings.temperature,
            updates.reduction,
            settings.max_new_tokens,
        ),
        updates.advantages,
        reference=reference,
        seed=config.seed,
        device=str(model.embed.weight.device),
    )
