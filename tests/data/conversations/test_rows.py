"""Rows of files: every kind of file gives the same rows with their places, and what is broken is told."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from matura.core import records
from matura.core.errors import FormatError, MaturaError
from matura.data.conversations import rows

VALUES: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": "naïve 日本"}, {"role": "assistant", "content": "a"}]},
    {"messages": [{"role": "user", "content": "b"}, {"role": "assistant", "content": "b"}]},
]


def read(path: Path) -> list[rows.Row]:
    return [row for name, file in rows.files(path) for row in rows.read(name, file, {"messages", "a"})]


def lines(values: list[Any]) -> bytes:
    return b"".join(json.dumps(value, ensure_ascii=False).encode() + b"\n" for value in values)


def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + lines(VALUES).replace(b"\n", b"\n\n"))
    (tmp_path / "b.json").write_bytes(b" \n" + json.dumps(VALUES).encode())
    (tmp_path / "c.json").write_bytes(lines(VALUES))  # JSON Lines by another name
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(lines(VALUES)))
    (tmp_path / "sub").mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(VALUES), tmp_path / "sub" / "e.parquet")
    (tmp_path / "README.md").write_text("about")
    found = read(tmp_path)
    assert [row.values for row in found] == VALUES * 5
    assert [row.place for row in found[:4]] == ["a.jsonl:1", "a.jsonl:3", "b.json row 1", "b.json row 2"]
    assert [row.place for row in found[-2:]] == ["sub/e.parquet row 1", "sub/e.parquet row 2"]
    assert [row.values for row in read(tmp_path / "sub" / "e.parquet")] == VALUES


def test_rows_that_are_none_are_told_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_LINE_BYTES", 40)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n[1]\n{"a"\n"\xff"\n3\n' + b'{"a": "' + b"x" * 60 + b'"}\n{"a": 2}\n')
    problems = [row.problem for row in read(path) if row.values is None]
    assert len(problems) == 5
    for problem, said in zip(
        problems, ["found a list", "not JSON", "not UTF-8", "found a number", "limit"], strict=True
    ):
        assert said in problem
    assert [row.values for row in read(path) if row.values is not None] == [{"a": 1}, {"a": 2}]


def test_deep_nesting_is_a_problem_of_its_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("[" * 100_000 + "\n" + '{"a": ' * 100_000 + "\n")
    with pytest.raises(FormatError, match="not JSON"):  # a first [ makes it an array
        read(path)
    path.write_text('{"a": ' * 100_000 + "\n")
    assert "not JSON" in read(path)[0].problem


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.json", b"[1, 2", "not JSON"),
        ("a.json", b"[" + b"1," * 200 + b"1]", "Write large files as .jsonl"),
        ("a.parquet", b"PAR1 nothing", "broken after row 0"),
        ("a.jsonl.gz", b"\x1f\x8b\x08nothing", "broken: gz data"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}')[:-9], "truncated: the gz data ends"),
        ("a.csv", b"a,b\n", "are read from .jsonl"),
    ],
)
def test_broken_files_are_named(
    name: str, content: bytes, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAX_JSON_BYTES", 100)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=told) as error:
        read(tmp_path / name)
    assert str(error.value).startswith(str(tmp_path / name))


def test_a_parquet_file_that_claims_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAX_GROUP_BYTES", 10)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(VALUES), tmp_path / "a.parquet")
    with pytest.raises(FormatError, match="row group 0 unpacks to"):
        read(tmp_path / "a.parquet")
    assert records.MAX_GROUP_BYTES > 10


def test_other_columns_of_a_table_are_named_but_not_read(tmp_path: Path) -> None:
    dates = pyarrow.array([2**61, 0], pyarrow.timestamp("ms"))  # no date that Python has
    table = pyarrow.table({"a": ["x", "y"], "when": dates})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert [row.values for row in read(tmp_path)] == [{"a": "x", "when": None}, {"a": "y", "when": None}]
    pyarrow.parquet.write_table(table.rename_columns(["b", "messages"]), tmp_path / "a.parquet")
    with pytest.raises(FormatError, match="broken after row 0"):
        read(tmp_path)
    pyarrow.parquet.write_table(table.rename_columns(["b", "c"]), tmp_path / "a.parquet")
    assert [row.values for row in read(tmp_path)] == [{"b": None, "c": None}] * 2


def test_a_folder_without_files_to_read_says_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(MaturaError, match=r"holds no conversations(.|\n)*notes\.md"):
        read(tmp_path)
