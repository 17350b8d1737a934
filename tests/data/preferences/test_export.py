"""Rows for TRL: what is written is read as the same pairs again."""

import json
from pathlib import Path

import pytest

from matura.core.errors import FormatError
from matura.core.preferences import Answer, Ranking
from matura.data.preferences import export, pairs
from matura.data.preferences.loading import load_files
from tests.data.preferences.rows import ALL, said

ASKED = (said("system", "s"), said("user", "q"), said("assistant", "a"), said("user", "r"))
RANKED = Ranking("r", ASKED, (Answer("b", 2), Answer("a", 1), Answer("", 3), Answer("d"), Answer("e", 3)))


def told(rows: tuple[Ranking, ...]) -> list[tuple[object, str, str]]:
    return [(p.prompt.messages, p.chosen.text, p.rejected.text) for row in rows for p in pairs.of(row)]


def test_four_ranks_with_a_tie_make_five_rows(tmp_path: Path) -> None:
    rows = list(export.to_trl([RANKED]))
    assert rows[0] == {
        "prompt": list(ASKED), "chosen": [said("assistant", "a")], "rejected": [said("assistant", "b")],
    }  # fmt: skip
    assert len(rows) == 5
    assert export.write_trl(tmp_path / "trl.jsonl", [RANKED]) == 5
    assert [json.loads(line) for line in (tmp_path / "trl.jsonl").read_text().splitlines()] == rows
    again = load_files(tmp_path / "trl.jsonl", ALL)
    assert told(again.train) == told((RANKED,))


def test_every_row_has_tools_or_none_has() -> None:
    tooled = Ranking("t", (said("user", "q"),), (Answer("a", 1), Answer("b", 2)), tools=({"name": "f"},))
    assert [row["tools"] for row in export.to_trl([tooled, RANKED])] == [[{"name": "f"}], [], [], [], [], []]


def test_thumbs_are_unpaired_rows() -> None:
    rows = list(
        export.to_trl_unpaired(
            [Ranking("t", ASKED, (Answer("a", liked=True), Answer("b"), Answer("c", liked=False)))]
        )
    )
    assert rows == [
        {"prompt": list(ASKED), "completion": [said("assistant", text)], "label": label}
        for text, label in (("a", True), ("c", False))
    ]


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "trl.jsonl"
    path.write_text("old")
    with pytest.raises(FormatError, match=r"trl\.jsonl: pair 1 is not valid Unicode"):
        export.write_trl(path, [Ranking("t", ASKED, (Answer("\ud800", 1), Answer("b", 2)))])
    assert path.read_text() == "old"
