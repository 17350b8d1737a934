"""Parquet and Arrow files from outside, read in pieces that memory holds.

Both can say much in few bytes: packed buffers, a text that stands once and counts in every row, columns of nothing.
What a piece takes is told from the headers, before it is unpacked.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

BATCH_ROWS = 256
MAX_BATCH_BYTES = 4 << 30
RECORD_BATCH = 3
"""The type of a message that holds rows (Arrow's Message.fbs)."""


def parquet_batches(
    file: pyarrow.parquet.ParquetFile,
    columns: Collection[str] | None = None,
    *,
    groups: Iterable[int] | None = None,
    rows: int = BATCH_ROWS,
    most: int = MAX_BATCH_BYTES,
) -> Iterator[pyarrow.RecordBatch]:
    """Rows of a file, in batches of at most `rows`, and of so few that they stay below `most` bytes if the pages of
    their group have the size that the file says. (A text of their dictionaries may stand in every row, and is no larger
    than they.)

    One row is read in any case. `columns` are the columns to read and `groups` the row groups, by number; None for all.
    """
    names = None if columns is None else list(columns)
    for group in range(file.num_row_groups) if groups is None else groups:
        found = file.metadata.row_group(group)
        chunks = [found.column(number) for number in range(found.num_columns)]
        size = sum(one.total_uncompressed_size for one in chunks if _within(one.path_in_schema, columns))
        fitting = max(1, min(rows, most // max(1, size)))
        yield from file.iter_batches(fitting, row_groups=[group], columns=names)


def _within(path: str, columns: Collection[str] | None) -> bool:
    """Whether a leaf of the schema, such as `messages.list.element.role`, belongs to one of the columns."""
    return columns is None or any(path == name or path.startswith(f"{name}.") for name in columns)


def arrow_batches(content: bytes, most: int) -> Iterator[pyarrow.RecordBatch]:
    """The batches of an Arrow stream that takes at most `most` bytes, and has at most as many values, once it is
    unpacked.

    Raises ValueError for more, for a column of which rows can share values (dictionaries, views, unions, runs), and for
    a batch that is not what it says.
    """
    import pyarrow

    with pyarrow.ipc.open_stream(pyarrow.py_buffer(content)) as reader:
        for field in reader.schema:
            _check_plain(field.name, field.type)
        taken = 0
        for message in pyarrow.ipc.MessageReader.open_stream(pyarrow.py_buffer(content)):
            taken += _unpacked(message)
            if taken > most:
                raise ValueError(f"it unpacks to more than {most} bytes or values")
        for batch in reader:
            batch.validate(full=True)
            yield batch


def _check_plain(name: str, kind: pyarrow.DataType) -> None:
    from pyarrow import types

    if types.is_struct(kind):
        inside = [kind.field(number).type for number in range(kind.num_fields)]
    elif types.is_map(kind):
        inside = [kind.key_type, kind.item_type]
    elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inside = [kind.value_type]
    elif any(check(kind) for check in _plain()):
        inside = []
    else:
        raise ValueError(
            f"the column {name!r} holds {kind}, which is not read; write it as plain text or numbers"
        )
    for one in inside:
        _check_plain(name, one)


def _plain() -> list[Callable[[pyarrow.DataType], bool]]:
    """Tests for kinds of which every value has bytes of its own, or is nothing."""
    from pyarrow import types

    texts = [types.is_string, types.is_large_string, types.is_binary, types.is_large_binary]
    return [types.is_primitive, types.is_null, types.is_decimal, types.is_fixed_size_binary, *texts]


def _unpacked(message: Any) -> int:
    """Bytes of all buffers of a batch once unpacked, or its values where those are more (columns of nothing have no
    bytes). A packed buffer opens with its size; -1 stands for one that is not packed after all."""
    data = message.metadata.to_pybytes()
    try:
        root = _at(data, 0)
        kind, header = _field(data, root, 1), _field(data, root, 2)
        if not header or not kind or data[kind] != RECORD_BATCH:
            return 0
        batch = _at(data, header)
        values = sum(_size(length) for length, _ in _pairs(data, batch, 1))
        packed, body = _field(data, batch, 3), memoryview(message.body)
        size = 0
        for offset, length in _pairs(data, batch, 2):
            start = body[_size(offset) : offset + 8]
            told = struct.unpack("<q", start)[0] if packed and length else -1
            size += _size(length if told == -1 else told)
    except (struct.error, IndexError) as error:
        raise ValueError(f"the header of a batch is broken: {error}") from error
    return max(size, values)


def _size(told: int) -> int:
    if told < 0:
        raise struct.error(f"{told} is no size")
    return told


# What follows reads FlatBuffers: a table opens with the distance back to the places of its fields.


def _at(data: bytes, place: int) -> int:
    """Where the reference at a place leads."""
    return int(place + struct.unpack_from("<I", data, place)[0])


def _field(data: bytes, table: int, number: int) -> int:
    """The place of a field of a table; 0 where it is not given."""
    places = table - struct.unpack_from("<i", data, table)[0]
    if 4 + 2 * number >= struct.unpack_from("<H", data, places)[0]:
        return 0
    offset = struct.unpack_from("<H", data, places + 4 + 2 * number)[0]
    return int(table + offset) if offset else 0


def _pairs(data: bytes, table: int, number: int) -> Iterator[tuple[int, int]]:
    """The pairs of numbers in a field."""
    if not (field := _field(data, table, number)):
        return
    start = _at(data, field)
    count = struct.unpack_from("<I", data, start)[0]
    yield from struct.iter_unpack("<qq", data[start + 4 : start + 4 + 16 * count])
