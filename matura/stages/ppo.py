"""Let a model practise: it answers prompts, rewards judge the answers, and PPO moves it towards those that were better
than expected (arXiv:1707.06347), while a penalty holds it near the model that it was.

The reward is one of functions, a reward model that `matura reward` made, or several with weights. Judge it on held-out
prompts and by a reward that is not learned from (weight 0): see docs/stages/ppo.md.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from matura.core import peft_settings, wheels
from matura.core.artifact import Artifact, Draft, RawInput
from matura.core.config import Input
from matura.core.errors import ConfigError
from matura.core.forgetting_settings import Forgetting, without_unread_text
from matura.core.plan import Estimate
from matura.core.ppo_settings import KlPenalty, Scoring, Updates, ValueModel
from matura.core.preference_settings import PreferenceData
from matura.core.reward_settings import Rewards, check_rewarded
from matura.core.rollout_settings import Rollouts
from matura.core.settings import Recompute

if TYPE_CHECKING:
    from matura.align.iterations import Iterations
    from matura.align.rewards import Weighted
    from matura.core.workspace import Workspace
    from matura.model.transformer import Transformer
    from matura.tokenizer.conversation import Format
    from matura.train.finetuning import Lesson

KIND = "model"
VERSION = 1
MOST_TOKENS = 1_000_000
"""Tokens of the answers of one iteration: they are kept in memory and in checkpoints."""
# A 135M model on 2 cores: trained, only read, and written token by token.
TRAINED_PER_SECOND, READ_PER_SECOND, WRITTEN_PER_SECOND = 120.0, 450.0, 60.0


class Config(peft_settings.Tuning):
    """What to practise, what for, and how far to go."""

    model: Annotated[str, Input("model")] = Field(
        description="The model that practises, and its own reference"
    )
    prompts: Annotated[str, Input("conversations", "preferences", "samples", "raw")] = Field(
        description="What it answers: prompts, or conversations whose last answer becomes `facts.gold`"
    )
    data: PreferenceData = Field(PreferenceData(), description="How prompts are read")
    rewards: Rewards = Field(Rewards(), description="What answers are rewarded for")
    rollouts: Rollouts = Field(Rollouts(samples=1), description="How answers are written")
    iterations: int = Field(50, ge=1, description="How often prompts are answered and learned from")
    prompts_each: int = Field(32, ge=1, description="Prompts of one iteration")
    kl: KlPenalty = KlPenalty()
    scoring: Scoring = Scoring()
    updates: Updates = Updates()
    value: ValueModel = ValueModel()
    optimizer: peft_settings.TuningOptimizer = Field(
        peft_settings.TuningOptimizer(schedule="constant"), description="AdamW and its schedule"
    )
    forgetting: Forgetting = Forgetting()
    meter_every: int = Field(
        20, ge=0, description="Updates between looks at held-out prompts and general text; 0 for none"
    )
    meter_prompts: int = Field(64, ge=1, description="Held-out prompts that are answered in one look")
    meter_tokens: int = Field(1024, ge=64, description="Tokens of general text in one look")
    save_every: int = Field(5, ge=1, description="Updates between checkpoints")
    recompute: Recompute = Field(
        "none",
        description="Blocks whose activations are computed again instead of kept: none, full, every n-th",
    )
    seed: int = Field(0, ge=0, description="Order of the prompts, draws of the answers, start of the updates")

    @model_validator(mode="before")
    @classmethod
    def _general_text(cls, values: Any) -> Any:
        given = values if isinstance(values, dict) else {}
        return without_unread_text(values, "forgetting", given.get("meter_every") == 0)

    @model_validator(mode="after")
    def _learnable(self) -> "Config":
        check_rewarded(self.rewards)
        answers = self.prompts_each * self.rollouts.samples
        if answers * self.rollouts.max_new_tokens > MOST_TOKENS:
            raise ValueError(
                f"an iteration of {answers:,} answers of up to {self.rollouts.max_new_tokens:,} tokens is more than "
                f"{MOST_TOKENS:,} tokens, and all of them are kept; lower prompts_each, rollouts.samples or "
                "rollouts.max_new_tokens"
            )
        pieces = self.updates.minibatches * self.updates.accumulate
        if pieces > self.prompts_each:
            raise ValueError(
                f"updates.minibatches x updates.accumulate = {pieces} pieces of an iteration, but it has only "
                f"prompts_each={self.prompts_each} prompts"
            )
        return self

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> "Config":
        default = {name: one.default for name, one in type(self).model_fields.items()}
        if not self.meter_every:
            for name in ("meter_tokens", "meter_prompts"):
                if getattr(self, name) != default[name]:
                    raise ValueError(f"{name} would do nothing with meter_every=0")
        anchors = self.forgetting
        if anchors.kl or anchors.l2:
            raise ValueError(
                "forgetting.kl and forgetting.l2 are anchors of fine-tuning; PPO has kl.coefficient"
            )
        if anchors.limit is not None and not (self.meter_every and anchors.text):
            raise ValueError("forgetting.limit needs the meter: meter_every and forgetting.text")
        if self.lora.dropout:
            raise ValueError(
                "lora.dropout would change the probabilities between an answer and its update; leave it out"
            )
        return self


def raw_input(config: Config, setting: str, workspace: "Workspace | None" = None) -> Path:
    """Where general text or files are on this machine; what is far away is fetched first."""
    from matura.core.workspace import Workspace

    if setting == "forgetting.text":
        assert config.forgetting.text is not None
        return wheels.located(config.forgetting.text, (workspace or Workspace()).downloads)
    value: Any = config
    for name in setting.split("."):
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    return Path(value).expanduser()


def estimate(config: Config, inputs: dict[str, Artifact | RawInput | None]) -> Estimate:
    """Time from the longest answers that may be written, read by all models and learned from."""
    model = inputs.get("model")
    size = (
        sum(f["bytes"] for f in model.record["files"].values()) if isinstance(model, Artifact) else 540 << 20
    )
    full, models = config.method == "full", 2 if config.value.kind == "critic" else 1
    answers = config.prompts_each * config.rollouts.samples
    tokens = config.iterations * answers * config.rollouts.max_new_tokens
    looks = config.iterations * config.updates.epochs * config.updates.minibatches
    looks = looks // config.meter_every + 2 if config.meter_every else 0
    looked = looks * min(config.meter_prompts, config.data.heldout) * config.rollouts.max_new_tokens
    seconds = (tokens + looked) / WRITTEN_PER_SECOND + (2 + models) * tokens / READ_PER_SECOND
    seconds += models * config.updates.epochs * tokens / TRAINED_PER_SECOND
    held = 5 if full else 0.4 if config.base.format == "int4" else 1  # times the weights in float32
    piece = (
        answers * config.rollouts.max_new_tokens // (config.updates.minibatches * config.updates.accumulate)
    )
    return Estimate(
        seconds=seconds,
        memory_bytes=int(size * held) + models * piece * (2 << 20),
        disk_bytes=size * 4 if full else size // 8,
        note=f"{config.iterations} iterations of {answers} answers of up to {config.rollouts.max_new_tokens} tokens",
    )


def run(config: Config, inputs: dict[str, Artifact | RawInput], draft: Draft) -> Artifact:
    """Make a model: the whole one, or an adapter on the parent. A killed run goes on from its last checkpoint, in the
    middle of an iteration with the answers that were written for it.

    Raises MaturaError for rewards that judge nothing, for prompts that do not fit, and when what was drawn is not what
    is trained; Diverged when the loss is no longer finite.
    """
    from matura.align import doctor, outcome, rewards
    from matura.core.metrics import MetricsLog
    from matura.evaluate import training_report
    from matura.tokenizer import conversation
    from matura.train import finetuning, preparing, resume

    given = inputs["model"]
    assert isinstance(given, Artifact)
    preparing.check_whole(given)
    format = conversation.load(given.path)
    judges = rewards.build(config.rewards, inputs)
    with resume.deterministic(config.seed):
        model, parent = preparing.prepare(config, given.path, format)
        practice, lesson = _lesson(config, inputs, model, parent, format, judges)
        totals = finetuning.Run(config, practice.model, lesson).go(draft)
    preparing.save(draft.path, model, config, format)
    rows = MetricsLog(draft.path / "metrics.jsonl").rows()
    alarms = [str(one) for one in doctor.examine(rows)]
    totals |= outcome.gained(rows) | {"alarms": alarms}
    training_report.write(draft.path, "Practice (PPO)", totals, config.model_dump(mode="json"))
    summary = {
        "line": f"{config.method}, {config.iterations} iterations of "
        f"{config.prompts_each * config.rollouts.samples} answers{outcome.said(totals, alarms)}",
        **totals,
        **lesson.counts,
        "source_quantization": preparing.quantization(config, given),
    }
    return draft.commit(summary, logs=[training_report.FILE])


def _lesson(
    config: Config,
    inputs: dict[str, Artifact | RawInput],
    model: "Transformer",
    parent: "Transformer",
    format: "Format",
    judges: "Weighted",
) -> "tuple[Iterations, Lesson]":
    """Iterations over the prompts that fit, and looks at those that are held out."""
    from matura.align import rollouts
    from matura.align.grpo import frozen
    from matura.align.heldout import Heldout
    from matura.align.iterations import Iterations, Plan
    from matura.align.value_head import with_value
    from matura.data.preferences import prompts
    from matura.evaluate.general import meter
    from matura.model.heads import LanguageHead
    from matura.train.finetuning import Lesson
    from matura.train.meter import Looks

    if model.decoder is None or not isinstance(model.head, LanguageHead):
        raise ConfigError(f"{inputs['model'].path} writes no text, so it has nothing to practise")
    loaded = prompts.load(inputs["prompts"], config.data)
    longest = config.rollouts.max_new_tokens
    kept, left = rollouts.fitting(loaded.train, format, model, longest)
    reference = frozen(parent, config.rollouts.temperature)
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
    practice = Iterations(both, reference, format, kept, judges, plan)
    looks = Looks()
    if config.meter_every:
        held = loaded.heldout[: config.meter_prompts]
        also: tuple[Any, ...] = ()
        if held:
            shown, _ = rollouts.fitting(held, format, model, longest)
            also = (Heldout(format, shown, judges, config.rollouts, config.seed, reference),)
        looks = Looks(None, meter(inputs.get("forgetting.text"), format, parent, config.meter_tokens), also)
    counts = {"prompts": len(kept), "heldout_prompts": len(loaded.heldout), "too_long": left, **loaded.found}
    return practice, Lesson(
        practice,
        practice.objective,
        looks,
        counts,
        steps=config.iterations * plan.updates_each,
        accumulate=config.updates.accumulate,
        notes=practice.notes,
        writer=model,
    )
