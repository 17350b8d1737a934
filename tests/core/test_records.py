import json
from pathlib import Path

import pytest

from matura.core import records
from matura.core.errors import FormatError
from matura.core.records import (
    Conversation,
    Document,
    characters,
    read_conversations,
    read_documents,
    said,
    write_conversations,
    write_documents,
)

DOCUMENTS = [
    Document("1", "Grüße,\n\nWelt \U0001f600", "a.md"),
    Document("2", "", "sub/b.md", {"title": "B", "author": "x"}),
]


def test_documents_come_back_as_written_in_equal_bytes(tmp_path: Path) -> None:
    assert write_documents(tmp_path / "a.parquet", iter(DOCUMENTS)) == 2
    write_documents(
        tmp_path / "b.parquet", [DOCUMENTS[0], Document("2", "", "sub/b.md", {"author": "x", "title": "B"})]
    )
    assert list(read_documents(tmp_path / "a.parquet")) == DOCUMENTS
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "b.parquet"]


def test_no_documents_are_a_file_too(tmp_path: Path) -> None:
    assert write_documents(tmp_path / "a.parquet", []) == 0
    assert list(read_documents(tmp_path / "a.parquet")) == []


def test_documents_are_read_group_by_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet

    monkeypatch.setattr(records, "ROWS_IN_GROUP", 3)
    many = [Document(str(i), "x" * i, "s") for i in range(10)]
    write_documents(tmp_path / "a.parquet", many)
    with pyarrow.parquet.ParquetFile(tmp_path / "a.parquet") as file:
        assert file.num_row_groups == 4
    assert list(read_documents(tmp_path / "a.parquet")) == many


def test_text_that_is_not_unicode_names_its_document(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"a\.parquet: document '2' from 'b\.md' is not valid Unicode"):
        write_documents(tmp_path / "a.parquet", [DOCUMENTS[0], Document("2", "\udcff", "b.md")])
    assert list(tmp_path.iterdir()) == []


def test_broken_documents_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "a.parquet"
    for content in (b"", b"not parquet at all", b"PAR1" + b"\xff" * 50 + b"PAR1"):
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"Cannot read documents from .*a\.parquet"):
            list(read_documents(path))
    with pytest.raises(FormatError, match="Cannot read"):
        list(read_documents(tmp_path / "missing.parquet"))
    pyarrow.parquet.write_table(pyarrow.table({"id": ["1"], "body": ["x"]}), path)
    with pytest.raises(FormatError, match=r"no column 'text' .*id, body"):
        list(read_documents(path))
    write_documents(path, DOCUMENTS)
    monkeypatch.setattr(records, "MAX_GROUP_BYTES", 10)
    with pytest.raises(FormatError, match="row group 0 unpacks to"):
        list(read_documents(path))


def test_a_truncated_documents_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_documents(path, DOCUMENTS)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FormatError, match="Cannot read documents"):
        list(read_documents(path))


def test_conversations_come_back_as_written(tmp_path: Path) -> None:
    rows = [
        Conversation(
            "a", ({"role": "user", "content": "Grüß dich\u2028"}, {"role": "assistant", "content": ""})
        ),
        Conversation("b", (), "plain text"),
        Conversation("c", (), ""),
        Conversation(
            "d",
            (
                {"role": "user", "content": "x"},
                {
                    "role": "assistant",
                    "content": "",
                    "weight": 0.5,
                    "tool_calls": [{"function": {"name": "f"}}],
                },
            ),
            provenance={"teacher": "t"},
            tools=({"name": "f"},),
        ),
    ]
    assert write_conversations(tmp_path / "a.jsonl", rows) == 4
    assert list(read_conversations(tmp_path / "a.jsonl")) == rows
    assert "Grüß" in (tmp_path / "a.jsonl").read_text(encoding="utf-8")
    with pytest.raises(FormatError, match="both messages and text"):
        write_conversations(tmp_path / "a.jsonl", [Conversation("d", rows[0].messages, "and text")])
    assert list(read_conversations(tmp_path / "a.jsonl")) == rows


def test_all_that_is_said_is_one_text() -> None:
    messages = ({"role": "user", "content": "Hello\nyou"}, {"role": "assistant", "content": "Hi"})
    talk, plain = Conversation("a", messages), Conversation("b", (), "some text")
    assert (said(talk), said(plain)) == ("Hello\nyou\nHi", "some text")
    assert (characters(talk), characters(plain)) == (11, 9)


def test_ids_and_empty_lines_are_optional(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('\n{"messages": [{"role": "user", "content": "hi"}]}')
    assert [row.id for row in read_conversations(path)] == ["line-2"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected an object"),
        ('{"mesages": []}', "unknown key 'mesages'; did you mean 'messages'"),
        ('{"id": 3, "text": "x"}', "must be text"),
        ('{"id": "x"}', "found neither"),
        ('{"messages": [{"role": "user", "content": "x"}], "text": "y"}', "found both"),
        ('{"messages": "hi"}', "must be a list"),
        ('{"messages": ["hi"]}', r"messages\[0\] must be an object"),
        ('{"messages": [{"role": "user", "contents": "x"}]}', "no 'content'; did you mean 'contents'"),
        ('{"messages": [{"role": "user", "content": null}]}', "content must be text, found NoneType"),
        ('{"messages": [{"role": "", "content": "x"}]}', "role is empty"),
        (
            '{"messages": [{"role": "user", "content": "x", "weight": "1"}]}',
            "weight must be a number, found str",
        ),
        ('{"messages": [{"role": "user", "content": "x", "weight": true}]}', "must be a number, found bool"),
        ('{"messages": [{"role": "user", "content": "x", "weight": -1}]}', "weight must be 0 or more"),
        ('{"messages": [{"role": "user", "content": "x", "weight": Infinity}]}', "weight must be 0 or more"),
        ('{"messages": [{"role": "user", "content": "x", "tool_calls": "f"}]}', "tool_calls must be a list"),
        ('{"text": "x", "tools": ["f"]}', "'tools' must be a list of objects"),
        ("\xff", "not valid JSON"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, row: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    good = json.dumps({"id": "ok", "text": "fine"})
    path.write_bytes(good.encode() + b"\n" + row.encode("latin-1") + b"\n")
    with pytest.raises(FormatError, match=rf"a\.jsonl:2.*{message}"):
        list(read_conversations(path))


def test_long_lines_and_missing_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "x" * 100}))
    monkeypatch.setattr(records, "MAX_LINE_BYTES", 50)
    with pytest.raises(FormatError, match=r":1: the line is longer"):
        list(read_conversations(path))
    with pytest.raises(FormatError, match="Cannot read conversations"):
        list(read_conversations(tmp_path / "missing.jsonl"))
