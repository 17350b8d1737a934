"""Replies come back with the same bits, and only for exactly the same question to the same model."""

from pathlib import Path

import pytest

from matura.evaluate import shelf
from matura.evaluate.asking import Roll, Score, Scored, Write
from matura.evaluate.score import Bits
from matura.evaluate.shelf import Shelf

REPLIES = [Scored(-1 / 3, True, 5, 2), Bits(0.1 + 0.2, 9, 3), "written\ntext"]


def test_replies_come_back_bit_for_bit(tmp_path: Path) -> None:
    kept = Shelf(tmp_path / "run", tmp_path / "shared")
    kept.write("ab12", [shelf.pack(one) for one in REPLIES])
    assert not (tmp_path / "run").exists()
    again = Shelf(tmp_path / "other run", tmp_path / "shared").read("ab12")
    assert again is not None
    assert [shelf.unpack(one) for one in again] == REPLIES
    assert Shelf(tmp_path / "elsewhere").read("ab12") is None


@pytest.mark.parametrize("content", ["", "{", '{"version": 1}', '{"version": 0, "values": []}', "[]"])
def test_what_cannot_be_read_is_asked_again(tmp_path: Path, content: str) -> None:
    kept = Shelf(tmp_path)
    kept.write("ab12", ["text"])
    (tmp_path / "ab" / "ab12.json").write_text(content)
    assert kept.read("ab12") is None


def test_a_key_covers_model_window_and_every_request() -> None:
    asked = [Score("a", " b"), Roll("c"), Write("d", ("e",), 8)]
    keys = {
        shelf.key("model", 64, asked),
        shelf.key("other", 64, asked),
        shelf.key("model", 65, asked),
        shelf.key("model", 64, asked[:2]),
        shelf.key("model", 64, [Score("a ", "b"), *asked[1:]]),
        shelf.key("model", 64, [*asked[:2], Write("d", ("e",), 9)]),
    }
    assert len(keys) == 6
    assert shelf.key("model", 64, list(asked)) in keys
