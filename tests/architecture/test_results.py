"""Tables of results in docs/ are what was recorded."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import corpus, parity, record

PAGE = Path(__file__).parents[2] / "docs" / "results.md"


def test_the_parity_table_is_the_record() -> None:
    text = PAGE.read_text("utf-8")
    recorded = json.loads((record.RESULTS / "parity.json").read_text("utf-8"))
    assert "| smollm2-135m-instruct |" in text
    assert text == parity.page(text, recorded), "run: python -m benchmarks.parity"


def test_the_tables_of_the_corpus_are_the_record() -> None:
    text = (PAGE.parent / "corpus.md").read_text("utf-8")
    recorded = json.loads((record.RESULTS / "corpus.json").read_text("utf-8"))
    assert "| dictionaries |" in text
    assert text == corpus.page(text, recorded), "run: python -m benchmarks.corpus"


def test_the_page_of_the_corpus_tells_to_fetch_what_the_recipe_does() -> None:
    text = (PAGE.parent / "corpus.md").read_text("utf-8").replace("\\\n", "")
    (line,) = re.findall(r"^apt-get download (.*)$", text, re.MULTILINE)
    assert line.split() == corpus._packages()


@pytest.mark.parametrize("file", sorted(record.RESULTS.glob("*.json")), ids=lambda file: file.stem)
def test_no_record_names_a_place_of_the_machine_it_was_made_on(file: Path) -> None:
    def texts(value: object) -> list[str]:
        if isinstance(value, dict | list):
            inner = [*value, *value.values()] if isinstance(value, dict) else value
            return [text for one in inner for text in texts(one)]
        return [value] if isinstance(value, str) else []

    every = texts(json.loads(file.read_text("utf-8")))
    assert [text for text in every if Path(text.rpartition("=")[2]).is_absolute()] == []
