"""Templates and expressions over the fields of a row: those of exam tasks and of prompts.

`row` is the row itself, for fields whose names are no words: `row['Best Answer']`. They run in the sandbox that chat
templates run in (`tokenizer/template.py`), with its budget of work. A field that the row does not have is an error,
never an empty text.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jinja2
from jinja2 import meta

from matura.core.errors import ConfigError, FormatError
from matura.tokenizer.template import Template

Row = Mapping[str, Any]
PLAIN = ("{{", "{%", "{#")
_FIELD = re.compile(r"\{\{ *([A-Za-z_]\w*) *\}\}")
_FIELDS = re.compile(r"(?:[^{}]|\{\{ *[A-Za-z_]\w* *\}\})+")


@dataclass(frozen=True)
class Text:
    """A template: text with `{{ field }}` in it."""

    source: str

    def of(self, row: Row) -> str:
        """The text for a row. Raises FormatError for a field that is not there, or whatever else goes wrong."""
        if not any(mark in self.source for mark in PLAIN):
            return self.source
        if _FIELDS.fullmatch(self.source):  # by far the most common, and a hundred times faster so
            names = _FIELD.findall(self.source)
            if all(isinstance(row.get(name), str) for name in names):
                return _FIELD.sub(lambda found: str(row[found[1]]), self.source)
        text = _rendered(self.source, row)
        # Jinja takes one line break from the end of a template, and a prompt may end in one.
        return text + "\n" if self.source.endswith("\n") else text


@dataclass(frozen=True)
class Value:
    """An expression: `label | int`, `choices.text`, `[sol1, sol2]`."""

    source: str

    def of(self, row: Row) -> Any:
        """Its value for a row, as JSON can hold it. Raises FormatError as `Text.of` does."""
        return json.loads(_rendered(f"{{{{ ({self.source}) | tojson }}}}", row))


def check(template: Text | Value, where: str) -> None:
    """Raise ConfigError, after `where`, for what is no template or expression at all."""
    source = template.source if isinstance(template, Text) else f"{{{{ ({template.source}) | tojson }}}}"
    try:
        _compiled(source)
    except FormatError as error:
        raise ConfigError(f"{where}: {str(error).replace('the chat template', 'it')}") from error


def fields(source: str) -> tuple[str, ...]:
    """The fields that a template reads. Raises FormatError for what is no template."""
    return _compiled(source)[1]


def _rendered(source: str, row: Row) -> str:
    template, names = _compiled(source)
    for name in names:
        if name not in row and name != "row":
            near = difflib.get_close_matches(name, row, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(row)}."
            raise FormatError(f"{source!r} wants a field {name!r}, which the row does not have; {hint}")
    try:
        return template.render({"row": row, **row})
    except Exception as error:  # a template is a program and can fail in any way
        raise FormatError(f"{source!r} fails: {str(error) or type(error).__name__}") from error


@functools.lru_cache(maxsize=1024)
def _compiled(source: str) -> tuple[Template, tuple[str, ...]]:
    """The template, and the fields that it reads."""
    template = Template(source)
    names = meta.find_undeclared_variables(jinja2.Environment().parse(source))
    return template, tuple(sorted(names - {"range", "dict", "namespace"}))
