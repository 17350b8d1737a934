"""From documents to what a teacher is asked, and from its answers to records with their provenance."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from matura.core.errors import FormatError
from matura.core.records import Conversation, Document
from matura.core.synthesis_settings import Tasks
from matura.data.synthesis.answers import Answer, Ask, seed_of
from matura.data.synthesis.templates import NEEDS, STYLES, Prompt

NO_PAIRS, UNFINISHED = "no question and answer found", "unfinished"
_QUESTION = re.compile(
    r"[\W\d_]{0,20}(?:question|q)\s{0,9}\d{0,4}[\s*_]{0,9}[:.)][\s*_]{0,9}(?P<text>.*)", re.IGNORECASE
)
_ANSWER = re.compile(
    r"[\W\d_]{0,20}(?:answer|a)\s{0,9}\d{0,4}[\s*_]{0,9}[:.)][\s*_]{0,9}(?P<text>.*)", re.IGNORECASE
)
_END = re.compile(r"[.!?…。！？][\"'”’)\]]*(?=\s|$)|[。！？]")

Render = Callable[[Mapping[str, object]], str]
"""A compiled template: its variables in, the text out."""


@dataclass(frozen=True, slots=True)
class Writer:
    """A template that is ready: `prompt` for provenance, `render` for the text. Raises what the template raises."""

    prompt: Prompt
    render: Render

    def __call__(self, **values: object) -> str:
        """The message. Raises FormatError, naming the template, when it fails."""
        try:
            return self.render(values)
        except Exception as error:
            raise FormatError(f"the template {self.prompt.label} fails: {error}") from error


@dataclass(frozen=True, slots=True)
class Request:
    """An ask and what is needed to make records of its answer."""

    ask: Ask
    task: str
    style: str
    document: Document
    template: str


def check(writers: Mapping[str, Writer]) -> None:
    """Render every template once. Raises FormatError when one fails or does not show what it must."""
    for task, writer in writers.items():
        values = {name: f"<{name}>" for name in ("document", "title", "style", "question")}
        text = writer(**values, pairs=1)
        for name in NEEDS[task]:
            if values[name] not in text:
                raise FormatError(
                    f"the template {writer.prompt.label} does not show {{{{ {name} }}}}: put it in."
                )


def seeds(documents: Iterable[Document], count: int, seed: int) -> list[Document]:
    """`count` of the documents (0: all), chosen by hash and in that order: more documents move few of them."""

    def rank(document: Document) -> bytes:
        return hashlib.sha256(f"{seed}\n{document.id}".encode()).digest()

    ranked = sorted(documents, key=rank)
    return ranked[:count] if count else ranked


def requests(
    documents: Sequence[Document],
    tasks: Tasks,
    writers: Mapping[str, Writer],
    seed: int,
    room: Callable[[str], bool],
) -> Iterator[Request]:
    """What to ask from each document. A document is shortened until `room` says that its prompt fits."""
    for document in documents:
        for task in tasks.kinds:
            for style in tasks.styles if task == "rephrase" else ("",):
                identity = "/".join(filter(None, (document.id, task, style)))
                values = {
                    "title": document.meta.get("title", ""),
                    "pairs": tasks.pairs,
                    "style": STYLES.get(style),
                }
                text, prompt = fitting(document.text, tasks.characters, writers[task], values, room)
                ask = Ask(identity, prompt, text, seed_of(seed, identity))
                yield Request(ask, task, style, document, writers[task].prompt.label)


def fitting(
    text: str, characters: int, writer: Writer, values: Mapping[str, object], room: Callable[[str], bool]
) -> tuple[str, str]:
    """(beginning of the text, prompt with it), at most `characters` long, less if there is no room for it.

    Raises FormatError when even a hundred characters do not fit.
    """
    while characters >= 100:
        part = beginning(text, characters)
        prompt = writer(**values, document=part)
        if room(prompt):
            return part, prompt
        characters = min(characters, len(part)) * 3 // 4
    raise FormatError(
        f"the template {writer.prompt.label} and an answer do not fit into the teacher's context: lower "
        "tasks.draw.max_new_tokens or take a shorter template."
    )


def beginning(text: str, characters: int) -> str:
    """At most so many characters, up to the end of a sentence if one ends in the second half, else of a word."""
    text = text.strip()
    if len(text) <= characters:
        return text
    part = text[:characters]
    ends = [match.end() for match in _END.finditer(part)]
    if ends and ends[-1] >= characters // 2:
        return part[: ends[-1]]
    return part.rsplit(None, 1)[0] if len(part.split(None, 1)) > 1 else part


def pairs(text: str, whole: bool) -> list[tuple[str, str]]:
    """Questions with answers in an answer of the form "Question: ... Answer: ...", numbered or not, bold or not.

    Lines before the first question are passed over. The last pair of an answer that was cut off is left out.
    """
    found: list[tuple[list[str], list[str]]] = []
    part: list[str] | None = None
    for line in text.splitlines():
        if match := _QUESTION.match(line):
            found.append(([match["text"]], []))
            part = found[-1][0]
        elif (match := _ANSWER.match(line)) and found and not found[-1][1]:
            part = found[-1][1]
            part.append(match["text"])
        elif part is not None:
            part.append(line)
    if found and not whole:
        found.pop()
    joined = [tuple("\n".join(lines).strip().strip("*").strip() for lines in both) for both in found]
    return [(question, answer) for question, answer in joined if question and answer]


def records(request: Request, answer: Answer, teacher: str) -> list[Conversation] | str:
    """The records in an answer, or the reason why there are none."""
    if answer.failure:
        return answer.failure
    provenance = {
        "teacher": teacher,
        "template": request.template,
        "task": request.task,
        "document": request.document.id,
        "source": request.document.source,
        "seed": str(request.ask.seed),
    } | ({"style": request.style} if request.style else {})
    identity = request.ask.id
    if request.task == "question_answer":
        rows = [
            Conversation(
                f"{identity}/{number}",
                ({"role": "user", "content": question}, {"role": "assistant", "content": reply}),
                provenance=provenance,
            )
            for number, (question, reply) in enumerate(pairs(answer.text, answer.whole))
        ]
        return rows or NO_PAIRS
    text = answer.text.strip()
    if not answer.whole:
        ends = [match.end() for match in _END.finditer(text)]
        # A rephrasing without an end lacks facts; a text goes on anyway.
        words = text.rsplit(None, 1)[0] if request.task == "continue" else ""
        text = text[: ends[-1]] if ends else words
    return [Conversation(identity, (), text, provenance)] if text else UNFINISHED


def again(row: Conversation, request: Request, count: int, writer: Writer) -> list[Ask]:
    """The question of a record asked `count` times more, each with its own seed."""
    values = {"title": request.document.meta.get("title", ""), "question": row.messages[0]["content"]}
    prompt = writer(**values, document=request.ask.document)
    base = replace(request.ask, prompt=prompt)
    names = [f"{row.id}/again/{number}" for number in range(count)]
    return [replace(base, id=name, seed=seed_of(request.ask.seed, name)) for name in names]
