"""A model writes its own replay, or a teacher writes questions, answers and texts from documents.

Training a model on new documents makes it forget. Mixing in text that stands for what it already knows prevents that
(experience replay), and the closest such text at hand is the model's own. Nobody has to supply prompts: the model
continues its chat template at the user's turn, so it asks the questions too (arXiv:2406.08464), and it writes plain
texts from the begin token.

With `tasks.documents`, a teacher (a model, or an OpenAI-compatible endpoint) writes for a student instead: pairs of
question and answer, rephrasings and continuations of the documents. Filters say what is kept; every record names its
teacher, template, document and seed.

With `program`, nobody writes: a rule draws questions and computes their answers. With `extract.documents`, they
stand in the documents already: patterns find them.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from matura.core import config, costs
from matura.core.artifact import Artifact, Draft, RawInput
from matura.core.config import Input
from matura.core.errors import ConfigError, MaturaError
from matura.core.extract_settings import Extract
from matura.core.metrics import progress
from matura.core.plan import Estimate
from matura.core.records import CUT, Conversation, read_documents, said
from matura.core.settings import Draw
from matura.core.synthesis_settings import Endpoint, Program, Tasks

if TYPE_CHECKING:
    from matura.data.synthesis.answers import Answer, Ask
    from matura.data.synthesis.asking import Writer
    from matura.data.synthesis.making import Asking, Made

KIND = "conversations"
VERSION = 2
TOKENS_PER_SECOND = 130.0  # batched sampling of a 135M model on 2 cores


class Config(config.Config):
    """What to write, and how freely."""

    model: Annotated[str | None, Input("model")] = Field(None, description="The model that writes")
    endpoint: Endpoint = Field(Endpoint(), description="A server that writes instead, from documents only")
    program: Program | None = Field(None, description="A rule that writes instead: no model, no documents")
    count: int = Field(20_000, ge=2, description="Conversations that a program writes, the held out included")
    extract: Extract = Field(Extract(), description="Patterns that find conversations in documents")
    tasks: Tasks = Field(Tasks(), description="What to write from documents, and what to keep of it")
    conversations: int = Field(
        48, ge=0, description="Questions with answers to keep; 0 for a model without chat"
    )
    texts: int = Field(24, ge=0, description="Plain texts to keep")
    heldout: int = Field(12, ge=1, description="Conversations (or texts) of these held out for the exam")
    question: Draw = Field(
        Draw(max_new_tokens=48, temperature=1.0, top_k=200, top_p=0.95),
        description="How questions are sampled",
    )
    answer: Draw = Field(
        Draw(max_new_tokens=128, temperature=0.7, top_k=200, top_p=0.95),
        description="How answers are sampled",
    )
    text: Draw = Field(
        Draw(max_new_tokens=160, temperature=1.0, top_k=200, top_p=0.95),
        description="How plain texts are sampled",
    )
    min_characters: int = Field(20, ge=1, description="Shorter answers and texts are dropped")
    batch: int = Field(24, ge=1, description="Requests that run together")
    seed: int = Field(0, ge=0, description="Another seed writes other text")

    @model_validator(mode="after")
    def _one_writer(self) -> Self:
        if [self.model, self.endpoint.url, self.program, self.extract.documents].count(None) != 3:
            raise ValueError(
                "give one of `model`, `endpoint.url`, `program` and `extract.documents`: who writes?"
            )
        if self.program is not None:
            return self._by_rule()
        if self.extract.documents is not None:
            return self._alone("extract", because="patterns find what stands in documents")
        if self.changed("count"):
            raise ValueError(
                "`count` is for a program; a model has `conversations`, `texts` and `tasks.count`"
            )
        if self.tasks.documents is None:
            if self.model is None:
                raise ValueError("an endpoint writes from documents: give `tasks.documents`")
            if self.tasks != Tasks():
                raise ValueError("`tasks` needs `tasks.documents`, a corpus to write from")
            return self
        if given := self.changed("conversations", "texts", "question", "answer", "text"):
            raise ValueError(f"`{given[0]}` is for replay, without documents; with them see `tasks`")
        given = self.tasks.draw.changed("top_k", "min_p", "repetition_penalty")
        if self.endpoint.url is not None and given:
            raise ValueError(f"an endpoint does not take `tasks.draw.{given[0]}`: leave it out")
        return self

    def _by_rule(self) -> Self:
        self._alone("program", "count", "heldout", "seed", because="a program takes none of it")
        if self.heldout >= self.count:
            raise ValueError(f"`heldout` ({self.heldout}) must be less than `count` ({self.count})")
        return self

    def _alone(self, *names: str, because: str) -> Self:
        """Refuse all other settings, which belong to a model that writes."""
        if given := self.changed_besides(*names):
            raise ValueError(f"`{given[0]}` is for a model that writes; {because}")
        return self


def estimate(config: Config, inputs: dict[str, Artifact | RawInput | None]) -> Estimate:
    """Time from the tokens to write; memory for the model in float32."""
    if config.program is not None:
        return Estimate(
            config.count / 50_000, 2048 * config.count, 512 * config.count, "written by a program"
        )
    if config.extract.documents is not None:
        return Estimate(5.0, 1 << 30, 16 << 20, "found in documents by patterns")
    if config.tasks.documents is not None and config.endpoint.url is not None:
        return Estimate(note=f"written by {config.endpoint.model} at {config.endpoint.url}")
    tokens = config.conversations * (0.5 * config.question.max_new_tokens + config.answer.max_new_tokens)
    tokens += config.texts * config.text.max_new_tokens
    if config.tasks.documents is not None:
        tokens = _asks(config.tasks) * config.tasks.draw.max_new_tokens
    model = inputs.get("model")
    seconds, size = costs.heaviness(model) * tokens / TOKENS_PER_SECOND, costs.weight_bytes(model)
    return Estimate(seconds, 2 * size, 4 << 20, f"about {tokens:,.0f} tokens to write")


def _asks(tasks: Tasks) -> int:
    """Answers to wait for, as far as it is known before: with `count=0` that of one document."""
    each = sum(len(tasks.styles) if kind == "rephrase" else 1 for kind in tasks.kinds)
    each += tasks.keep.agree * tasks.pairs if "question_answer" in tasks.kinds else 0
    return max(tasks.count, 1) * each


def run(config: Config, inputs: dict[str, Artifact | RawInput], draft: Draft) -> Artifact:
    """Make train.jsonl, heldout.jsonl and report.json. Every group of `batch` rows is kept if the run is killed.

    Raises MaturaError when the model has no chat template (set conversations=0) or nothing usable came out,
    when a template fails, when an endpoint stays away or refuses the key, and when a program has no more to say.
    """
    if config.program is not None:
        from matura.data.synthesis import programs

        made = programs.make(config.program, config.count, config.heldout, config.seed, draft.path)
        return draft.commit(made)
    if config.extract.documents is not None:
        from matura.data.synthesis import extracting

        corpus = inputs["extract.documents"]
        assert isinstance(corpus, Artifact)
        train, heldout = (read_documents(corpus.file(f"{side}.parquet")) for side in ("train", "heldout"))
        return draft.commit(extracting.make(train, heldout, config.extract, draft.path))
    return (_replay if config.tasks.documents is None else _from_documents)(config, inputs, draft)


def _replay(config: Config, inputs: dict[str, Artifact | RawInput], draft: Draft) -> Artifact:
    from matura.data.synthesis import sides
    from matura.infer.replay import Writer
    from matura.model import store
    from matura.model.allocator import keep_freed_memory
    from matura.tokenizer import conversation

    parent = inputs["model"]
    assert isinstance(parent, Artifact)
    format = conversation.load(parent.path)
    if config.conversations and format.template is None:
        raise MaturaError(
            f"{parent.path} has no chat template, so it cannot write conversations: set conversations=0"
        )
    keep_freed_memory()
    draws = {"question": config.question, "answer": config.answer, "text": config.text}
    network = store.load_for_inference(parent.path)
    writer = Writer(network, format, draws, config.batch, config.seed, draft.resume)
    rows = writer.write("conversations", config.conversations) + writer.write("texts", config.texts)
    kept = _unique([row for row in rows if _usable(row, config)])
    chats = [row for row in kept if row.messages]
    pool = chats or kept
    if len(pool) <= config.heldout:
        raise MaturaError(
            f"only {len(pool)} usable rows came out of {len(rows)}, and {config.heldout} are to be held out: write "
            "more (conversations=, texts=) or hold out fewer (heldout=)"
        )
    # Whole answers first: the exam reads them with their stop token.
    heldout = sorted(pool, key=lambda row: bool(row.messages) and CUT.items() <= row.messages[-1].items())
    heldout = heldout[: config.heldout]
    train = [row for row in kept if row not in heldout]
    summary = {
        "line": f"{len(train)} rows of replay and {len(heldout)} held out, by {parent.path.name}",
        "written": len(rows),
        "kept": len(kept),
        "train": len(train),
        "heldout": len(heldout),
        "tokens": sum(len(format.tokenizer.encode(said(row))) for row in train),
        "stopped": writer.stopped,
    }
    sides.write(draft.path, train, heldout, summary)
    return draft.commit(summary)


def _usable(row: Conversation, config: Config) -> bool:
    if not row.messages:
        return len(row.text.strip()) >= config.min_characters
    question, answer = (message["content"] for message in row.messages)
    return bool(question) and len(answer) >= config.min_characters


def _unique(rows: Sequence[Conversation]) -> list[Conversation]:
    """Rows whose text was not there before, in their order."""
    first: dict[str, Conversation] = {}
    for row in rows:
        first.setdefault(said(row), row)
    return list(first.values())


def _from_documents(config: Config, inputs: dict[str, Artifact | RawInput], draft: Draft) -> Artifact:
    from matura.data.synthesis import asking, making

    tasks, corpus = config.tasks, inputs["tasks.documents"]
    assert isinstance(corpus, Artifact)
    writers = _writers(inputs.get("tasks.templates"))
    room: Callable[[str], bool] = _always
    if config.endpoint.url is not None:
        whom = _endpoint(config, writers["answer"], draft.resume)
    else:
        whom, room = _local(config, inputs["model"], writers, draft.resume)
    asking.check(writers)
    documents = asking.seeds(read_documents(corpus.file("train.parquet")), tasks.count, config.seed)
    requests = list(asking.requests(documents, tasks, writers, config.seed, room))
    with progress("writing from documents", len(requests), unit="answers") as bar:
        whom.advance = bar.advance
        made = making.make(requests, tasks, config.min_characters, whom)
    return _finished(config, made, len(documents), whom.name, draft)


def _always(_: str) -> bool:
    return True


def _writers(templates: Artifact | RawInput | None) -> dict[str, "Writer"]:
    from matura.data.synthesis.asking import Writer
    from matura.data.synthesis.templates import load
    from matura.tokenizer.template import Template

    prompts = load(templates.path if templates is not None else None)
    return {task: Writer(prompt, Template(prompt.text).render) for task, prompt in prompts.items()}


def _endpoint(config: Config, answer: "Writer", folder: Path) -> "Asking":
    from matura.data.synthesis import making, teacher

    endpoint = config.endpoint
    key = os.environ.get(endpoint.key_variable, "").strip() if endpoint.key_variable else ""
    if endpoint.key_variable and not key:
        raise ConfigError(f"endpoint.key_variable: {endpoint.key_variable} is not set: export the key there.")
    if not (key.isascii() and key.isprintable()):  # its value stays unsaid
        raise ConfigError(f"endpoint.key_variable: what {endpoint.key_variable} holds is no key.")
    name = f"{endpoint.url}#{endpoint.model}"
    return making.Asking(teacher.remote(endpoint, config.tasks.draw, key), name, folder, answer)


def _local(
    config: Config, parent: Artifact | RawInput, writers: dict[str, "Writer"], folder: Path
) -> tuple["Asking", Callable[[str], bool]]:
    """A model of ours as the teacher, and whether a prompt leaves it room for the answer.

    A model without chat continues the documents themselves; `writers` is changed so.
    """
    from matura.data.synthesis import making
    from matura.data.synthesis.answers import Answer
    from matura.data.synthesis.asking import Writer
    from matura.data.synthesis.templates import Prompt
    from matura.infer.replay import sampled
    from matura.model import store
    from matura.model.allocator import keep_freed_memory
    from matura.tokenizer import conversation

    assert isinstance(parent, Artifact)
    format, draw = conversation.load(parent.path), config.tasks.draw
    if format.template is None:
        if config.tasks.kinds != ("continue",):
            raise MaturaError(
                f"{parent.path} has no chat template, so it can only continue: tasks.kinds=[continue]"
            )
        writers["continue"] = Writer(Prompt("continue", "plain", ""), lambda values: str(values["document"]))
    keep_freed_memory()
    model = store.load_for_inference(parent.path)

    def ids(prompt: str) -> list[int]:
        if format.template is not None:
            return format.prompt([{"role": "user", "content": prompt}])
        return [*([] if format.begin_id is None else [format.begin_id]), *format.tokenizer.encode(prompt)]

    def room(prompt: str) -> bool:
        return len(ids(prompt)) + draw.max_new_tokens <= model.config.longest(model.config.decoder)

    def teacher(asks: Sequence["Ask"]) -> Iterator[tuple["Ask", "Answer"]]:
        for start in range(0, len(asks), config.batch):
            group = asks[start : start + config.batch]
            fits = [one for one in group if room(one.prompt)]
            prompts, seeds = [ids(one.prompt) for one in fits], [one.seed for one in fits]
            texts, ended = sampled(model, format, prompts, draw, seeds, config.batch) if fits else ([], [])
            found = {one.id: Answer(t, w) for one, t, w in zip(fits, texts, ended, strict=True)}
            yield from ((one, found.get(one.id, Answer(failure="no room in the context"))) for one in group)

    return making.Asking(teacher, f"model:{parent.id}", folder, writers["answer"], config.batch), room


def _finished(config: Config, made: "Made", documents: int, teacher: str, draft: Draft) -> Artifact:
    from matura.data.synthesis import making, sides

    funnel = made.funnel()
    if not made.kept:
        raise MaturaError(f"nothing usable came out of {documents} documents: {json.dumps(funnel)}")
    train, heldout = making.split(made.kept, config.heldout, config.seed)
    making.write_dropped(draft.path / "dropped.jsonl", made)
    outputs = sum(counts.get("outputs", 0) for counts in funnel.values())
    summary = {
        "line": f"{len(train)} records and {len(heldout)} held out from {documents} documents, by {teacher}",
        "documents": documents,
        "outputs": outputs,
        "kept": len(made.kept),
        "train": len(train),
        "heldout": len(heldout),
        "tasks": funnel,
    }
    sides.write(draft.path, train, heldout, summary)
    return draft.commit(summary)
