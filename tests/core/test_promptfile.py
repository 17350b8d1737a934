"""prompt.yaml: what is written is read again, and mistakes of people are told by file and field."""

from pathlib import Path

import pytest

from matura.core import promptfile
from matura.core.errors import ConfigError
from matura.core.promptfile import PromptFile, Shown

TEXTS = [
    "",
    "plain",
    "two\nlines",
    "ends in breaks\n\n",
    "one\n  indented\n\nand empty",
    "  opens with space\nand goes on",
    'quotes " and \\ and: colons # and - dashes',
    "no",
    "1e-3",
    "tabs\tand\r\nreturns",
    "\u2028 and 🦉",
    "trailing space \nhere",
]


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_comes_back_as_it_was(text: str, tmp_path: Path) -> None:
    settings = PromptFile(system=text, about=text, delimiter=text, examples=Shown(count=2, choose="similar"))
    promptfile.write(tmp_path, settings)
    assert promptfile.read(tmp_path) == promptfile.read(tmp_path / "prompt.yaml") == settings


def test_lines_stand_as_they_are(tmp_path: Path) -> None:
    promptfile.write(tmp_path, PromptFile(system="Be brief.\nBe right."))
    assert "system: |-\n  Be brief.\n  Be right.\n" in (tmp_path / "prompt.yaml").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sytem: a", "did you mean 'system'"),
        ("system: [a]", "system: expected text"),
        ("- a", "expected settings of a prompt"),
        ("system: a\nsystem: b", "written twice"),
        ("schema_version: 2", "schema_version"),
        ("examples: {file: ../secret.jsonl, count: 1}", "without folders"),
        ("examples: {choose: similar, ids: [a], count: 1}", "ids are for choose=fixed"),
        ("examples: {choose: similar, seed: 3, count: 1}", "seed is for choose=random"),
        ("examples: {ids: [a, b], count: 1}", "2 ids are given"),
        ("examples: {ids: [a, a], count: 2}", "given twice"),
    ],
)
def test_mistakes_are_told_with_file_and_field(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "prompt.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"prompt\.yaml") as caught:
        promptfile.read(tmp_path)
    assert message in str(caught.value)


def test_the_hash_covers_the_examples_that_are_shown_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "prompt.yaml"
    path.write_text("examples: {count: 1}")
    with pytest.raises(ConfigError, match=r"examples\.file: there is no"):
        promptfile.raw_input(path)
    (tmp_path / "examples.jsonl").write_text("1")
    first = promptfile.raw_input(path)
    assert set(first.files) == {"prompt.yaml", "examples.jsonl"}
    assert promptfile.raw_input(tmp_path).id == first.id
    (tmp_path / "other.txt").write_text("x")
    assert promptfile.raw_input(path).id == first.id
    (tmp_path / "examples.jsonl").write_text("2")
    assert promptfile.raw_input(path).id != first.id
    path.write_text("system: a")
    assert set(promptfile.raw_input(path).files) == {"prompt.yaml"}


def test_what_is_no_prompt_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a prompt is a prompt\.yaml"):
        promptfile.place(tmp_path / "system.txt")
    with pytest.raises(ConfigError, match="there is no such file"):
        promptfile.read(tmp_path / "prompt.yaml")
