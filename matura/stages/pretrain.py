"""Token shards to a model: pre-training from first weights, on one processor or on many."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from matura.core import config
from matura.core import pretrain_settings as settings
from matura.core.artifact import Artifact, Draft, RawInput
from matura.core.config import Input
from matura.core.plan import Estimate
from matura.core.settings import OptimizerConfig, ParallelConfig, PrecisionName, Recompute

if TYPE_CHECKING:
    from matura.model.transformer import Transformer
    from matura.train.pretraining import Material, Task

KIND = "model"
VERSION = 1
TOGETHER = True
"""Several processes may run this stage as one (see `core/follow.py`)."""
SHOWN_PAIRS = 4
OPTIMIZER = OptimizerConfig(
    kind="muon", lr=0.02, schedule="wsd", warmup=0.02, decay=0.5, final=0.0, weight_decay=0.0
)


class Config(config.Config):
    """The model, what it reads, what it learns to do, and how."""

    tokens: Annotated[str, Input("tokens")] = Field(description="Token shards, as `encode` writes them")
    pairs: Annotated[str | None, Input("conversations")] = Field(
        None, description="Questions and answers for `translate`: the first exchange of each conversation"
    )
    shape: settings.Shape = settings.Shape()
    objectives: dict[settings.ObjectiveName, float] = Field(
        {}, description="Objectives and their shares of the tokens; empty: the one that suits the shape"
    )
    masking: settings.Masking = settings.Masking()
    spans: settings.Spans = settings.Spans()
    loss: settings.Loss = settings.Loss()
    sources: dict[str, float] = Field(
        {}, description="Sources and their shares of the tokens; empty: one shuffle of everything"
    )
    documents: Literal["joined", "separate"] = Field(
        "joined", description="Whether a token may look at earlier documents in its row"
    )
    sizes: settings.Sizes = settings.Sizes()
    optimizer: OptimizerConfig = OPTIMIZER
    rate: Literal["by_width", "as_given"] = Field(
        "by_width",
        description="by_width: optimizer.lr is that of width 128 and falls with the root of the width",
    )
    watch: settings.Watch = settings.Watch()
    spikes: settings.Spikes = settings.Spikes()
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="cpu, cuda or cuda:N")
    precision: PrecisionName = Field("auto", description="Dtype of products; weights are always float32")
    activation_checkpointing: Recompute = Field(
        "none",
        description="Blocks whose inside is computed again in the backward pass: none, full, or every n-th",
    )
    compile: settings.OnOff = Field("off", description="torch.compile for every block; needs a compiler")
    parallel: ParallelConfig = Field(
        ParallelConfig(), description="How the processes of torchrun share the work"
    )
    save_every: int = Field(100, ge=1, description="Updates between checkpoints")
    seed: int = Field(0, description="First weights and the order of the data")

    @model_validator(mode="after")
    def _suits(self) -> "Config":
        for name, share in self.objectives.items():
            wanted = settings.SUITABLE[name]
            if self.shape.kind != wanted:
                raise ValueError(f"objectives: {name} is for shape.kind={wanted}, not {self.shape.kind}")
            if not share > 0:
                raise ValueError(f"objectives.{name}: a share must be above zero (leave it out for none)")
        if "translate" in self.objectives and self.pairs is None:
            raise ValueError("objectives: translate needs `pairs`")
        if self.pairs is not None and "translate" not in self.objectives:
            raise ValueError("pairs are read by the objective translate: add it to objectives")
        for source, share in self.sources.items():
            if not share > 0:
                raise ValueError(f"sources.{source}: a share must be above zero (leave it out for none)")
        return self

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> "Config":
        """Settings that nothing would read are refused: who gives them expects that they do something."""
        kind, given = self.shape.kind, self.optimizer
        both, pairs_alone = kind == "encoder-decoder", set(self.objectives) == {"translate"}
        unread = (
            (kind != "encoder" and self.masking.changed_besides(), "masking is for shape.kind=encoder"),
            (
                (pairs_alone or not both) and self.spans.changed_besides(),
                "spans are for the objective denoise, of shape.kind=encoder-decoder",
            ),
            (
                both and self.documents == "separate",
                "documents=separate is for decoders and encoders: spans want rows of one length",
            ),
            (pairs_alone and self.sources, "sources are of `tokens`, and translate reads `pairs`"),
            (
                kind != "decoder" and self.watch.changed("samples"),
                "watch.samples are beginnings that a decoder continues",
            ),
            (
                given.schedule != "wsd" and given.decay != OPTIMIZER.decay,
                "optimizer.decay is for schedule=wsd",
            ),
            (
                given.kind != "muon" and given.momentum != OPTIMIZER.momentum,
                "optimizer.momentum is for kind=muon",
            ),
        )
        for is_given, message in unread:
            if is_given:
                raise ValueError(f"{message}: leave it out")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> "Config":
        """A shape that cannot be built is found here, not when everything before this stage has been made."""
        from matura.model.shape import model_config

        try:
            model_config(self.shape, 1, self.sizes.sequence, 0)
        except ValidationError as error:
            told = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
            raise ValueError(f"shape: {told}") from error
        return self


def estimate(config: Config, inputs: dict[str, Artifact | RawInput | None]) -> Estimate:
    """Parameters, tokens, operations, memory, time and cost, here and on accelerators."""
    from matura.train import plan

    return plan.plan(config, inputs.get("tokens"))


def run(config: Config, inputs: dict[str, Artifact | RawInput], draft: Draft) -> Artifact:
    """Make a model. A killed run goes on from its last checkpoint, bit for bit where one process trains alone.

    Writes model.json, model.safetensors, the tokenizer with its conversation format, samples.jsonl and report.html.
    Raises MaturaError for text that is too short or a tokenizer that does not suit, Diverged when training stays
    unstable.
    """
    from matura.align import doctor
    from matura.evaluate import training_report
    from matura.model import store
    from matura.model.allocator import keep_freed_memory
    from matura.train import parallel, plan, resume, watch
    from matura.train.precision import check_device
    from matura.train.samples import SAMPLES, read_samples
    from matura.train.training import Run

    check_device(config.device)
    keep_freed_memory()
    material, task, fresh = _material(config, inputs), _task(config), not any(draft.resume.iterdir())
    with parallel.start(config.parallel, config.device) as ranks, resume.deterministic(config.seed):
        if fresh:
            material.shards.verify(ranks.rank, ranks.world)
        training = Run.prepare(config, material, task, ranks)
        totals = training.go(draft, lambda model: _samples(config, model, material))
        weights = training.weights()
        if ranks.rank == 0:
            store.save_tensors(draft.path, training.model.config, weights)
            material.format.save(draft.path)
            totals["alarms"] = watch.alarms(draft.metrics.rows())
            given, samples = config.model_dump(mode="json"), read_samples(draft.path)
            training_report.write(draft.path, "Pre-training", totals, given, samples)
    figures = ", ".join(f"{name} {value:.4g}" for name, value in totals["heldout"].items())
    line = (
        f"{plan.shown(totals['parameters'])} parameters, {plan.shown(totals['tokens'])} tokens in "
        f"{totals['steps']:,} steps; {figures}{doctor.in_short(totals.get('alarms', ()))}"
    )
    return draft.commit({"line": line, **totals}, logs=(SAMPLES, training_report.FILE))


def _material(config: Config, inputs: dict[str, Artifact | RawInput]) -> "Material":
    """What there is to learn from."""
    from matura.core.files import hash_file
    from matura.core.records import read_conversations
    from matura.data import shards as token_shards
    from matura.tokenizer import conversation
    from matura.tokenizer.tokenizer import FILE
    from matura.train.pretraining import Material

    tokens, pairs = inputs["tokens"], inputs.get("pairs")
    assert isinstance(tokens, Artifact)
    format = conversation.load(tokens.path / "tokenizer")
    shards = token_shards.load(tokens.path)
    shards.check_vocabulary(hash_file(tokens.path / "tokenizer" / FILE), format.tokenizer.vocab_size)
    if not isinstance(pairs, Artifact):
        return Material(shards, format)
    train, heldout = (
        tuple(read_conversations(pairs.file(name))) for name in ("train.jsonl", "heldout.jsonl")
    )
    return Material(shards, format, train, heldout)


def _task(config: Config) -> "Task":
    from matura.train.pretraining import DEFAULT_OBJECTIVE, Task

    shares = config.objectives or {DEFAULT_OBJECTIVE[config.shape.kind]: 1.0}
    return Task(shares, config.masking, config.spans, config.documents, config.sources)


def _samples(config: Config, model: "Transformer", material: "Material") -> list[dict[str, str]]:
    """What a decoder writes after each of the beginnings; what an encoder-decoder answers to held-out questions."""
    from matura.core.settings import Sampling
    from matura.infer.engine import Request
    from matura.infer.text import answers

    format, length = material.format, config.watch.sample_tokens
    requests: dict[str, Request] = {}
    if config.shape.kind == "decoder" and length:
        sampling = Sampling(max_new_tokens=length, temperature=0.8, top_p=0.95)
        begin = [] if format.begin_id is None else [format.begin_id]
        for prompt in config.watch.samples:
            if ids := [*begin, *format.tokenizer.encode(prompt)]:
                requests[prompt] = Request(ids, sampling, format.stop_ids)
    elif material.heldout_pairs and length:
        end, sampling = format.tokenizer.eos_id, Sampling(max_new_tokens=length, temperature=0.0)
        assert end is not None  # or `pairs.from_conversations` would have raised
        for row in material.heldout_pairs[:SHOWN_PAIRS]:
            prompt = next((one["content"] for one in row.messages if one["role"] == "user"), "")
            source = [*format.tokenizer.encode(prompt), end]
            requests[prompt] = Request(sampling=sampling, stop_ids=[end], source=source)
    made = answers(model, format.tokenizer, list(requests.values()))
    return [{"prompt": prompt, "text": one.text} for prompt, one in zip(requests, made, strict=True)]
