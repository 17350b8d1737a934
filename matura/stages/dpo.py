"""Make a model prefer what people prefer, from pairs of answers or thumbs, without a reward model: DPO and its family
(arXiv:2305.18290; IPO, KTO, ORPO, SimPO by `loss.kind`).

The reference is the parent, whose log-probabilities are read once. `--audit` shows the answers token by token.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from matura.core import costs, peft_settings
from matura.core.artifact import Artifact, Draft, RawInput
from matura.core.config import Input
from matura.core.dpo_settings import PreferenceLoss, PreferenceOptimizer
from matura.core.errors import ConfigError, MaturaError
from matura.core.forgetting_settings import (
    Forgetting,
    check_looks,
    check_without_anchors,
    without_unread_text,
)
from matura.core.inputs import located
from matura.core.plan import Estimate
from matura.core.preference_settings import PreferenceData, check_without_facts
from matura.core.preferences import Answer, Ranking
from matura.core.settings import Recompute

if TYPE_CHECKING:
    from matura.model.transformer import Transformer
    from matura.tokenizer.conversation import Format
    from matura.train.audit import Audit
    from matura.train.finetuning import Lesson

KIND = "model"
VERSION = 3
TRAINED_PER_SECOND = 150.0  # tokens, by the model of `costs`
BYTES_PER_TOKEN = 4.0


class Config(peft_settings.Tuning):
    """What was preferred, and how to learn from it."""

    model: Annotated[str, Input("model")] = Field(description="The model that learns, and its own reference")
    preferences: Annotated[str, Input("preferences", "samples", "raw")] = Field(
        description="Judged answers: what `rank` made, or files of pairs, rankings, scores or thumbs"
    )
    data: PreferenceData = Field(PreferenceData(), description="How preferences are read")
    truncation: Literal["drop", "cut"] = Field(
        "drop",
        description="Pairs with an answer that is too long: left out, or the answer keeps its beginning. A prompt is "
        "never cut",
    )
    sequence: int = Field(
        512, ge=8, description="Longest prompt with one answer, in tokens; at most the model's context"
    )
    loss: PreferenceLoss = Field(PreferenceLoss(), description="What is learned from a pair or a thumb")
    optimizer: PreferenceOptimizer = Field(PreferenceOptimizer(), description="AdamW and its schedule")
    epochs: float = Field(1.0, gt=0, description="How often all preferences are learned")
    tokens_per_batch: int = Field(
        4096, ge=16, description="Tokens of one batch, each prompt counted once for all of its answers"
    )
    accumulate: int = Field(1, ge=1, description="Batches of one update; memory is that of one batch")
    forgetting: Forgetting = Forgetting()
    meter_every: int = Field(
        20, ge=0, description="Updates between looks at held-out preferences and general text; 0 for none"
    )
    heldout_tokens: int = Field(8192, ge=64, description="Tokens of held-out preferences in one look")
    meter_tokens: int = Field(1024, ge=64, description="Tokens of general text in one look")
    save_every: int = Field(5, ge=1, description="Updates between checkpoints")
    recompute: Recompute = Field(
        "none",
        description="Blocks whose activations are computed again instead of kept: none, full, every n-th",
    )
    seed: int = Field(0, description="Order of the data, and the start of the updates")

    @model_validator(mode="before")
    @classmethod
    def _general_text(cls, values: Any) -> Any:
        given = values if isinstance(values, dict) else {}
        return without_unread_text(values, "forgetting", given.get("meter_every") == 0)

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> "Config":
        check_without_facts(self.data)
        check_looks(self, "meter_tokens", "heldout_tokens")
        if self.lora.dropout:
            raise ValueError(
                "lora.dropout would do nothing: preferences are learned without dropout, for the reference has none"
            )
        check_without_anchors(
            self, "loss.beta holds the model near its reference, and loss.nll near the chosen answers"
        )
        return self


raw_input = located


def estimate(config: Config, inputs: dict[str, Artifact | RawInput | None]) -> Estimate:
    """Time from the size of the preferences: read by the reference, then trained; memory for weights, gradients,
    moments and the activations of one batch."""
    tokens = costs.row_bytes(inputs.get("preferences"), 4 << 20) / BYTES_PER_TOKEN
    updates = config.epochs * tokens / (config.tokens_per_batch * config.accumulate)
    looks = updates // config.meter_every + 2 if config.meter_every else 0
    looked = looks * (config.heldout_tokens + config.meter_tokens)
    read = looked + (tokens * min(1.0, config.epochs) if config.loss.reference else 0)
    return costs.tuning(
        config,
        inputs.get("model"),
        seconds=config.epochs * tokens / TRAINED_PER_SECOND + read / costs.READ,
        tokens=config.tokens_per_batch,
        note=f"about {config.epochs * tokens:,.0f} tokens, {config.loss.kind}, {config.method}",
    )


def run(config: Config, inputs: dict[str, Artifact | RawInput], draft: Draft) -> Artifact:
    """Make a model: the whole one, or an adapter on the parent. A killed run goes on from its last checkpoint.

    Raises MaturaError when no pair or thumb is left to learn from, Diverged when the loss is no longer finite.
    """
    from matura.align import doctor
    from matura.evaluate import training_report
    from matura.tokenizer import conversation
    from matura.train import finetuning, preparing, resume

    given = inputs["model"]
    assert isinstance(given, Artifact)
    preparing.check_whole(given)
    format = conversation.load(given.path)
    with resume.deterministic(config.seed):
        model, parent = preparing.prepare(config, given.path, format)
        lesson = _lesson(config, inputs, model, parent, format, draft)
        totals = finetuning.Run(config, model, lesson).go(draft)
    preparing.save(draft.path, model, config, format)
    alarms = doctor.alarms(draft.metrics.rows())
    training_report.write(
        draft.path, "Preferences", totals | {"alarms": alarms}, config.model_dump(mode="json")
    )
    summary = {
        "line": f"{config.loss.kind}, {config.method} on {lesson.counts['learned']:,} pairs and thumbs, "
        f"{totals['tokens']:,} tokens in {totals['steps']} steps{_found(totals, alarms)}",
        **totals,
        **lesson.counts,
        "alarms": alarms,
        "source_quantization": preparing.quantization(config, given),
    }
    return draft.commit(summary, logs=[training_report.FILE])


def _found(totals: dict[str, Any], alarms: list[str]) -> str:
    """What was found on held-out preferences, and what became of the rest, in a few words."""
    from matura.align import doctor

    line = ""
    if "heldout_accuracy" in totals:
        line += f"; {totals['heldout_accuracy']:.1%} of held-out preferences are right"
        line += f" at {totals['heldout_kl']:.3f} nats a token"
    if told := totals["forgetting"]:
        line += f"; general text {told['change']:+.1%} bits per byte"
        if told["stopped"]:
            line += ": stopped"
    return line + doctor.in_short(alarms)


def audit(config: Config, inputs: dict[str, Artifact | RawInput], rows: int) -> "Audit":
    """What would be learned, with `rows` of the answers shown token by token, and what the preferences are made of;
    nothing is trained."""
    from matura.core.conversation_settings import ConversationData
    from matura.data.preferences import loading, selection, statistics
    from matura.model import store
    from matura.tokenizer import conversation
    from matura.train import audit
    from matura.train.material import Material, longest

    loaded = loading.load(inputs["preferences"], config.data)
    said = [
        selection.answered(ranking, one, f"{ranking.id} {name}")
        for ranking in loaded.train
        for name, one in _sides(config, ranking)
    ]
    if not said:
        raise MaturaError(
            "--audit shows pairs, and these preferences have none; answers judged by themselves are for loss.kind=kto"
        )
    format = conversation.load(inputs["model"].path)
    kept: Any = "drop" if config.truncation == "drop" else "keep_start"
    settings = ConversationData(turns="last", truncation=kept)
    material = Material(said, [], {})
    length = longest(config, store.read_config(inputs["model"].path))
    capacity = config.tokens_per_batch
    found = audit.look(material, format, length, settings, rows=rows, capacity=capacity, seed=config.seed)
    return replace(found, about=tuple(statistics.describe(loaded)))


def _sides(config: Config, ranking: Ranking) -> Iterator[tuple[str, Answer]]:
    """What is learned of a ranking: both sides of its pairs; for KTO its thumbs, where it has any."""
    from matura.data.preferences import pairs

    if config.loss.kind == "kto" and any(one.liked is not None for one in ranking.answers):
        yield from (
            ("liked" if one.liked else "disliked", one) for one in ranking.answers if one.liked is not None
        )
        return
    for pair in pairs.of(ranking):
        yield "chosen", pair.chosen
        yield "rejected", pair.rejected


def _lesson(
    config: Config,
    inputs: dict[str, Artifact | RawInput],
    model: "Transformer",
    parent: "Transformer",
    format: "Format",
    draft: Draft,
) -> "Lesson":
    """Batches of what was preferred with their reference, and looks at what is held out."""
    from matura.align import dpo, preference_data
    from matura.data.preferences import loading
    from matura.evaluate.general import meter
    from matura.model.heads import LanguageHead
    from matura.train.finetuning import Lesson
    from matura.train.material import longest, spread
    from matura.train.meter import Looks

    if model.decoder is None or not isinstance(model.head, LanguageHead):
        raise ConfigError(
            f"{inputs['model'].path} writes no text, so it cannot learn which answers are preferred"
        )
    loaded = loading.load(inputs["preferences"], config.data)
    length = longest(config, parent.config)
    made, dropped = preference_data.in_ids(config, loaded.train, format, length)
    if not made:
        raise MaturaError(f"there is nothing to learn from: {preference_data.why_nothing(length, dropped)}")
    looked_at = loaded.heldout if config.meter_every else ()
    heldout = preference_data.in_ids(config, looked_at, format, length).preferred
    held = spread(heldout, config.heldout_tokens, lambda one: one.size)
    identity = f"{inputs['model'].id}/{config.base.model_dump_json()}"
    reference = preference_data.Reference(parent, identity, draft.path, length)
    known, known_held = reference.knows(config, made, held)
    batches = preference_data.batches(config, known, model)
    looks = Looks()
    if config.meter_every:
        also = (dpo.Heldout(known_held, config.loss, parent),) if held else ()
        looks = Looks(None, meter(inputs.get("forgetting.text"), format, parent, config.meter_tokens), also)
    objective = dpo.Objective(config.loss)
    counts = {
        **loaded.found,
        "prompts": len(made),
        "learned": sum(one.trained for one in made),
        "heldout": sum(one.trained for one in held),
        "dropped_pairs": dict(sorted(dropped.items())),
    }
    return Lesson(
        batches,
        objective,
        looks,
        counts,
        steps=batches.updates(config.epochs),
        accumulate=config.accumulate,
        notes=objective.notes,
    )
