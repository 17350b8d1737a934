"""Conversations out of documents: what patterns find, on which side it stands, and what is left out."""

import json
from pathlib import Path
from typing import Any

import pydantic
import pytest

from matura.core.errors import MaturaError
from matura.core.extract_settings import Extract
from matura.core.records import Document, read_conversations
from matura.data.synthesis.extracting import found, in_share, make

SETTINGS: dict[str, Any] = {
    "documents": "$corpus",
    "split": r"(?m)^\*\*",
    "source": r"^(?P<place>[^/]+)/",
    "text": r"^To (?P<task>[^*\n]+)\*\*\n(?s:.*?)\n(?P<command> +run (?:[^\n]*\\\n)*[^\n]*)",
    "question": "{place}: {task}",
    "answer": "{command}",
}


def page(name: str, *tasks: str) -> Document:
    parts = [
        f"**To {task}**\n\nSo it is done:\n\n    run {task.split()[0]} \\\n        --now\n\nOutput.\n"
        for task in tasks
    ]
    return Document(f"id-{name}", "Before.\n" + "\n".join(parts), f"{name}/page.rst")


def said(rows: list[Any]) -> list[tuple[str, str]]:
    return [(row.messages[0]["content"], row.messages[1]["content"]) for row in rows]


def test_every_piece_gives_a_conversation_and_blocks_lose_their_shared_indentation() -> None:
    side = found(
        [page("box", "open it", "close it"), Document("plain", "no heading", "x/y")], Extract(**SETTINGS)
    )
    assert said(side.rows) == [
        ("box: open it", "run open \\\n    --now"),
        ("box: close it", "run close \\\n    --now"),
    ]
    assert side.documents == 2
    assert side.rows[0].provenance == {"document": "id-box", "source": "box/page.rst"}
    assert len({row.id for row in side.rows}) == 2


def test_without_split_a_document_gives_one_and_without_its_source_pattern_none() -> None:
    whole = Extract(documents="c", text=r"To (?P<question>[^*\n]+)\*\*\n(?s:.*?)(?P<answer>run [a-z]+)")
    assert said(found([page("box", "open it", "close it")], whole).rows) == [("open it", "run open")]
    elsewhere = Extract(**SETTINGS | {"source": "^other/(?P<place>.)"})
    assert not found([page("box", "open it")], elsewhere).rows


def test_held_out_documents_are_held_out_and_their_questions_are_not_learned(tmp_path: Path) -> None:
    held = [page("box", "open it")]
    train = [
        page("lid", "open it", "turn it"),
        Document("copy", page("box", "open it").text, "box/again.rst"),
    ]
    report = make(train, held, Extract(**SETTINGS), tmp_path)
    assert said(list(read_conversations(tmp_path / "heldout.jsonl"))) == [
        ("box: open it", "run open \\\n    --now")
    ]
    learned = said(list(read_conversations(tmp_path / "train.jsonl")))
    assert [question for question, _ in learned] == ["lid: open it", "lid: turn it"]
    assert report["left_out"]["train"] == {"asked before": 1}
    assert report == json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))


def test_shares_of_documents_meet_nowhere_and_leave_nothing_out() -> None:
    documents = [page(f"n{i}", f"do {i}", f"undo {i}") for i in range(200)]
    parts = [
        {
            one.id
            for one in documents
            if in_share(one.id, Extract(**SETTINGS | {"first": first, "last": last}))
        }
        for first, last in ((0.0, 0.7), (0.7, 1.0), (0.0, 1.0))
    ]
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == parts[2] == {one.id for one in documents}
    assert 120 < len(parts[0]) < 160


def test_long_and_empty_ones_are_left_out_and_counted() -> None:
    short = Extract(**SETTINGS | {"max_characters": 15})
    assert found([page("box", "open it")], short).left_out == {"too long": 1}
    blank = Extract(documents="c", text="(?P<question>.)(?P<answer> *)")
    assert found([Document("d", "x   ", "s")], blank).left_out == {"empty": 1}


def test_patterns_that_find_nothing_are_an_error_that_says_where(tmp_path: Path) -> None:
    with pytest.raises(MaturaError, match="nothing in 1 held-out documents"):
        make([page("a", "go")], [Document("d", "nothing", "s")], Extract(**SETTINGS), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": r"(?<=x)(?P<task>.)(?P<command>.)"}, "no pattern of RE2"),
        ({"text": "no group"}, "needs at least one group"),
        ({"question": "{tusk}"}, "no group 'tusk'; did you mean 'task'"),
        ({"answer": "always"}, "always be the same"),
        ({"source": "(?P<task>.)"}, "two groups are named 'task'"),
        ({"first": 0.7, "last": 0.7}, "must be below"),
        ({"documents": None}, "needs `extract.documents`"),
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        Extract(**SETTINGS | changes)
