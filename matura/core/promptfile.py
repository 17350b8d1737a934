"""A prompt as files: prompt.yaml, which people read and edit, and beside it the examples that may be shown."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from matura.core import raw, yamlfile
from matura.core.config import Config, listing, parse
from matura.core.errors import ConfigError, FormatError
from matura.core.files import atomic_write, canonical_hash
from matura.core.raw import RawInput

FILE, EXAMPLES = "prompt.yaml", "examples.jsonl"
SUFFIXES = (".yaml", ".yml")
INPUT = "{{ input }}"

_BREAKS = re.compile("[\x7f-\x9f\u2028\u2029\ufeff]")  # YAML folds or refuses them, JSON does not escape them
Choose = Literal["fixed", "random", "similar", "diverse"]
WAYS = (
    "fixed: `ids`, or the first; random: drawn once; diverse: those that differ most from each other; similar: for "
    "each question those most like it"
)
TEMPLATE = (
    "Template of every user's turn: `{{ input }}` is what was asked; in exams also the fields of a task's rows, in "
    "place of `input`"
)


class Shown(Config):
    """Which examples stand before a question."""

    file: str = Field(EXAMPLES, description="Their file, beside prompt.yaml: conversations as JSON Lines")
    count: int = Field(0, ge=0, le=100, description="How many are shown; 0 for none")
    choose: Choose = Field("fixed", description=WAYS)
    ids: tuple[str, ...] = Field((), description="For choose=fixed: the ids of the examples, in this order")
    seed: int = Field(0, description="Of choose=random")

    @field_validator("file")
    @classmethod
    def _beside(cls, file: str) -> str:
        if Path(file).name != file or file in ("", ".", ".."):
            raise ValueError("expected the name of a file beside prompt.yaml, without folders")
        return file

    @model_validator(mode="after")
    def _fits(self) -> Shown:
        if self.ids and self.choose != "fixed":
            raise ValueError("ids are for choose=fixed")
        if self.ids and len(self.ids) != self.count:
            raise ValueError(f"{len(self.ids)} ids are given, but count is {self.count}")
        if len(set(self.ids)) < len(self.ids):
            raise ValueError("ids: one is given twice")
        if self.seed and self.choose != "random":
            raise ValueError(f"seed is for choose=random, and this is choose={self.choose}")
        return self


class PromptFile(Config):
    """What prompt.yaml holds."""

    schema_version: Literal[1] = Field(1, description="The version of this list of settings")
    about: str = Field("", description="What the prompt is for, in a sentence")
    system: str = Field("", description="The system message; empty for none")
    template: str = Field(INPUT, description=TEMPLATE)
    examples: Shown = Shown()
    delimiter: str = Field(" ", description="As plain text: between a question and its answer")
    separator: str = Field("\n\n", description="As plain text: between system text, examples and question")


def place(path: str | os.PathLike[str]) -> Path:
    """The prompt.yaml that a path means: a file, or the one in a folder. Raises ConfigError for other files."""
    given = Path(path).expanduser()
    if given.is_dir():
        return given / FILE
    if given.suffix not in SUFFIXES:
        raise ConfigError(f"{given}: a prompt is a {FILE}, a folder with one, or what `matura prompt` made")
    return given


def read(path: str | os.PathLike[str]) -> PromptFile:
    """The settings in a prompt.yaml. Raises ConfigError with the file and all that is wrong in it."""
    file = place(path)
    document = yamlfile.read(file)
    if document.problems:
        raise ConfigError(
            listing(str(file), [f"line {line}: {message}" for line, message in document.problems])
        )
    if not isinstance(document.values, dict):
        raise ConfigError(f"{file}: expected settings of a prompt, such as `system: Answer in one sentence.`")
    return parse(PromptFile, document.values, str(file))


def raw_input(path: str | os.PathLike[str]) -> RawInput:
    """A prompt that a person wrote, hashed with the file of its examples, for lineage."""
    file = place(path)
    names = [file.name]
    if (shown := read(file).examples).count:
        names.append(shown.file)
    files = {name: entry for one in sorted(names) for name, entry in _hashed(file, one).items()}
    return RawInput(
        raw.raw_input(file).path,
        canonical_hash({name: [entry["bytes"], entry["sha256"]] for name, entry in files.items()}),
        files,
    )


def _hashed(file: Path, name: str) -> dict[str, dict[str, object]]:
    beside = file.with_name(name)
    if not beside.is_file():
        raise ConfigError(f"{file}: examples.file: there is no {beside}")
    return raw.raw_input(beside).files


def write(folder: Path, settings: PromptFile) -> None:
    """Write prompt.yaml, for people to read and edit: texts of several lines stand as they are.

    Raises FormatError for text that YAML cannot hold.
    """
    lines = []
    for name, value in settings.model_dump().items():
        if isinstance(value, dict):
            kept = {key: one for key, one in value.items() if one != Shown.model_fields[key].default}
            lines.append(f"{name}: {json.dumps(kept, ensure_ascii=False)}")
        else:
            lines.append(f"{name}: {_scalar(value)}")
    with atomic_write(folder / FILE) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if read(folder) != settings:
        raise FormatError(f"{folder / FILE}: a text has characters that YAML does not keep")


def _scalar(value: str | int) -> str:
    """A value as YAML: JSON is YAML, and a block keeps a text of several lines readable."""
    if isinstance(value, str) and "\n" in value.strip("\n") and not value[0].isspace():
        kept = "|-" if not value.endswith("\n") else "|" if not value.endswith("\n\n") else "|+"
        block = value.removesuffix("\n").split("\n")
        text = "\n".join([kept, *(f"  {line}" if line else "" for line in block)])
        if yamlfile.parse(f"x: {text}\n", FILE).values == {"x": value}:
            return text
    return _BREAKS.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))
