"""Models sit an exam: every section is asked in chunks, and what was answered outlives a kill."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from matura.core.errors import MaturaError
from matura.core.files import canonical_hash
from matura.core.metrics import progress
from matura.core.records import Conversation, characters
from matura.evaluate import asking, grading, prompted, score, shelf
from matura.evaluate.asking import Reader, Reply, Request
from matura.evaluate.panels.sheet import Sheet
from matura.evaluate.score import Advance, Bits, Tokenizer
from matura.evaluate.shelf import Shelf
from matura.evaluate.spec import Task
from matura.evaluate.tasks import Item
from matura.tokenizer import conversation
from matura.tokenizer.conversation import Format
from matura.tokenizer.prompt import Prompt, bare, trained

PARENT, CHILD = "parent", "child"
CHUNK = 32
"""Items that are asked together; a kill loses so many."""


@dataclass(frozen=True)
class Candidate:
    """A model to examine: its folder and how it reads and writes. Its weights are loaded when needed.

    `id` is its artifact's, and names it in what is kept of its replies. `prompt` is put around what it is asked, and
    `own` holds the sections that it is asked otherwise than the paper says, by name.
    """

    folder: Path
    format: Format
    id: str
    prompt: Prompt | None = None
    own: Mapping[str, Section] = field(default_factory=dict)

    @property
    def tokenizer(self) -> Tokenizer:
        return self.format.tokenizer

    @property
    def context(self) -> int:
        """Longest sequence it was made for."""
        from matura.model import store

        return store.read_config(self.folder).context


def candidate(folder: Path, id: str, prompt: Prompt | None = None) -> Candidate:
    """The model of an artifact, without its weights."""
    return Candidate(folder, conversation.load(folder), id, prompt)


Role = Literal["domain", "control", "taught", "panel", "task"]


@dataclass(frozen=True)
class Section:
    """A task with the items that are asked. `name` is its name in this exam.

    `role`: "panel" tasks make up general ability together; "domain" and "control" are documents and the text that
    they are compared with; "taught" are answers of conversations (`talks`, one for each item, `turns` of them); "task"
    stands for itself.
    """

    name: str
    task: Task
    items: Sequence[Item]
    role: Role = "task"
    prompt: Prompt | None = None
    chat: bool = False
    talks: Sequence[Conversation] = ()
    turns: Literal["all", "last"] = "all"

    def requests(self, start: int = 0, end: int | None = None) -> list[list[Request]]:
        """What is asked for each item."""
        if self.talks:
            return [[self._answers(one)] for one in self.talks[start:end]]
        plain = [(item, grading.requests(self.task, item)) for item in self.items[start:end]]
        if self.prompt is None:
            return [asked for _, asked in plain]
        return [
            prompted.requests(self.prompt, self.chat, asked, item.question, item.choices)
            for item, asked in plain
        ]

    def _answers(self, row: Conversation) -> Request:
        around = row if self.prompt is None else trained(row, self.prompt, examples=True)
        return asking.Answers(around, self.turns)


@dataclass(frozen=True)
class Paper:
    """Everything the candidates are asked. `sheets` are those of the panels."""

    window: int
    sections: Sequence[Section] = ()
    sheets: Sequence[Sheet] = ()
    conversations: Sequence[Conversation] = ()
    questions: Sequence[str] = ()
    answer_tokens: int = 48

    @property
    def parts(self) -> list[Section | Sheet]:
        """Sections and sheets, in the order in which they are asked."""
        return [*self.sections, *self.sheets]


Replies = list[list[Reply]]
"""For each item of a section, the replies to its requests."""


@dataclass(frozen=True)
class Scores:
    """What the candidates made of it; the keys are "parent" and "child", or "child" alone."""

    replies: dict[str, dict[str, Replies]]  # who -> section or sheet
    kl: list[tuple[float, int]]
    answers: dict[str, list[str]]


@dataclass(frozen=True)
class _Work:
    """A piece of the exam that is kept as a whole."""

    what: str
    key: str
    tokens: int
    compute: Callable[[Advance], list[Any]]


def sit(paper: Paper, candidates: Mapping[str, Candidate], kept: Shelf) -> Scores:
    """Ask every candidate every section of the paper.

    A chunk that is on the shelf is read from there, with the same bits. Raises MaturaError when a model answers with
    something that is no number.
    """
    from matura.model import store
    from matura.model.allocator import keep_freed_memory

    keep_freed_memory()
    load = cache(lambda who: store.load_for_inference(candidates[who].folder))
    work = list(_all_work(paper, candidates, load))
    done = {one.key: kept.read(one.key) for one in work}
    left = sum(one.tokens for one in work if done[one.key] is None)
    found: dict[str, list[Any]] = {}
    with progress("exam", left) as bar:
        for one in work:
            values = done[one.key]
            if values is None and one.key not in found:
                values = _compute(one, bar.advance, kept)
            found.setdefault(one.key, values or [])
    return _gathered(paper, candidates, iter(found[one.key] for one in work))


def _all_work(
    paper: Paper, candidates: Mapping[str, Candidate], load: Callable[[str], Any]
) -> Iterator[_Work]:
    """In the order in which `_gathered` reads it."""
    for who, one in candidates.items():
        for section in paper.parts:
            for start in range(0, len(section.items), CHUNK):
                yield _chunk(paper, section, start, who, one, load)
        yield _answers(paper, who, one, load)
    if PARENT in candidates:
        yield _divergence(paper, candidates, load)


def _gathered(paper: Paper, candidates: Mapping[str, Candidate], values: Iterator[list[Any]]) -> Scores:
    replies: dict[str, dict[str, Replies]] = {}
    answers: dict[str, list[str]] = {}
    for who in candidates:
        replies[who] = {}
        for section in paper.parts:
            chunks = [next(values) for _ in range(0, len(section.items), CHUNK)]
            replies[who][section.name] = [
                [shelf.unpack(reply) for reply in item] for chunk in chunks for item in chunk
            ]
        answers[who] = next(values)
    kl = [(total, tokens) for total, tokens in (next(values) if PARENT in candidates else [])]
    return Scores(replies, kl, answers)


def _chunk(
    paper: Paper, section: Section | Sheet, start: int, who: str, one: Candidate, load: Callable[[str], Any]
) -> _Work:
    asked = one.own.get(section.name, section).requests(start, start + CHUNK)
    flat = [request for item in asked for request in item]

    def compute(advance: Advance) -> list[Any]:
        replies = iter(asking.ask(Reader(load(who), one.format, paper.window), flat, advance=advance))
        return [[shelf.pack(next(replies)) for _ in item] for item in asked]

    what = f"{who}, {section.name}"
    return _Work(what, shelf.key(one.id, paper.window, flat), _tokens(flat), compute)


def _tokens(requests: Sequence[Request]) -> int:
    """About how many tokens the requests have, for progress: nothing is encoded for it."""
    tokens = 0
    for request in requests:
        match request:
            case asking.Score(context, continuation):
                tokens += (len(context) + len(continuation)) // 4
            case asking.Roll(text):
                tokens += len(text) // 4
            case asking.Write(_, _, most):
                tokens += most
            case asking.Answers(row):
                tokens += characters(row) // 4
    return tokens


def _answers(paper: Paper, who: str, one: Candidate, load: Callable[[str], Any]) -> _Work:
    """Greedy answers to the questions, as plain text; they decide nothing."""
    prompts = [prompt(one.format, question, one.prompt) for question in paper.questions]

    def compute(advance: Advance) -> list[Any]:
        from matura.infer import engine
        from matura.infer.sampling import Sampling

        if not prompts:
            return []
        sampling = Sampling(max_new_tokens=paper.answer_tokens, temperature=0)
        written = engine.generate(load(who), prompts, sampling, one.format.stop_ids)
        return [one.format.tokenizer.decode(ids, skip_special=True).strip() for ids in written]

    asked = {"model": one.id, "prompts": prompts, "tokens": paper.answer_tokens, "what": "answers"}
    return _Work(f"{who}, answers", canonical_hash(asked), 0, compute)


def prompt(format: Format, question: str, around: Prompt | None = None) -> list[int]:
    """A question as the model is asked in a chat, or as plain text when it has no template."""
    if format.template is None:
        begin = [] if format.begin_id is None else [format.begin_id]
        return [*begin, *format.tokenizer.encode(around.plain(question) if around else question)]
    return format.prompt(bare(around.ask(question)) if around else [{"role": "user", "content": question}])


def _divergence(paper: Paper, candidates: Mapping[str, Candidate], load: Callable[[str], Any]) -> _Work:
    parent, child = candidates[PARENT], candidates[CHILD]
    rows = score.conversation_rows(parent.format, paper.conversations, paper.window)

    def compute(advance: Advance) -> list[Any]:
        if not paper.conversations:
            return []
        found = score.kl(load(PARENT), load(CHILD), rows, advance=advance)
        return [list(one) for one in found]

    tokens = 2 * sum(len(a) + len(b) for one in rows for a, b in one)
    asked = {
        "parent": parent.id,
        "child": child.id,
        "rows": [[list(a), list(b)] for one in rows for a, b in one],
    }
    return _Work("divergence", canonical_hash({**asked, "what": "kl"}), tokens, compute)


def _compute(work: _Work, advance: Advance, kept: Shelf) -> list[Any]:
    values = work.compute(advance)
    if not all(math.isfinite(x) for x in _numbers(values)):
        raise MaturaError(
            f"{work.what}: the model gives a probability that is no number, so its weights are broken "
            "(a training that diverged?). Look at the loss of the training that made it."
        )
    kept.write(work.key, values)
    return values


def _numbers(values: Any) -> list[float]:
    if isinstance(values, list):
        return [x for value in values for x in _numbers(value)]
    return [values] if isinstance(values, float) else []


def bits(replies: Replies) -> list[Bits]:
    """The replies of a task of kind=text, an item each."""
    return [one[0] for one in replies if isinstance(one[0], Bits)]
