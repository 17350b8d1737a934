"""Let a model practise: it answers prompts, rewards judge the answers, and PPO moves it towards those that were better
than expected (arXiv:1707.06347), while a penalty holds it near the model that it was.

The reward is one of functions, a reward model that `matura reward` made, or several with weights. Judge it on held-out
prompts and by a reward that is not learned from (weight 0): see docs/stages/ppo.md.
"""

from typing import TYPE_CHECKING

from pydantic import Field

from matura.core import practice_settings
from matura.core.artifact import Artifact, Draft, RawInput
from matura.core.inputs import located
from matura.core.plan import Estimate
from matura.core.ppo_settings import KlPenalty, Scoring, Updates, ValueModel
from matura.core.rollout_settings import Rollouts

if TYPE_CHECKING:
    from matura.align.rewards import Weighted
    from matura.align.value_head import PolicyWithValue
    from matura.model.transformer import Transformer
    from matura.tokenizer.conversation import Format
    from matura.train.finetuning import Lesson

KIND = "model"
VERSION = 2


class Config(practice_settings.Practice):
    """What to practise, what for, and how far to go."""

    rollouts: Rollouts = Field(Rollouts(samples=1), description="How answers are written")
    iterations: int = Field(50, ge=1, description="How often prompts are answered and learned from")
    prompts_each: int = Field(32, ge=1, description="Prompts of one iteration")
    kl: KlPenalty = KlPenalty()
    scoring: Scoring = Scoring()
    updates: Updates = Updates()
    value: ValueModel = ValueModel()


raw_input = located


def estimate(config: Config, inputs: dict[str, Artifact | RawInput | None]) -> Estimate:
    """Time from the longest answers that may be written, read by all models and learned from."""
    models = 2 if config.value.kind == "critic" else 1
    return practice_settings.estimate(config, inputs, reads=1 + models, models=models)


def run(config: Config, inputs: dict[str, Artifact | RawInput], draft: Draft) -> Artifact:
    """Make a model: the whole one, or an adapter on the parent. A killed run goes on from its last checkpoint, in the
    middle of an iteration with the answers that were written for it.

    Raises MaturaError for rewards that judge nothing, for prompts that do not fit, and when what was drawn is not what
    is trained; Diverged when the loss is no longer finite.
    """
    from functools import partial

    from matura.align.practising import practise

    return practise(config, inputs, draft, "Practice (PPO)", partial(_lesson, config, inputs))


def _lesson(
    config: Config,
    inputs: dict[str, Artifact | RawInput],
    model: "Transformer",
    parent: "Transformer",
    format: "Format",
    judges: "Weighted",
) -> "tuple[PolicyWithValue, Lesson]":
    """The policy with its value model; iterations over the prompts that fit, and looks at those that are held out."""
    from matura.align.asked import asked
    from matura.align.iterations import Iterations, Plan
    from matura.align.value_head import with_value
    from matura.train.finetuning import Lesson

    found = asked(config, inputs, model, parent, format, judges)
    plan = Plan(
        config.prompts_each,
        config.rollouts,
        config.kl,
        config.scoring,
        config.updates,
        config.value.coefficient,
        config.seed,
    )
    both = with_value(model, parent, config.value, config.seed)
    practice = Iterations(both, found.reference, format, found.prompts, judges, plan)
    return both, Lesson(
        practice,
        practice.objective,
        found.looks,
        found.counts,
        steps=config.iterations * plan.updates_each,
        accumulate=config.updates.accumulate,
        notes=practice.notes,
        writer=model,
        rates=((both.foreseeing, config.value.rate),),
    )
