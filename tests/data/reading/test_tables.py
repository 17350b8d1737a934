import gzip
import json
import sqlite3
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from matura.core.corpus_settings import Limits
from matura.core.errors import ConfigError, MaturaError
from matura.core.records import Conversation, Document, write_conversations, write_documents
from matura.data import reading
from matura.data.reading.sql import check_query
from tests.data.reading.made_inputs import read_all, reasons, source, split

ROWS = [{"text": f'Row {i}, "quoted"\nsecond line', "title": f"T{i}", "other": i} for i in range(50)]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    import csv

    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write(path: Path) -> None:
    if path.suffix == ".parquet":
        table = pyarrow.Table.from_pylist(ROWS)
        pyarrow.parquet.write_table(table, path, row_group_size=7)
    elif path.suffix == ".csv":
        write_csv(path, ROWS)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_the_cut_changes_nothing(tmp_path: Path, name: str) -> None:
    write(tmp_path / name)
    documents, skipped = read_all(tmp_path)
    assert [document.text for document in documents] == [row["text"] for row in ROWS]
    assert not skipped
    assert documents[3].meta == {"origin": "here", "kind": "table", "title": "T3"}
    assert len({document.id for document in documents}) == 50
    for part_bytes in (60, 500, 1000):
        tasks = reading.plan({"here": source(tmp_path)}, Limits(), part_bytes)
        assert len(tasks) >= 2
        assert read_all(tmp_path, part_bytes=part_bytes) == (documents, [])


def test_rows_that_cannot_be_used_are_named_one_by_one(tmp_path: Path) -> None:
    lines = [b'{"text": "good"}', b"{broken", b'{"other": 1}', b'{"text": null}', b'{"text": 5}', b"[1]"]
    lines += [b'{"text": "caf\xe9"}', b'{"text": "' + b"x" * 3000 + b'"}', b'{"text": "last"}']
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    documents, skipped = read_all(tmp_path, limits=Limits(document_bytes=1000))
    assert [document.text for document in documents] == ["good", "caf\ufffd", "last"]
    assert documents[1].meta["replaced"] == "1"
    assert [item.reason for item in skipped] == [
        "broken",
        "no such column",
        "no text",
        "no such column",
        "no such column",
        "too large",
    ]


def test_a_line_of_endless_length_costs_itself(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.jsonl.gz", "wb", compresslevel=1) as file:
        file.write(b'{"text": "first"}\n')
        for _ in range(60):
            file.write(b"y" * (1 << 20))
        file.write(b'\n{"text": "last"}\n')
    documents, skipped = read_all(tmp_path, limits=Limits(expansion=2000))
    assert [document.text for document in documents] == ["first", "last"]
    assert [item.reason for item in skipped] == ["too large"]


def test_packed_tables_and_cut_ones(tmp_path: Path) -> None:
    text = "".join(json.dumps({"text": f"row {i} {hash(i) * 7919}"}) + "\n" for i in range(3000)).encode()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(text))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(text)[:-2000])
    documents, skipped = read_all(tmp_path)
    assert sum(document.source.startswith("a") for document in documents) == 3000
    assert 100 < sum(document.source.startswith("b") for document in documents) < 3000
    assert reasons(skipped) == {"b.jsonl.gz": "truncated"}


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_an_unknown_column_is_told_with_the_nearest(tmp_path: Path, name: str) -> None:
    write(tmp_path / name)
    documents, skipped = read_all(tmp_path, text="txt")
    assert not documents
    assert reasons(skipped) == {name: "no such column"}
    assert "did you mean 'text'" in skipped[0].detail
    with pytest.raises(MaturaError, match=r"no such column.*'txt'"):
        read_all(tmp_path, text="txt", limits=Limits(strict=True))


def test_broken_tables(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and nothing of it")
    (tmp_path / "b.csv").write_text('text,n\ngood,1\nbad,1,2\n"never closed,' + "x" * 5000)
    (tmp_path / "c.tsv").write_text("n\ttext\n1\tyes\n")
    documents, skipped = read_all(tmp_path, limits=Limits(document_bytes=1000))
    assert [document.text for document in documents] == ["good", "yes"]
    assert [item.reason for item in skipped] == ["broken", "broken", "too large"]
    assert "line 3: 3 fields" in skipped[1].detail


def database(path: Path) -> str:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE pages (id INTEGER, body TEXT, title TEXT)")
    connection.executemany(
        "INSERT INTO pages VALUES (?, ?, ?)", [(i, f"body {i}", f"t{i}") for i in range(9)]
    )
    connection.commit()
    connection.close()
    return f"sqlite:///{path}"


def from_database(url: str, query: str) -> tuple[list[Document], list[reading.Skipped]]:
    place = {**source(None, query=query, text="body"), "path": url}
    return split(
        item for task in reading.plan({"db": place}, Limits(), 1 << 20) for item in reading.read(task)
    )


def test_rows_of_a_database(tmp_path: Path) -> None:
    url = database(tmp_path / "a.db")
    documents, skipped = from_database(url, "SELECT id, body, title FROM pages WHERE id > 6 ORDER BY id;")
    assert [(d.text, d.meta["title"], d.source) for d in documents] == [
        ("body 7", "t7", "db@7"),
        ("body 8", "t8", "db@8"),
    ]
    assert not skipped
    _, skipped = from_database(url, "SELECT title FROM pages")
    assert reasons(skipped) == {"db": "no such column"}
    _, skipped = from_database(url, "SELECT body FROM nowhere")
    assert "no such table" in skipped[0].detail


@pytest.mark.parametrize(
    "query",
    [None, "", "DELETE FROM a", "SELECT 1; DROP TABLE a", "WITH x AS (SELECT 1) DELETE FROM a", "PRAGMA x"],
)
def test_only_a_select_is_run(query: str | None) -> None:
    with pytest.raises(ConfigError, match=r"query"):
        check_query(query)


def test_words_in_quotes_are_no_statements() -> None:
    assert check_query("SELECT body FROM a WHERE title = 'drop; delete'") is not None


def test_other_databases_need_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(MaturaError, match=r"pip install 'matura\[sql\]'") as caught:
        from_database("postgresql://me:secret@host/db", "SELECT body FROM a")
    assert "secret" not in str(caught.value)


def test_a_missing_database_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MaturaError, match="no database at"):
        from_database(f"sqlite:///{tmp_path}/none.db", "SELECT body FROM a")


