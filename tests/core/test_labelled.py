"""Labelled texts: what a label may be, and who is held out. (What is refused: tests/stages/test_finetune_labels.py.)"""

from pathlib import Path

import pytest

from matura.core.errors import FormatError
from matura.core.labelled import LabelledText, read_labelled


def test_labels_are_texts_numbers_and_truth(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"text": "a", "label": 1}\n\n{"text": "b", "label": "1"}\n{"label": true, "text": "c"}\n'
    )
    assert [row.label for row in read_labelled(path)] == ["1", "1", "true"]


def test_about_a_tenth_is_held_out_and_copies_stay_on_one_side() -> None:
    rows = [LabelledText(f"text {n}", "x") for n in range(2000)]
    assert 0.08 < sum(row.is_heldout for row in rows) / 2000 < 0.12
    assert LabelledText("a", "x").is_heldout == LabelledText("a", "y").is_heldout


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"Cannot read labelled texts from .*none\.jsonl: No such file"):
        read_labelled(tmp_path / "none.jsonl")
