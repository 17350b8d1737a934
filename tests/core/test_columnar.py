"""Files that say much in few bytes are found out before they are unpacked."""

from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from matura.core.columnar import arrow_batches, parquet_batches

ROWS = [
    {"q": f"question {n}", "choices": {"text": ["a", "bé"], "label": [n, None]}, "none": None}
    for n in range(9)
]


def stream(table: pyarrow.Table, packing: str | None = None, rows: int = 1 << 20) -> bytes:
    sink = pyarrow.BufferOutputStream()
    options = pyarrow.ipc.IpcWriteOptions(compression=packing)
    with pyarrow.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows)
    return bytes(sink.getvalue().to_pybytes())


def read(content: bytes, most: int = 1 << 20) -> list[dict[str, Any]]:
    return [row for batch in arrow_batches(content, most) for row in batch.to_pylist()]


@pytest.mark.parametrize("packing", [None, "lz4", "zstd"])
def test_rows_come_back_as_they_were(packing: str | None) -> None:
    assert read(stream(pyarrow.Table.from_pylist(ROWS), packing, rows=4)) == ROWS


@pytest.mark.parametrize("packing", ["lz4", "zstd"])
def test_what_unpacks_to_much_is_refused_before_it_is_unpacked(packing: str) -> None:
    content = stream(pyarrow.table({"text": ["a" * 30_000_000, "b"]}), packing)
    assert len(content) < 200_000
    before = pyarrow.total_allocated_bytes()
    with pytest.raises(ValueError, match="unpacks to more than 1000000 bytes"):
        read(content, 1_000_000)
    assert pyarrow.total_allocated_bytes() - before < 1_000_000
    assert len(read(content, 30_100_000)[0]["text"]) == 30_000_000


@pytest.mark.parametrize(
    "column",
    [
        pyarrow.nulls(5_000_000),
        pyarrow.ListArray.from_arrays([0, 5_000_000], pyarrow.nulls(5_000_000)),
        pyarrow.FixedSizeListArray.from_arrays(pyarrow.nulls(5_000_000), 5_000_000),
    ],
    ids=["rows", "list", "fixed"],
)
def test_values_that_take_no_bytes_are_counted(column: pyarrow.Array) -> None:
    content = stream(pyarrow.table({"nothing": column}))
    assert len(content) < 10_000
    with pytest.raises(ValueError, match="bytes or values"):
        read(content)


@pytest.mark.parametrize(
    "column",
    [
        pyarrow.array(["a", "a"]).dictionary_encode(),
        pyarrow.RunEndEncodedArray.from_arrays(pyarrow.array([1000], pyarrow.int32()), pyarrow.array(["a"])),
        pyarrow.array(["a"], pyarrow.string_view()),
        pyarrow.array([["a"]], pyarrow.list_(pyarrow.string_view())),
    ],
    ids=["dictionary", "runs", "view", "list of views"],
)
def test_columns_whose_rows_may_share_a_value_are_refused(column: pyarrow.Array) -> None:
    with pytest.raises(ValueError, match=r"the column 'shared' holds .*, which is not read"):
        read(stream(pyarrow.table({"fine": pyarrow.nulls(len(column)), "shared": column})))


def test_a_stream_that_is_cut_or_forged_is_an_error() -> None:
    content = stream(pyarrow.Table.from_pylist(ROWS), "zstd")
    errors = (ValueError, OSError, pyarrow.ArrowException)
    for at in range(0, len(content) - 8, 7):
        forged = content[:at] + b"\xff" * 8 + content[at + 8 :]
        for broken in (content[:at], forged):
            try:
                read(broken)
            except errors:
                continue


def test_a_text_that_stands_in_many_rows_is_read_in_few_of_them() -> None:
    table = pyarrow.table({"id": list(map(str, range(500))), "text": ["a" * 100_000] * 500})
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink)
    content = sink.getvalue()
    assert content.size < 200_000
    file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content))
    batches = parquet_batches(file, most=1_000_000)
    found = [next(batches) for _ in range(3)]
    assert all(batch.nbytes < 1_000_000 for batch in found)
    assert [row["id"] for batch in found for row in batch.to_pylist()] == list(
        map(str, range(3 * len(found[0])))
    )
    assert [batch.num_rows for batch in parquet_batches(file, ["id"], rows=400)] == [400, 100]
    assert next(parquet_batches(file, most=1)).num_rows == 1


def test_all_row_groups_are_read_or_those_that_are_asked_for() -> None:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table({"id": list(range(10))}), sink, row_group_size=4)
    file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(sink.getvalue()))

    def ids(groups: list[int] | None) -> list[list[int]]:
        return [batch["id"].to_pylist() for batch in parquet_batches(file, groups=groups, rows=3)]

    assert ids(None) == [[0, 1, 2], [3], [4, 5, 6], [7], [8, 9]]
    assert ids([2, 0]) == [[8, 9], [0, 1, 2], [3]]
    assert ids([]) == []