def test_what_other_stages_made(tmp_path: Path) -> None:
    talk = Conversation("c1", ({"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}))
    (tmp_path / "replay").mkdir()
    write_conversations(tmp_path / "replay" / "train.jsonl", [talk, Conversation("t1", (), "Plain text.")])
    documents, skipped = read_all(tmp_path / "replay", made="x")
    assert [(d.text, d.source, d.meta["kind"]) for d in documents] == [
        ("Why?\n\nSo.", "train.jsonl#c1", "synthetic"),
        ("Plain text.", "train.jsonl#t1", "synthetic"),
    ]
    assert not skipped
    (tmp_path / "corpus").mkdir()
    write_documents(tmp_path / "corpus" / "train.parquet", [Document("d", "A text.", "a.md", {"kind": "md"})])
    ((document,), _) = read_all(tmp_path / "corpus", made="x")
    assert (document.text, document.source, document.meta) == (
        "A text.",
        "a.md",
        {"origin": "here", "kind": "md"},
    )
    with pytest.raises(MaturaError, match="was not made to be read"):
        read_all(tmp_path, made="x")


def test_settings_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`query` is for databases"):
        read_all(tmp_path, query="SELECT 1")
    with pytest.raises(ConfigError, match="give `path` or `made`"):
        reading.plan({"x": source(None)}, Limits(), 1 << 20)
    with pytest.raises(MaturaError, match="no folder or file at"):
        read_all(tmp_path / "nowhere")


def test_rows_through_sqlalchemy(tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy")
    url = database(tmp_path / "a.db").replace("sqlite:", "sqlite+pysqlite:")
    documents, skipped = from_database(url, "SELECT id, body, title FROM pages WHERE body LIKE '%7%'")
    assert [(d.text, d.meta["title"], d.source) for d in documents] == [("body 7", "t7", "db@7")]
    assert not skipped
    _, skipped = from_database(url, "SELECT body FROM nowhere")
    assert "no such table" in skipped[0].detail


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql+nothing://me:secret@host/db", "no driver of that name"),
        ("postgresql://me:secret@host:port/db", "is no database URL"),
        ("postgresql://me:${NO_SUCH_VARIABLE}@host/db", "NO_SUCH_VARIABLE is not set"),
        ("oracle+cx_oracle://me:secret@host/db", "needs the driver cx_Oracle"),
    ],
)
def test_databases_that_cannot_be_reached(url: str, said: str) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(MaturaError, match=said) as caught:
        from_database(url, "SELECT body FROM a")
    assert "secret" not in str(caught.value)


def test_a_row_too_large_of_a_csv_costs_itself(tmp_path: Path) -> None:
    good = 'text,n\n"first\nof two lines",1\n'
    (tmp_path / "a.csv").write_text(
        good + '"' + "x" * 3000 + '",2\nsecond,3\n' + "y" * 1500 + ",4\nth\0ird,5\n"
    )
    documents, skipped = read_all(tmp_path, limits=Limits(document_bytes=1000))
    assert [document.text for document in documents] == ["first\nof two lines", "second", "third"]
    assert [(item.reason, "line 4" in item.detail, "line 6" in item.detail) for item in skipped] == [
        ("too large", True, False),
        ("too large", False, True),
    ]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_broken_lines_are_named_by_their_number_however_it_is_cut(tmp_path: Path, suffix: str) -> None:
    lines = [json.dumps({"text": f"row {i}"}) if i % 7 else "{" for i in range(40)]
    data = "\n".join(lines).encode()
    (tmp_path / f"a.jsonl{suffix}").write_bytes(gzip.compress(data) if suffix else data)
    for part_bytes in (50, 200, 1 << 20):
        _, skipped = read_all(tmp_path, part_bytes=part_bytes)
        assert [item.detail.partition(" is")[0] for item in skipped] == [
            f"line {i + 1}" for i in range(0, 40, 7)
        ]


def test_a_damaged_row_group_costs_itself(tmp_path: Path) -> None:
    table = pyarrow.table({"text": [f"row {i} {i * 7919 % 1013}" for i in range(400)]})
    options: dict[str, Any] = {"use_dictionary": False, "write_page_checksum": True}
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=100, **options)
    with pyarrow.parquet.ParquetFile(tmp_path / "a.parquet") as file:
        column = file.metadata.row_group(1).column(0)
        at = column.data_page_offset + column.total_compressed_size // 2
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[at : at + 20] = bytes(20)
    (tmp_path / "a.parquet").write_bytes(data)
    documents, skipped = read_all(tmp_path)
    assert {int(document.source.partition("@")[2]) // 100 for document in documents} == {0, 2, 3}
    assert [(item.reason, "row group 1" in item.detail) for item in skipped] == [("broken", True)]


def test_a_table_that_changes_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n')
    tasks = reading.plan({"x": source(tmp_path)}, Limits(), 1 << 20)
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    documents, skipped = split(reading.read(tasks[0]))
    assert not documents
    assert reasons(skipped) == {"a.jsonl": "changed"}
