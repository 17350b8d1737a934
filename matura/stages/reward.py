"""Train a reward model: a decoder or an encoder that gives an answer one number, from what people preferred.

Of two answers the preferred one is to get the higher reward (Bradley-Terry); or all answers of a ranking their order
(Plackett-Luce). It is measured on held-out prompts beside "longer wins", "shorter wins" and a model of words alone.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from matura.core import costs, peft_settings
from matura.core.artifact import Artifact, Draft, RawInput
from matura.core.config import Input
from matura.core.errors import MaturaError
from matura.core.forgetting_settings import Forgetting, check_looks
from matura.core.inputs import located
from matura.core.plan import Estimate
from matura.core.preference_settings import PreferenceData, check_without_facts
from matura.core.settings import Recompute

if TYPE_CHECKING:
    from matura.core.preferences import Ranking
    from matura.data.preferences.loading import Loaded
    from matura.model.transformer import Transformer
    from matura.tokenizer.conversation import Format
    from matura.train.finetuning import Lesson

KIND = "model"
VERSION = 3
BYTES_PER_TOKEN = 4.0


class Config(peft_settings.Tuning):
    """What was preferred, and how it is learned."""

    model: Annotated[str, Input("model")] = Field(description="The model that becomes a reward model")
    preferences: Annotated[str, Input("preferences", "samples", "raw")] = Field(
        description="What was preferred: files of your own, or what another stage wrote"
    )
    data: PreferenceData = Field(PreferenceData(), description="How the files are read")
    loss: Literal["bradley-terry", "plackett-luce"] = Field(
        "bradley-terry",
        description="bradley-terry: every pair of a ranking, which together count once; plackett-luce: the order of "
        "all its answers",
    )
    margin: float = Field(
        0.0,
        ge=0,
        description="This times the difference of a pair's scores, where it has some, is how far apart the rewards "
        "should be (loss=bradley-terry)",
    )
    centring: float = Field(
        0.01,
        ge=0,
        description="This times (r + r')^2 is added to the loss of a pair, so that rewards centre on 0",
    )
    optimizer: peft_settings.TuningOptimizer = Field(
        peft_settings.TuningOptimizer(), description="AdamW and its schedule"
    )
    epochs: float = Field(1.0, gt=0, description="How often all rankings are seen")
    tokens_per_step: int = Field(2048, ge=16, description="Tokens in one update; a ranking is never divided")
    sequence: int = Field(
        512,
        ge=8,
        description="Longest prompt with its answer, in tokens, at most the model's context; pairs with a longer one "
        "are dropped",
    )
    meter_every: int = Field(20, ge=0, description="Steps between looks at held-out rankings; 0 for none")
    meter_tokens: int = Field(
        8192, ge=64, description="Held-out tokens in one look; the last figures are of all"
    )
    save_every: int = Field(5, ge=1, description="Steps between checkpoints")
    recompute: Recompute = Field(
        "none",
        description="Blocks whose activations are computed again instead of kept: none, full, every n-th",
    )
    seed: int = Field(0, description="First weights of the head and of updates, and the order of the data")

    @property
    def forgetting(self) -> Forgetting:
        """A reward model no longer writes, so nothing of that can be kept or measured."""
        return Forgetting(text=None)

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> "Config":
        check_without_facts(self.data)
        if self.margin and self.loss != "bradley-terry":
            raise ValueError("margin is for loss=bradley-terry; an order of several has no margins")
        if self.method == "lora" and self.lora.dropout:
            raise ValueError("lora.dropout would do nothing: a reward model learns without dropout")
        check_looks(self, "meter_tokens")
        return self


raw_input = located


def estimate(config: Config, inputs: dict[str, Artifact | RawInput | None]) -> Estimate:
    """Time from the bytes of the preferences and of the model; memory for weights, gradients and activations."""
    tokens = int(costs.row_bytes(inputs.get("preferences"), 1 << 20) / BYTES_PER_TOKEN)
    return costs.tuning(
        config,
        inputs.get("model"),
        seconds=tokens * (config.epochs / costs.TRAINED[config.method] + 0.1 / costs.READ),
        tokens=config.tokens_per_step,
        note=f"about {tokens:,} tokens, {config.epochs:g} times, {config.method}",
    )


def run(config: Config, inputs: dict[str, Artifact | RawInput], draft: Draft) -> Artifact:
    """Make a reward model: the whole one, or an adapter with the head beside it. A killed run goes on from its last
    checkpoint.

    Raises MaturaError when there is nothing to learn from or no score to take margins from, Diverged when the loss is
    no longer finite.
    """
    from matura.align import doctor
    from matura.align.reward_model import Judge, set_reward_head
    from matura.align.reward_worth import held, worth
    from matura.data.preferences import loading
    from matura.evaluate import training_report
    from matura.model import store
    from matura.tokenizer import conversation
    from matura.train import finetuning, material, preparing, resume

    given = inputs["model"]
    assert isinstance(given, Artifact)
    preparing.check_whole(given)
    format = conversation.load(given.path)
    loaded = loading.load(inputs["preferences"], config.data)
    length = material.longest(config, store.read_config(given.path))
    with resume.deterministic(config.seed):
        model, _ = preparing.prepare(config, given.path, format)
        set_reward_head(model, config.seed)
        lesson = _lesson(config, loaded, model, format, length)
        totals = finetuning.Run(config, model, lesson).go(draft)
        del totals["forgetting"]
        found = held(loaded.heldout, model, format, length)
        totals |= worth(Judge(model, format), found, loaded.train)
    preparing.save(draft.path, model, config, format)
    alarms = doctor.alarms(draft.metrics.rows())
    training_report.write(
        draft.path, "Reward model", totals | {"alarms": alarms}, config.model_dump(mode="json")
    )
    summary = {
        "line": f"reward model, {config.method}, {lesson.counts['examples']:,} rankings in {totals['steps']} steps, "
        f"loss {totals['loss']:.3f}{_found(totals, alarms)}",
        **totals,
        **lesson.counts,
        "alarms": alarms,
        "source_quantization": preparing.quantization(config, given),
    }
    return draft.commit(summary, logs=[training_report.FILE])


def _lesson(
    config: Config, loaded: "Loaded", model: "Transformer", format: "Format", length: int
) -> "Lesson":
    """Rankings in rows, the objective, and looks at some that are held out."""
    from matura.align.ranked import pack_ranked, ranked, write_for
    from matura.align.reward_training import Objective, Rule, look
    from matura.train.batches import PackedBatches
    from matura.train.finetuning import Lesson
    from matura.train.material import rows, spread
    from matura.train.meter import Looks

    write = write_for(model)
    learned, out = (ranked(side, format, length, write) for side in (loaded.train, loaded.heldout))
    if not learned.examples:
        raise MaturaError(_why_nothing(loaded.train, learned.dropped, length))
    rule = Rule(config.loss, config.margin, config.centring)
    objective = Objective(rule)
    source = rows("learn from", learned.examples, config.tokens_per_step, config.seed, learned.dropped)
    if config.margin and not any(choice.margin for one in learned.examples for choice in one.choices):
        raise MaturaError(
            f"margin={config.margin:g} would do nothing: no pair has scores that say by how much its answer is better; "
            "leave margin out, or give preferences with scores"
        )
    some = spread(out.examples, config.meter_tokens, lambda one: one.size) if config.meter_every else []
    looks = Looks(also=(look(format, some, rule),) if some else ())
    total = sum(one.size for one in source.examples)
    counts = {
        "examples": len(source.examples),
        "pairs": sum(one.trained for one in source.examples),
        "dropped_pairs": learned.dropped.total(),
        "dropped": dict(sorted(learned.dropped.items())),
        "heldout_dropped": dict(sorted(out.dropped.items())),
        "data": loaded.found,
    }
    steps = max(1, round(config.epochs * total / source.mean_tokens))
    return Lesson(
        PackedBatches([source], pack=pack_ranked),
        objective,
        looks,
        counts,
        steps=steps,
        notes=objective.notes,
    )


def _why_nothing(rankings: Sequence["Ranking"], dropped: Mapping[str, int], length: int) -> str:
    """Why no pair is left, and what would be one."""
    from matura.data.preferences import pairs

    told = [f"{count:,} pairs {reason}" for reason, count in sorted(dropped.items())]
    if alone := sum(not pairs.of(row) for row in rankings):
        told.append(f"{alone:,} rankings without a pair")
    return (
        f"there is nothing to learn from: {', '.join(told)}. A pair is two answers to one prompt of which one is "
        f"preferred, each with the prompt at most sequence={length} tokens."
    )


def _found(totals: dict[str, Any], alarms: list[str]) -> str:
    """What held-out pairs say, in a few words."""
    if (share := totals.get("accuracy")) is None:
        return "; nothing was held out"
    told = f"; alarm: {alarms[0].partition(' (')[0]}" if alarms else ""
    words = totals["baselines"]["words"]["accuracy"]["value"]
    length = max(totals["baselines"][name]["accuracy"]["value"] for name in ("longer", "shorter"))
    return (
        f"; {share['value']:.1%} of {share['pairs']:,} held-out pairs in order ({share['low']:.1%} to "
        f"{share['high']:.1%}; words alone {words:.1%}, length {length:.1%}){told}"
    )
