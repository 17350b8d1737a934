"""What a teacher is asked: templates with a version, built in or from the user's file.

A template is Jinja text with the variables `document` and `title`; `rephrase` also has `style` (how to write, in
words), `question_answer` has `pairs` (how many), `answer` has `question`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from matura.core import yamlfile
from matura.core.config import did_you_mean
from matura.core.errors import FormatError

BUILT_IN_VERSION = "1"
STYLES = {
    "wikipedia": "an encyclopedia article: neutral, precise, in full sentences",
    "simple": "a text for a child of ten: short sentences and everyday words",
    "dialogue": "a conversation in which one person asks and another one explains",
}


@dataclass(frozen=True, slots=True)
class Prompt:
    """One template: its task, its version, and the Jinja text of the user's message."""

    task: str
    version: str
    text: str

    @property
    def label(self) -> str:
        """What provenance names: task and version."""
        return f"{self.task}@{self.version}"


_TEXTS = {
    "question_answer": (
        "Here is a text{% if title %} with the title {{ title }}{% endif %}.\n\n{{ document }}\n\n"
        "Write {{ pairs }} questions about this text, each with its answer. A question must make sense to somebody who "
        "does not see the text. Answer in one or two full sentences of your own. Use exactly this form:\n"
        "Question: ...\nAnswer: ..."
    ),
    "rephrase": (
        "Here is a text{% if title %} with the title {{ title }}{% endif %}.\n\n{{ document }}\n\n"
        "Write it anew as {{ style }}. Keep every fact, add none, and use your own words. Write only the new text."
    ),
    "continue": (
        "Here is the beginning of a text{% if title %} with the title {{ title }}{% endif %}.\n\n{{ document }}\n\n"
        "Continue it in the same style. Do not repeat the beginning. Write only the continuation."
    ),
    "answer": (
        "Here is a text{% if title %} with the title {{ title }}{% endif %}.\n\n{{ document }}\n\n"
        "Answer this question in one or two full sentences. Write only the answer.\n{{ question }}"
    ),
}
BUILT_IN = {task: Prompt(task, BUILT_IN_VERSION, text) for task, text in _TEXTS.items()}
NEEDS = {task: ("document", "question") if task == "answer" else ("document",) for task in BUILT_IN}


def load(path: Path | None) -> dict[str, Prompt]:
    """The templates by task: the built-in ones, and in their place those of a YAML file.

    The file has `version` (text) and one entry for each task that it replaces. Raises FormatError, naming the file
    and the entry, for anything else.
    """
    if path is None:
        return dict(BUILT_IN)
    document = yamlfile.read(path)
    for line, message in document.problems:
        raise FormatError(f"{path}:{line}: {message}")
    values = document.values
    if not isinstance(values, Mapping):
        raise FormatError(f"{path}: expected `version` and templates by task, found {type(values).__name__}.")
    given = dict(values)
    version = given.pop("version", None)
    if not isinstance(version, str | int) or not str(version).strip() or isinstance(version, bool):
        raise FormatError(f"{path}: `version` is missing: give one, and change it with the templates.")
    found = dict(BUILT_IN)
    for task, text in given.items():
        if task not in BUILT_IN:
            raise FormatError(f"{path}: unknown template {task!r}{did_you_mean(str(task), BUILT_IN)}.")
        if not isinstance(text, str) or not text.strip():
            raise FormatError(f"{path}: {task} must be text, found {type(text).__name__}.")
        found[task] = Prompt(task, str(version), text)
    return found
