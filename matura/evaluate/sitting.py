"""Two models sit one exam: every section is scored for both, and a finished section outlives a kill."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from matura.core.errors import MaturaError
from matura.core.files import read_json, write_json
from matura.core.metrics import progress
from matura.core.records import Conversation, Document
from matura.evaluate import score
from matura.evaluate.score import Advance, Bits, Tokenizer
from matura.evaluate.tasks import Item
from matura.tokenizer import conversation
from matura.tokenizer.conversation import Format

PARENT, CHILD = "parent", "child"
MAX_SECTION_BYTES = 1 << 30


@dataclass(frozen=True)
class Candidate:
    """A model to examine: its folder and how it reads and writes. Its weights are loaded when needed."""

    folder: Path
    format: Format

    @property
    def tokenizer(self) -> Tokenizer:
        return self.format.tokenizer

    @property
    def context(self) -> int:
        """Longest sequence it was made for."""
        from matura.model import store

        return store.read_config(self.folder).context


def candidate(folder: Path) -> Candidate:
    """The model of an artifact, without its weights."""
    return Candidate(folder, conversation.load(folder))


@dataclass(frozen=True)
class Paper:
    """Everything both models are asked. `texts` are held-out and control documents, already clipped."""

    window: int
    items: Sequence[Item] = ()
    texts: dict[str, Sequence[Document]] = field(default_factory=dict)
    conversations: Sequence[Conversation] = ()
    questions: Sequence[str] = ()
    answer_tokens: int = 48


@dataclass(frozen=True)
class Scores:
    """What both models made of it; the keys are "parent" and "child"."""

    choices: dict[str, list[list[tuple[float, int]]]]
    texts: dict[str, dict[str, list[Bits]]]  # kind -> who
    kl: list[tuple[float, int]]
    answers: dict[str, list[str]]


@dataclass(frozen=True)
class _Section:
    name: str
    tokens: int
    compute: Callable[[Advance], list[Any]]


def sit(paper: Paper, candidates: dict[str, Candidate], resume: Path) -> Scores:
    """Score every section of the paper for both candidates.

    A section that is already in `resume` is read from there, with the same bits. Raises MaturaError
    when a model answers with something that is no number.
    """
    from matura.model import store
    from matura.model.allocator import keep_freed_memory

    keep_freed_memory()
    load = cache(lambda who: store.load_for_inference(candidates[who].folder))
    sections = [
        *(section for who in (PARENT, CHILD) for section in _sections(paper, who, candidates[who], load)),
        _divergence(paper, candidates[PARENT], load),
    ]
    done = {section.name: _read(resume, section.name) for section in sections}
    left = sum(section.tokens for section in sections if done[section.name] is None)
    values: dict[str, list[Any]] = {}
    with progress("exam", left) as bar:
        for section in sections:
            found = done[section.name]
            values[section.name] = _compute(section, bar.advance, resume) if found is None else found
    return Scores(
        choices={
            who: [[(lp, n) for lp, n in row] for row in values[f"{who}-choices"]] for who in (PARENT, CHILD)
        },
        texts={
            kind: {who: [Bits(*one) for one in values[f"{who}-{kind}"]] for who in (PARENT, CHILD)}
            for kind in paper.texts
        },
        kl=[(total, tokens) for total, tokens in values["kl"]],
        answers={who: values[f"{who}-answers"] for who in (PARENT, CHILD)},
    )


def _sections(paper: Paper, who: str, one: Candidate, load: Callable[[str], Any]) -> list[_Section]:
    tokenizer, window = one.tokenizer, paper.window
    rows = score.choice_rows(tokenizer, paper.items, window)

    def choices(advance: Advance) -> list[Any]:
        scored = score.choices(load(who), tokenizer, paper.items, window=window, advance=advance)
        return [[list(choice) for choice in item] for item in scored] if paper.items else []

    def documents(kind: str) -> Callable[[Advance], list[Any]]:
        texts = [document.text for document in paper.texts[kind]]

        def compute(advance: Advance) -> list[Any]:
            scored = score.documents(
                load(who), tokenizer, texts, begin=one.format.begin_id, window=window, advance=advance
            )
            return [[one.bits, one.bytes, one.tokens] for one in scored]

        return compute

    return [
        _Section(f"{who}-choices", sum(len(a) + len(b) for a, b in rows), choices),
        *(
            _Section(f"{who}-{kind}", sum(len(tokenizer.encode(t.text)) for t in texts), documents(kind))
            for kind, texts in paper.texts.items()
        ),
        _Section(f"{who}-answers", 0, lambda advance: _answers(paper, one.format, load(who))),
    ]


def _divergence(paper: Paper, parent: Candidate, load: Callable[[str], Any]) -> _Section:
    tokenizer, format = parent.tokenizer, parent.format
    rows = score.conversation_rows(tokenizer, format, paper.conversations, paper.window)

    def compute(advance: Advance) -> list[Any]:
        if not paper.conversations:
            return []
        models = load(PARENT), load(CHILD)
        found = score.kl(
            *models, tokenizer, format, paper.conversations, window=paper.window, advance=advance
        )
        return [list(one) for one in found]

    return _Section("kl", 2 * sum(len(a) + len(b) for one in rows for a, b in one), compute)


def _answers(paper: Paper, format: Format, model: Any) -> list[Any]:
    """Greedy answers to the questions, as plain text."""
    from matura.infer import engine
    from matura.infer.sampling import Sampling

    if not paper.questions:
        return []
    prompts = [prompt(format, question) for question in paper.questions]
    sampling = Sampling(max_new_tokens=paper.answer_tokens, temperature=0)
    written = engine.generate(model, prompts, sampling, format.stop_ids)
    return [format.tokenizer.decode(ids, skip_special=True).strip() for ids in written]


def prompt(format: Format, question: str) -> list[int]:
    """A question as the model is asked in a chat, or as plain text when it has no template."""
    if format.template is None:
        begin = [] if format.begin_id is None else [format.begin_id]
        return [*begin, *format.tokenizer.encode(question)]
    return format.prompt([{"role": "user", "content": question}])


def _compute(section: _Section, advance: Advance, resume: Path) -> list[Any]:
    values = section.compute(advance)
    if not all(math.isfinite(x) for x in _numbers(values)):
        raise MaturaError(
            f"{section.name}: the model gives a probability that is no number, so its weights are broken "
            "(a training that diverged?). Look at the loss of the training that made it."
        )
    write_json(resume / f"{section.name}.json", {"values": values})
    return values


def _numbers(values: Any) -> list[float]:
    if isinstance(values, list):
        return [x for value in values for x in _numbers(value)]
    return [values] if isinstance(values, float) else []


def _read(resume: Path, name: str) -> list[Any] | None:
    path = resume / f"{name}.json"
    if not path.is_file():
        return None
    return list(read_json(path, limit=MAX_SECTION_BYTES, what="a section of an exam")["values"])
