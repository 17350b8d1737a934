"""Teach a model documents or conversations, with replay of what it knew.

`corpus` is domain-adaptive training (every token of the documents), `conversations` is supervised fine-tuning (the
answers only): files of one's own, or what another stage wrote. Each update mixes a fixed share of replay. `--audit`
shows what would be trained, and trains nothing.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from matura.core import config
from matura.core.artifact import Artifact, Draft, RawInput
from matura.core.config import Input
from matura.core.conversation_settings import ConversationData
from matura.core.errors import ConfigError, MaturaError
from matura.core.metrics import progress
from matura.core.plan import Estimate
from matura.core.settings import LoraConfig, OptimizerConfig

if TYPE_CHECKING:
    from matura.core.workspace import Workspace
    from matura.model.transformer import Transformer
    from matura.tokenizer.conversation import Format
    from matura.train.audit import Audit
    from matura.train.batches import Example, PackedBatches, Rows
    from matura.train.examples import Made
    from matura.train.material import Material

KIND = "model"
VERSION = 4
MAX_REMOTE = 64 << 30  # bytes of a dataset
TOKENS_PER_SECOND = {"lora": 180.0, "full": 120.0}  # a 135M model on 2 cores


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
    prompt: Annotated[str | None, Input("prompt", "raw")] = Field(
        None,
        description="What `matura prompt` made, or a prompt.yaml: its system text and template are put around the "
        "conversations",
    )
    prompt_examples: bool = Field(
        False, description="The prompt's examples are shown too; they are never trained"
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
    meter_every: int = Field(20, ge=0, description="Steps between looks at held-out text; 0 for none")
    meter_tokens: int = Field(1024, ge=64, description="Held-out tokens of each kind in one look")
    save_every: int = Field(5, ge=1, description="Steps between checkpoints")
    seed: int = Field(0, description="Order of the data, and the start of the updates")

    @model_validator(mode="after")
    def _prompt_has_conversations(self) -> "Config":
        if self.prompt is not None and self.conversations is None:
            raise ValueError("prompt is for conversations; what else is learned is learned as it is")
        if self.prompt is None and self.prompt_examples:
            raise ValueError("prompt_examples would do nothing without a prompt")
        return self

    @model_validator(mode="after")
    def _something_to_learn(self) -> "Config":
        if (self.corpus is None) == (self.conversations is None):
            raise ValueError("give either a corpus or conversations to learn from")
        return self


def raw_input(config: Config, setting: str, workspace: "Workspace | None" = None) -> Path:
    """Where the files of conversations are on this machine; a dataset of the hub is fetched first."""
    assert config.conversations is not None
    from matura.data import reading

    if not reading.is_remote(config.conversations):
        return Path(config.conversations).expanduser()
    from matura.core.workspace import Workspace

    downloads = (workspace or Workspace()).downloads
    return reading.fetch(config.conversations, downloads, max_bytes=MAX_REMOTE)


def estimate(config: Config, inputs: dict[str, Artifact | RawInput | None]) -> Estimate:
    """Time from the tokens; memory for weights, gradients, moments and activations."""
    model = inputs.get("model")
    size = (
        sum(f["bytes"] for f in model.record["files"].values()) if isinstance(model, Artifact) else 540 << 20
    )
    full = config.method == "full"
    return Estimate(
        seconds=config.tokens / TOKENS_PER_SECOND[config.method],
        memory_bytes=size * (4 if full else 1) + config.tokens_per_step * (2 << 20),
        disk_bytes=size * 4 if full else size // 8,
        note=f"{config.tokens:,} tokens, {config.method}",
    )


def run(config: Config, inputs: dict[str, Artifact | RawInput], draft: Draft) -> Artifact:
    """Make a model: the whole one, or LoRA updates on the parent. A killed run goes on from its last checkpoint.

    Raises MaturaError when there is nothing to train on, Diverged when the loss is no longer finite.
    """
    from matura.model import store
    from matura.model.allocator import keep_freed_memory
    from matura.tokenizer import conversation
    from matura.train import resume

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
        totals = _train(config, model, batches, _meters(config, material, format), draft)
    if config.method == "lora":
        store.save_adapter(draft.path, model, config.lora)
    else:
        store.save(draft.path, model)
    format.save(draft.path)
    learned = "documents" if config.corpus else "conversations"
    summary = {
        "line": f"{config.method} on {learned}, {totals['tokens']:,} tokens in {totals['steps']} steps, "
        f"loss {totals['loss']:.3f}",
        **totals,
        **counts,
        "source_quantization": parent.summary.get("source_quantization"),
    }
    return draft.commit(summary)


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


def _train(
    config: Config,
    model: "Transformer",
    batches: "PackedBatches",
    meters: "dict[str, list[Example]]",
    draft: Draft,
) -> dict[str, Any]:
    """The loop with its log, meters and checkpoints; returns the totals for the summary."""
    from matura.model.peft.lora import apply_lora
    from matura.train import objectives, optim, resume
    from matura.train.loop import train

    if config.method == "lora":
        apply_lora(model, config.lora, config.seed)
    steps = max(1, round(config.tokens / batches.mean_tokens))
    optimizer = optim.build_optimizer(model, config.optimizer)
    schedule = optim.build_schedule(config.optimizer, steps)
    start, tokens, loss = 0, 0, 0.0
    if (resumed := resume.restore(draft.resume, model, optimizer)) is not None:
        start, position = resumed
        tokens, loss = position["tokens"], position["loss"]
        batches.restore(position["batches"])
    draft.metrics.rewind(start)
    if start == 0:
        draft.metrics.log(0, tokens=0, **_look(model, meters))
    with progress("finetune", config.tokens, start=tokens) as bar:
        updates = train(
            model,
            batches,
            objectives.next_token,
            optimizer,
            schedule,
            steps=steps,
            clip=config.optimizer.clip,
            start=start,
        )
        for step in updates:
            tokens, loss = tokens + step.tokens, step.loss
            due = config.meter_every and step.step % config.meter_every == 0
            seen = _look(model, meters) if due or step.step == steps else {}
            draft.metrics.log(
                step.step, tokens=tokens, loss=loss, lr=step.lr, grad_norm=step.grad_norm, **seen
            )
            if step.step % config.save_every == 0 and step.step < steps:
                position = {"batches": batches.state(), "tokens": tokens, "loss": loss}
                resume.save(draft.resume, step.step, model, optimizer, position)
            bar.advance(step.tokens, step=f"{step.step}/{steps}", loss=loss)
    epochs = [round(source.epochs, 3) for source in batches.sources]
    return {"steps": steps, "tokens": tokens, "loss": loss, "epochs": epochs}


def _meters(config: Config, material: "dict[str, Material]", format: "Format") -> "dict[str, list[Example]]":
    """A little held-out text of each kind: what is learned, and what should not be forgotten."""
    from matura.train.material import make, spread

    if not config.meter_every:
        return {}
    meters = {
        "replay_loss" if name == "replay" else "heldout_loss": make(
            one.heldout, format, config.sequence, config.data
        ).examples
        for name, one in material.items()
    }
    return {name: spread(made, config.meter_tokens) for name, made in meters.items() if made}


def _look(model: "Transformer", meters: "dict[str, list[Example]]") -> dict[str, float]:
    """Mean loss in nats per trained token on each held-out set."""
    import torch

    from matura.train.batches import pack
    from matura.train.objectives import next_token

    found = {}
    training = model.training
    model.eval()
    with torch.no_grad():
        for name, made in meters.items():
            batch = pack(made)
            found[name] = float(next_token(model, batch)) / batch.weight
    model.train(training)
    return found
