"""Teach a model documents or conversations, with replay of what it knew.

`corpus` is domain-adaptive training (every token of the documents), `conversations` is supervised fine-tuning (the
answers only): files of one's own, or what another stage wrote. Each update mixes a fixed share of replay. `--audit`
shows what would be trained, and trains nothing.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from matura.core import config, wheels
from matura.core.artifact import Artifact, Draft, RawInput
from matura.core.config import Input
from matura.core.conversation_settings import ConversationData
from matura.core.errors import ConfigError, MaturaError
from matura.core.forgetting_settings import Forgetting, without_unread_text
from matura.core.plan import Estimate
from matura.core.settings import LoraConfig, OptimizerConfig

if TYPE_CHECKING:
    from matura.core.workspace import Workspace
    from matura.model.transformer import Transformer
    from matura.tokenizer.conversation import Format
    from matura.train.audit import Audit
    from matura.train.batches import PackedBatches, Rows
    from matura.train.examples import Made
    from matura.train.material import Material
    from matura.train.meter import Looks

KIND = "model"
VERSION = 5
MAX_REMOTE = 64 << 30  # bytes of a dataset
TOKENS_PER_SECOND = {"lora": 180.0, "full": 120.0}  # a 135M model on 2 cores
READ_PER_SECOND = 450.0  # without training on it


class Config(config.Config):
    """What to learn from, how much, and how."""

    model: Annotated[str, Input("model")] = Field(description="The model that learns")
    corpus: Annotated[str | None, Input("corpus")] = Field(
        None, description="Documents to learn: every token"
    )
    conversations: Annotated[str | None, Input("conversations", "raw")] = Field(
        None,
        description="Conversations to learn: the assistant's answers. Files of your own, hf:organisation/dataset, or "
        "what another stage wrote",
    )
    data: ConversationData = Field(ConversationData(), description="How conversations are read and cut")
    replay: Annotated[str | None, Input("conversations")] = Field(
        None, description="What `synthesize` wrote, mixed in against forgetting"
    )
    replay_share: float = Field(0.25, ge=0, lt=1, description="Share of replay in the tokens of every update")
    method: Literal["lora", "full"] = Field("lora", description="Train low-rank updates, or all weights")
    lora: LoraConfig = Field(LoraConfig(), description="For method=lora")
    optimizer: OptimizerConfig = Field(OptimizerConfig(), description="AdamW and its schedule")
    tokens: int = Field(30_000, ge=1, description="Training tokens in all, replay included")
    tokens_per_step: int = Field(1024, ge=16, description="Tokens in one update")
    sequence: int = Field(512, ge=8, description="Longest example in tokens")
    forgetting: Forgetting = Forgetting()
    meter_every: int = Field(
        20, ge=0, description="Steps between looks at held-out and general text; 0 for none"
    )
    meter_tokens: int = Field(1024, ge=64, description="Held-out tokens of each kind in one look")
    save_every: int = Field(5, ge=1, description="Steps between checkpoints")
    seed: int = Field(0, description="Order of the data, and the start of the updates")

    @model_validator(mode="before")
    @classmethod
    def _general_text(cls, values: Any) -> Any:
        unread = isinstance(values, dict) and (values.get("replay") or values.get("meter_every") == 0)
        return without_unread_text(values, "forgetting", bool(unread))

    @model_validator(mode="after")
    def _something_to_learn(self) -> "Config":
        if (self.corpus is None) == (self.conversations is None):
            raise ValueError("give either a corpus or conversations to learn from")
        return self

    @model_validator(mode="after")
    def _anchored_to_something(self) -> "Config":
        asked, replay = self.forgetting, self.replay is not None and self.replay_share > 0
        if asked.kl and asked.kl_on != "new" and not replay:
            raise ValueError(f"forgetting.kl_on={asked.kl_on} needs replay; without it, take kl_on=new")
        if asked.limit is not None and not (self.meter_every and (self.replay or asked.text)):
            raise ValueError("forgetting.limit needs the meter: meter_every, and replay or forgetting.text")
        return self


def raw_input(config: Config, setting: str, workspace: "Workspace | None" = None) -> Path:
    """Where general text or the files of conversations are on this machine; what is far away is fetched first."""
    from matura.core.workspace import Workspace
    from matura.data import reading

    downloads = (workspace or Workspace()).downloads
    if setting == "forgetting.text":
        assert config.forgetting.text is not None
        return wheels.located(config.forgetting.text, downloads)
    assert config.conversations is not None
    if not reading.is_remote(config.conversations):
        return Path(config.conversations).expanduser()
    return reading.fetch(config.conversations, downloads, max_bytes=MAX_REMOTE)


def estimate(config: Config, inputs: dict[str, Artifact | RawInput | None]) -> Estimate:
    """Time from the tokens that are trained and looked at; memory for weights, gradients, moments and activations."""
    model = inputs.get("model")
    size = (
        sum(f["bytes"] for f in model.record["files"].values()) if isinstance(model, Artifact) else 540 << 20
    )
    full = config.method == "full"
    looks = config.tokens / (config.tokens_per_step * config.meter_every) + 3 if config.meter_every else 0
    anchored = config.tokens if config.forgetting.kl else 0
    return Estimate(
        seconds=config.tokens / TOKENS_PER_SECOND[config.method]
        + (2 * config.meter_tokens * looks + anchored) / READ_PER_SECOND,
        memory_bytes=size * (4 if full else 1) + config.tokens_per_step * (2 << 20),
        disk_bytes=size * 4 if full else size // 8,
        note=f"{config.tokens:,} tokens, {config.method}",
    )


def run(config: Config, inputs: dict[str, Artifact | RawInput], draft: Draft) -> Artifact:
    """Make a model: the whole one, or LoRA updates on the parent. A killed run goes on from its last checkpoint.

    Raises MaturaError when there is nothing to train on, Diverged when the loss is no longer finite.
    """
    from matura.evaluate import training_report
    from matura.model import store
    from matura.model.allocator import keep_freed_memory
    from matura.model.peft.lora import apply_lora
    from matura.tokenizer import conversation
    from matura.train import finetuning, resume

    parent = inputs["model"]
    assert isinstance(parent, Artifact)
    if store.adapter_settings(parent.path) is not None:
        raise ConfigError(
            f"{parent.path} has LoRA updates already: merge it first (`matura merge model={parent.path}`)"
        )
    keep_freed_memory()
    format = conversation.load(parent.path)
    material = _material(config, inputs)
    batches, counts = _batches(config, material, format)
    with resume.deterministic(config.seed):
        model = store.load(parent.path)
        if config.method == "lora":
            apply_lora(model, config.lora, config.seed)
        # The weights of a second model are the file's own memory.
        before = store.load(parent.path)
        looks = _looks(config, material, inputs, format, before)
        totals = finetuning.Run(config, model, before, batches, looks).go(draft)
    if config.method == "lora":
        store.save_adapter(draft.path, model, config.lora)
    else:
        store.save(draft.path, model)
    format.save(draft.path)
    training_report.write(draft.path, "Fine-tuning", totals, config.model_dump(mode="json"))
    learned = "documents" if config.corpus else "conversations"
    summary = {
        "line": f"{config.method} on {learned}, {totals['tokens']:,} tokens in {totals['steps']} steps, "
        f"loss {totals['loss']:.3f}{_kept(totals)}",
        **totals,
        **counts,
        "source_quantization": parent.summary.get("source_quantization"),
    }
    return draft.commit(summary, logs=[training_report.FILE])


def _kept(totals: dict[str, Any]) -> str:
    """What became of general text, in a few words."""
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
    from matura.tokenizer import conversation
    from matura.train import audit

    format = conversation.load(inputs["model"].path)
    material = _material(config, inputs)
    room, length = _room(config)
    main = "corpus" if config.corpus else "conversations"
    return audit.look(material[main], format, length, config.data, rows=rows, capacity=room, seed=config.seed)


def _material(config: Config, inputs: dict[str, Artifact | RawInput]) -> "dict[str, Material]":
    """What is learned from, by the name of its setting."""
    from matura.train import material

    material.check_settings(config.data, inputs.get("conversations"))
    names = [name for name in ("corpus", "conversations", "replay") if name in inputs]
    return {name: material.read(inputs[name], config.data) for name in names}


def _room(config: Config) -> tuple[int, int]:
    """Tokens of an update that are not replay, and the longest example."""
    share = config.replay_share if config.replay else 0.0
    room = round(config.tokens_per_step * (1 - share))
    return room, min(config.sequence, room)


def _batches(
    config: Config, material: "dict[str, Material]", format: "Format"
) -> tuple["PackedBatches", dict[str, Any]]:
    """The mixture of every update, and what it is made of."""
    from matura.train.batches import PackedBatches
    from matura.train.material import make

    room, length = _room(config)
    main = material["corpus" if config.corpus else "conversations"]
    made = make(main.train, format, length, config.data)
    counts: dict[str, Any] = {
        "examples": len(made.examples),
        "dropped_rows": made.dropped.total(),
        "dropped": dict(sorted(made.dropped.items())),
        **main.found,
    }
    sources = [_rows("learn from", made, room, config.seed)]
    if room < config.tokens_per_step:
        rest = config.tokens_per_step - room
        replay = make(material["replay"].train, format, min(config.sequence, rest), config.data)
        sources.append(_rows("replay", replay, rest, config.seed + 1))
        counts |= {
            "replay_examples": len(replay.examples),
            "replay_dropped_rows": replay.dropped.total(),
        }
    counts["fill"] = [round(source.fill, 4) for source in sources]
    return PackedBatches(sources), counts


def _rows(what: str, made: "Made", tokens: int, seed: int) -> "Rows":
    from matura.train.batches import Rows

    if not any(example.trained for example in made.examples):
        why = ", ".join(f"{n:,} {reason}" for reason, n in made.dropped.items()) or "no rows"
        raise MaturaError(
            f"there is nothing to {what}: no example has a trained token left after cutting to length ({why})"
        )
    return Rows(made.examples, tokens=tokens, seed=seed)


def _looks(
    config: Config,
    material: "dict[str, Material]",
    inputs: dict[str, Artifact | RawInput],
    format: "Format",
    parent: "Transformer",
) -> "Looks":
    """A little held-out text of each kind: what is learned, and what should not be forgotten."""
    from matura.evaluate.general import control_texts
    from matura.train.batches import pack
    from matura.train.material import make, spread
    from matura.train.meter import Looks, Meter, Text

    if not config.meter_every:
        return Looks()
    held = {
        name: make(one.heldout, format, config.sequence, config.data).examples
        for name, one in material.items()
    }
    learned = spread(held["corpus" if config.corpus else "conversations"], config.meter_tokens)
    wheel = inputs.get("forgetting.text")
    rest = control_texts(wheel, format, config.sequence) if wheel else held.get("replay", [])
    text = Text.of(spread(rest, config.meter_tokens), format.tokenizer)
    if not text.bytes and config.forgetting.limit is not None:
        raise MaturaError("forgetting.limit needs general text, and the held-out part of replay is empty")
    return Looks(pack(learned) if learned else None, Meter(text, parent) if text.bytes else None)
