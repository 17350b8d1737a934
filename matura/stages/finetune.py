"""Teach a model documents, conversations or labels, with replay of what it knew.

`corpus` is domain-adaptive training (every token of the documents), `conversations` is supervised fine-tuning (the
answers only), `labelled` trains a head that tells labels apart: files of one's own, or what another stage wrote. Each
update mixes a fixed share of replay. `--audit` shows what would be trained, and trains nothing.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from matura.core import costs, peft_settings
from matura.core.artifact import Artifact, Draft, RawInput
from matura.core.config import Input
from matura.core.conversation_settings import ConversationData
from matura.core.errors import ConfigError, MaturaError
from matura.core.forgetting_settings import Forgetting, check_looks, without_unread_text
from matura.core.inputs import inputs_of, located
from matura.core.plan import Estimate
from matura.core.settings import Recompute

if TYPE_CHECKING:
    from matura.core.workspace import Workspace
    from matura.model.transformer import Transformer
    from matura.tokenizer.conversation import Format
    from matura.train.audit import Audit
    from matura.train.finetuning import Lesson
    from matura.train.material import Material
    from matura.train.meter import Looks

KIND = "model"
VERSION = 8
LEARNED = {"corpus": "documents", "conversations": "conversations", "labelled": "labels"}
"""Setting -> what is learned from it."""
WRITERS_ONLY = {"replay": None, "data": ConversationData(), "forgetting": Forgetting(text=None)}
"""Settings that mean nothing to labelled texts -> what they are when not given."""


class Config(peft_settings.Tuning):
    """What to learn from, how much, and how."""

    model: Annotated[str, Input("model")] = Field(description="The model that learns")
    corpus: Annotated[str | None, Input("corpus")] = Field(
        None, description="Documents to learn: every token"
    )
    vocabulary: peft_settings.Vocabulary = peft_settings.Vocabulary()
    conversations: Annotated[str | None, Input("conversations", "preferences", "raw")] = Field(
        None,
        description="Conversations to learn: the assistant's answers. Files of your own, hf:organisation/dataset, or "
        "what another stage wrote; of what `rank` judged, the best answer to each prompt",
    )
    prompt: Annotated[str | None, Input("prompt", "raw")] = Field(
        None,
        description="What `matura prompt` made, or a prompt.yaml: its system text and template are put around the "
        "conversations",
    )
    prompt_examples: bool = Field(
        False, description="The prompt's examples are shown too; they are never trained"
    )
    data: ConversationData = Field(ConversationData(), description="How conversations are read and cut")
    labelled: Annotated[str | None, Input("corpus", "raw")] = Field(
        None,
        description='Texts to tell apart: a JSONL file of {"text": ..., "label": ...}, or a corpus whose sources are '
        "the labels",
    )
    replay: Annotated[str | None, Input("conversations", "corpus")] = Field(
        None, description="What `synthesize` wrote, or a corpus the model knows, mixed in against forgetting"
    )
    replay_share: float = Field(0.25, ge=0, lt=1, description="Share of replay in the tokens of every update")
    optimizer: peft_settings.TuningOptimizer = Field(
        peft_settings.TuningOptimizer(), description="AdamW and its schedule"
    )
    tokens: int = Field(30_000, ge=1, description="Training tokens in all, replay included")
    tokens_per_step: int = Field(1024, ge=16, description="Tokens in one update")
    sequence: int = Field(512, ge=8, description="Longest example in tokens; at most the model's context")
    forgetting: Forgetting = Forgetting()
    meter_every: int = Field(
        20, ge=0, description="Steps between looks at held-out and general text; 0 for none"
    )
    meter_tokens: int = Field(1024, ge=64, description="Held-out tokens of each kind in one look")
    save_every: int = Field(5, ge=1, description="Steps between checkpoints")
    recompute: Recompute = Field(
        "none",
        description="Blocks whose activations are computed again instead of kept: none, full, every n-th",
    )
    seed: int = Field(0, description="Order of the data, and the start of the updates")

    @model_validator(mode="before")
    @classmethod
    def _general_text(cls, values: Any) -> Any:
        given = values if isinstance(values, dict) else {}
        unread = given.get("replay") or given.get("labelled") or given.get("meter_every") == 0
        return without_unread_text(values, "forgetting", bool(unread))

    @model_validator(mode="after")
    def _something_to_learn(self) -> "Config":
        if sum(getattr(self, name) is not None for name in LEARNED) != 1:
            raise ValueError("give either a corpus or conversations or labelled texts to learn from")
        given = [name for name, unused in WRITERS_ONLY.items() if getattr(self, name) != unused]
        if self.labelled is not None and given:
            raise ValueError(
                f"{given[0]} is for a model that writes; labelled texts train one that tells labels apart"
            )
        return self

    @model_validator(mode="after")
    def _prompt_has_conversations(self) -> "Config":
        if self.prompt is not None and self.conversations is None:
            raise ValueError("prompt is for conversations; what else is learned is learned as it is")
        if self.prompt is None and self.prompt_examples:
            raise ValueError("prompt_examples would do nothing without a prompt")
        return self

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> "Config":
        if self.replay is None and self.replay_share and self.changed("replay_share"):
            raise ValueError("replay_share would do nothing without replay")
        cut = self.data.changed("turns", "truncation")
        if self.corpus is not None and self.replay is None and cut:
            raise ValueError(f"data.{cut[0]} is for conversations; of a corpus every token is learned")
        if self.vocabulary.add and (self.corpus is None or self.method != "full"):
            raise ValueError(
                "vocabulary.add is for documents that train all weights: give corpus and method=full"
            )
        check_looks(self, "meter_tokens")
        return self

    @model_validator(mode="after")
    def _anchored_to_something(self) -> "Config":
        asked, replay = self.forgetting, self.replay is not None and self.replay_share > 0
        if asked.kl and asked.kl_on != "new" and not replay:
            raise ValueError(f"forgetting.kl_on={asked.kl_on} needs replay; without it, take kl_on=new")
        if asked.l2 and self.method in ("prefix", "bottleneck"):
            raise ValueError(
                f"forgetting.l2 is a distance from the parent's weights, and method={self.method} trains weights that "
                "it does not have; take forgetting.kl"
            )
        if asked.limit is not None and not (self.meter_every and (self.replay or asked.text)):
            raise ValueError("forgetting.limit needs the meter: meter_every, and replay or forgetting.text")
        return self

    @property
    def source(self) -> str:
        """The setting that says what is learned from."""
        return next(name for name in LEARNED if getattr(self, name) is not None)


def raw_input(config: Config, setting: str, workspace: "Workspace | None" = None) -> Path:
    """Where general text or the files to learn from are on this machine; what is far away is fetched first."""
    from matura.data import reading

    if setting == "conversations":
        return reading.located(inputs_of(config)[setting], workspace)
    return located(config, setting, workspace)


def estimate(config: Config, inputs: dict[str, Artifact | RawInput | None]) -> Estimate:
    """Time from the tokens that are trained and looked at; memory for weights, gradients, moments and activations."""
    looks = config.tokens / (config.tokens_per_step * config.meter_every) + 3 if config.meter_every else 0
    anchored = config.tokens if config.forgetting.kl else 0
    read = 2 * config.meter_tokens * looks + anchored
    return costs.tuning(
        config,
        inputs.get("model"),
        seconds=config.tokens / costs.TRAINED[config.method] + read / costs.READ,
        tokens=config.tokens_per_step,
        note=f"{config.tokens:,} tokens, {config.method}",
    )


def run(config: Config, inputs: dict[str, Artifact | RawInput], draft: Draft) -> Artifact:
    """Make a model: the whole one, or an adapter on the parent. A killed run goes on from its last checkpoint.

    Raises MaturaError when there is nothing to train on, Diverged when the loss is no longer finite.
    """
    from matura.evaluate import training_report
    from matura.tokenizer import conversation
    from matura.train import finetuning, larger, material, preparing, resume

    given = inputs["model"]
    assert isinstance(given, Artifact)
    preparing.check_whole(given)
    grown = larger.vocabulary(config.vocabulary, inputs, conversation.load(given.path))
    format = grown.format
    with resume.deterministic(config.seed):
        model, parent = preparing.prepare(config, given.path, format, grown.pieces)
        if config.labelled is None:
            lesson = _writing(config, inputs, model, parent, format)
        else:
            lesson = _labels(
                config, inputs["labelled"], model, format, material.longest(config, parent.config)
            )
        totals = finetuning.Run(config, model, lesson).go(draft)
    preparing.save(draft.path, model, config, format)
    training_report.write(draft.path, "Fine-tuning", totals, config.model_dump(mode="json"))
    summary = {
        "line": f"{config.method} on {LEARNED[config.source]}, {totals['tokens']:,} tokens in {totals['steps']} steps, "
        f"loss {totals['loss']:.3f}{_found(totals)}",
        **totals,
        **lesson.counts,
        **larger.told(grown),
        "source_quantization": preparing.quantization(config, given),
    }
    return draft.commit(summary, logs=[training_report.FILE])


def _found(totals: dict[str, Any]) -> str:
    """What was found on held-out labels, and what became of general text, in a few words."""
    if "heldout_accuracy" in totals:
        return f"; {totals['heldout_accuracy']:.1%} of held-out labels are right"
    told = totals["forgetting"]
    if told is None:
        return ""
    line = f"; general text {told['change']:+.1%} bits per byte, KL {told['kl']:.3f}"
    if told["stopped"]:
        line += ": stopped"
    if told["weights_of_step"] != totals["steps"]:
        line += f", weights of step {told['weights_of_step']} kept"
    return line


def audit(config: Config, inputs: dict[str, Artifact | RawInput], rows: int) -> "Audit":
    """What would be trained, with `rows` of the material shown token by token; nothing is trained."""
    from matura.model import store
    from matura.tokenizer import conversation
    from matura.train import audit, larger, material

    if config.labelled is not None:
        raise ConfigError("--audit shows what of a text is trained; labelled texts are only read")
    format = larger.vocabulary(config.vocabulary, inputs, conversation.load(inputs["model"].path)).format
    length = material.longest(config, store.read_config(inputs["model"].path))
    main = _material(config, inputs)[config.source]
    room = _room(config)
    length = min(length, room)
    return audit.look(main, format, length, config.data, rows=rows, capacity=room, seed=config.seed)


def _material(config: Config, inputs: dict[str, Artifact | RawInput]) -> "dict[str, Material]":
    """What is learned from, by the name of its setting."""
    from matura.tokenizer import prompt as prompts
    from matura.train import material

    material.check_settings(config.data, inputs.get("conversations"))
    names = [name for name in ("corpus", "conversations", "replay") if name in inputs]
    found: dict[str, Material] = {name: material.read(inputs[name], config.data) for name in names}
    if (given := inputs.get("prompt")) is not None:
        prompt = prompts.read(given)
        found["conversations"] = material.prompted(
            found["conversations"], prompt, examples=config.prompt_examples
        )
    return found


def _room(config: Config) -> int:
    """Tokens of an update that are not replay."""
    return round(config.tokens_per_step * (1 - (config.replay_share if config.replay else 0.0)))


def _writing(
    config: Config,
    inputs: dict[str, Artifact | RawInput],
    model: "Transformer",
    parent: "Transformer",
    format: "Format",
) -> "Lesson":
    """Documents or conversations with replay, held near the parent."""
    from matura.model.heads import LanguageHead
    from matura.train import anchors
    from matura.train.batches import packing
    from matura.train.finetuning import Lesson
    from matura.train.material import longest, mixed

    if model.decoder is None or not isinstance(model.head, LanguageHead):
        raise ConfigError(f"{inputs['model'].path} writes no text; give labelled texts, or another model")
    length = longest(config, parent.config)
    material = _material(config, inputs)
    batches, counts = mixed(
        material[config.source],
        material.get("replay"),
        format,
        config.data,
        tokens=config.tokens_per_step,
        room=_room(config),
        length=length,
        seed=config.seed,
        pack=packing(model),
    )
    objective = anchors.objective(config.forgetting, model, parent)
    return Lesson(batches, objective, _looks(config, material, inputs, format, parent, length), counts)


def _looks(
    config: Config,
    material: "dict[str, Material]",
    inputs: dict[str, Artifact | RawInput],
    format: "Format",
    parent: "Transformer",
    length: int,
) -> "Looks":
    """A little held-out text of each kind: what is learned, and what should not be forgotten."""
    from matura.evaluate.general import control_texts
    from matura.train.batches import pack
    from matura.train.material import make, spread
    from matura.train.meter import Looks, Meter, Text

    if not config.meter_every:
        return Looks()
    held = {name: make(one.heldout, format, length, config.data).examples for name, one in material.items()}
    learned = spread(held[config.source], config.meter_tokens)
    wheel = inputs.get("forgetting.text")
    rest = control_texts(wheel, format, length) if wheel else held.get("replay", [])
    text = Text.of(spread(rest, config.meter_tokens), format.tokenizer)
    if not text.bytes and config.forgetting.limit is not None:
        raise MaturaError("forgetting.limit needs general text, and the held-out part of replay is empty")
    return Looks(pack(learned) if learned else None, Meter(text, parent) if text.bytes else None)


def _labels(
    config: Config, source: Artifact | RawInput, model: "Transformer", format: "Format", length: int
) -> "Lesson":
    """Labelled texts, a tenth of them held out; the model gets the head that tells them apart."""
    from matura.core.labelled import read_labelled, read_labelled_corpus
    from matura.infer.reading import clipped
    from matura.model.classifying import head_for, set_head
    from matura.train.batches import PackedBatches
    from matura.train.finetuning import Lesson
    from matura.train.labels import Labelled, label_loss, pack_labels
    from matura.train.material import rows, spread
    from matura.train.meter import Looks

    texts = read_labelled(source.path) if isinstance(source, RawInput) else read_labelled_corpus(source)
    names = tuple(sorted({one.label for one in texts}))
    set_head(model, head_for(model.config, names), config.seed)
    assert model.head is not None
    model.head.requires_grad_(True)
    length = min(length, config.tokens_per_step)
    ids, cut = clipped(format.tokenizer, [one.text for one in texts], length)
    sides: dict[bool, list[Labelled]] = {True: [], False: []}
    for one, its in zip(texts, ids, strict=True):
        sides[one.is_heldout].append(Labelled(tuple(its), names.index(one.label)))
    learned = rows("learn from", sides[False], config.tokens_per_step, config.seed)
    held = spread(sides[True], config.meter_tokens) if config.meter_every else []
    counts = {"examples": len(sides[False]), "heldout": len(sides[True]), "cut": len(cut), "labels": names}
    looks = Looks(pack_labels(held) if held else None)
    return Lesson(PackedBatches([learned], pack=pack_labels), label_loss, looks, counts)
