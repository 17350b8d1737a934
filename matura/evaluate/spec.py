"""What a task of an exam is: where its rows are, how they become questions, how answers are marked.

A task is data: rows (JSON Lines, CSV, Parquet, Arrow) and a small specification, a YAML file beside them. Those of this
package are in `specs/`; a user's own lie in a folder with their rows.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from matura.core import config, yamlfile
from matura.core.errors import ConfigError
from matura.evaluate import patterns
from matura.tokenizer import wording

FOLDER = Path(__file__).with_name("specs")
SUFFIXES = (".yaml", ".yml")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

Kind = Literal["choices", "continuation", "text", "writing"]
METRICS: dict[str, tuple[str, ...]] = {
    "choices": ("acc", "acc_norm", "gold_bpb"),
    "continuation": ("acc", "perplexity", "gold_bpb"),
    "text": ("bpb", "word_perplexity", "byte_perplexity"),
    "writing": ("exact_match",),
}
"""What each kind of task is marked by, unless its specification says otherwise; names of `grading.METRICS`."""

READ_BY = {"writing": ("until", "max_tokens", "extract", "ignore", "ignore_case"), "choices": ("choices",)}
"""Settings that only one kind of task reads."""


class Shots(config.Config):
    """Examples with their answers before every question. They are the same for all questions of a group."""

    count: int = Field(0, ge=0, description="How many")
    data: tuple[str, ...] = Field(
        (), description="Where their rows are, as `data`; none: the task's own rows"
    )
    order: Literal["first", "drawn"] = Field(
        "first", description="first: as they lie in the file; drawn: by a hash of the seed and their ids"
    )
    seed: int = Field(0, description="Of what is drawn")


class Published(config.Config):
    """A figure that somebody published, to be shown beside ours."""

    model: str = Field(description="The model it is about")
    metric: str = Field("acc", description="The metric, by our name")
    value: float = Field(description="The figure, in the metric's unit (shares between 0 and 1)")
    shots: int = Field(0, ge=0, description="Examples before the question")
    source: str = Field(description="Who published it, and how it was measured where that differs")


class Extract(config.Config):
    """How the answer is found in what a model wrote."""

    name: str = Field(description="Name of this way; the metric is exact_match,NAME")
    pattern: str = Field(description="A regular expression; its first group that matched is the answer")
    which: int = Field(0, description="Which match: 0 the first, -1 the last")

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        return patterns.check(pattern)


class Task(config.Config):
    """One task. Texts are Jinja templates over a row's fields, answers are Jinja expressions."""

    name: str = Field(description="Its name; metrics are called NAME.acc and so on")
    about: str = Field("", description="What it asks, in a sentence")
    kind: Kind = Field(
        description="choices: the likeliest of several; continuation: is the one right text the likeliest, token for "
        "token?; text: bits of a whole text; writing: what the model writes is compared with the answer"
    )
    data: tuple[str, ...] = Field(
        description="Where the rows are: a file in the folder of tasks, or wheel:PATH in the wheel; the first that is "
        "there counts. One * in the path stands for groups; #FIELD after it: the rows are what stands in that field of "
        "the lines, each once"
    )
    prompt: str | tuple[str, ...] = Field(
        "",
        description="Template of the question; several, one for each choice; for kind=text the text itself",
    )
    choices: str | tuple[str, ...] = Field(
        (), description="Templates of the choices, or an expression that lists them"
    )
    answer: str = Field(
        "0",
        description="Expression: the number or the text of the right choice, or a list of both; the right text, or "
        "several that are right, for kind=continuation and kind=writing",
    )
    delimiter: str = Field(" ", description="Between question and answer")
    separator: str = Field("\n\n", description="Between examples")
    description: str = Field("", description="Template of what stands before everything, once")
    id: str = Field("", description="Template of a row's id; none: its number")
    group: str = Field("", description="Template of the part of the task that a row belongs to")
    clean: Literal["none", "wikihow"] = Field("none", description="wikihow: takes that site's markup out")
    metrics: tuple[str, ...] = Field((), description="What it is marked by; none: what suits its kind")
    until: tuple[str, ...] = Field(("\n\n",), description="Texts that end what is written")
    max_tokens: int = Field(256, ge=1, description="Longest answer that is written")
    extract: tuple[Extract, ...] = Field((), description="How answers are found in it; none: the whole text")
    ignore: tuple[str, ...] = Field(
        (), description="Regular expressions that are cut out before texts are compared"
    )
    ignore_case: bool = Field(False, description="Capitals count as small letters when texts are compared")
    shots: Shots = Shots()
    split: str = Field("", description="The part of the data set that is asked")
    source: str = Field("", description="Where the data set comes from")
    licence: str = Field("", description="Its licence")
    chance: float | None = Field(None, ge=0, le=1, description="What guessing scores; none: from the choices")
    published: tuple[Published, ...] = Field((), description="Figures to be shown beside ours")

    @field_validator("name")
    @classmethod
    def _is_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError("expected letters, digits, _ and -, such as my_task")
        return name

    @field_validator("ignore")
    @classmethod
    def _compile(cls, ignored: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(patterns.check(pattern) for pattern in ignored)

    @model_validator(mode="after")
    def _fits(self) -> Task:
        if not self.data:
            raise ValueError("data: name at least one file")
        if self.kind == "choices" and not self.choices:
            raise ValueError("kind=choices needs `choices`")
        if self.kind in ("continuation", "writing") and self.answer == "0":
            raise ValueError(f"kind={self.kind} needs `answer`, the right text")
        if not isinstance(self.prompt, str) and self.kind != "choices":
            raise ValueError("several prompts are for kind=choices")
        for kind, read in READ_BY.items():
            if self.kind != kind and (given := self.changed(*read)):
                raise ValueError(f"{given[0]} is for kind={kind}")
        names = [one.name for one in self.extract]
        if len(set(names)) < len(names):
            raise ValueError("extract: two ways have one name")
        return self

    @property
    def marked_by(self) -> tuple[str, ...]:
        """Its metrics, or those of its kind."""
        return self.metrics or METRICS[self.kind]


@functools.cache
def builtin() -> dict[str, Task]:
    """The tasks of this package by name."""
    return {task.name: task for task in map(read, sorted(FOLDER.glob("*.yaml")))}


def read(path: Path) -> Task:
    """A specification file. Raises ConfigError with the file and all that is wrong in it."""
    values = yamlfile.read(path).values
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected settings of a task, such as `name: my_task`")
    task = config.parse(Task, values, str(path))
    for place, template in _templates(task):
        wording.check(template, f"{path}: {place}")
    return task


def _templates(task: Task) -> Iterator[tuple[str, Any]]:
    prompts = [task.prompt] if isinstance(task.prompt, str) else task.prompt
    yield from (("prompt", wording.Text(one)) for one in prompts)
    if isinstance(task.choices, str):
        yield "choices", wording.Value(task.choices)
    else:
        yield from (("choices", wording.Text(one)) for one in task.choices)
    yield "answer", wording.Value(task.answer)
    for place in ("description", "id", "group"):
        yield place, wording.Text(getattr(task, place))


def find(name: str, folder: Path | None) -> Task:
    """The task of this name: a specification in `folder` before one of this package.

    Raises ConfigError with the nearest name there is.
    """
    known = builtin() | own(folder)
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(known))}."
    raise ConfigError(f"there is no task {name!r}; {hint}")


def own(folder: Path | None) -> dict[str, Task]:
    """The tasks that a folder specifies. Raises ConfigError for two of one name."""
    found: dict[str, Task] = {}
    if folder is None or not folder.is_dir():
        return found
    for path in sorted(one for one in folder.rglob("*") if one.suffix in SUFFIXES and one.is_file()):
        task = read(path)
        if task.name in found:
            raise ConfigError(f"{path}: another file specifies a task {task.name!r} too; rename one of them")
        found[task.name] = task
    return found
