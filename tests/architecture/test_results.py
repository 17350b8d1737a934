"""Tables of results in docs/ are what was recorded."""

import json
from pathlib import Path

from benchmarks import parity, record

PAGE = Path(__file__).parents[2] / "docs" / "results.md"


def test_the_parity_table_is_the_record() -> None:
    text = PAGE.read_text("utf-8")
    recorded = json.loads((record.RESULTS / "parity.json").read_text("utf-8"))
    assert "| smollm2-135m-instruct |" in text
    assert text == parity.page(text, recorded), "run: python -m benchmarks.parity"
