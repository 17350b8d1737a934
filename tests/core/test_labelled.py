"""Labelled texts: what a label may be, and who is held out. (What is refused: tests/stages/test_finetune_labels.py.)"""

from dataclasses import replace
from pathlib import Path

import pytest

from matura.core import artifact
from matura.core.artifact import Artifact
from matura.core.errors import FormatError
from matura.core.labelled import LabelledText, read_labelled, read_labelled_corpus
from matura.core.records import Document, write_documents


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


def test_a_corpus_has_the_names_of_its_sources_as_labels(tmp_path: Path) -> None:
    rows = [Document(f"d{n}", f"text {n}", f"{n}.txt", {"origin": "ab"[n % 2]}) for n in range(6)]
    made = of(tmp_path / "two", rows)
    found = read_labelled_corpus(made)
    assert [(row.text, row.label, row.is_heldout) for row in found] == [
        (f"text {n}", "ab"[n % 2], n >= 4) for n in range(6)
    ]
    plain = of(tmp_path / "plain", [Document(f"d{n}", f"text {n}", f"{n}.txt") for n in range(6)])
    with pytest.raises(FormatError, match=r"have no labels\. Curate with `sources`"):
        read_labelled_corpus(plain)
    with pytest.raises(FormatError, match="1 label in 6 rows"):
        read_labelled_corpus(of(tmp_path / "one", [replace(row, meta={"origin": "a"}) for row in rows]))


def of(folder: Path, rows: list[Document]) -> Artifact:
    """A corpus of documents, of which the last two are held out."""
    draft = artifact.begin(folder, kind="corpus", stage="curate", version=1, config={}, inputs={})
    write_documents(draft.path / "train.parquet", rows[:-2])
    write_documents(draft.path / "heldout.parquet", rows[-2:])
    return draft.commit({})
