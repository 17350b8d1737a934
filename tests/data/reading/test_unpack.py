import tracemalloc
from collections.abc import Callable

import pytest

from matura.data.reading.unpack import inner_name, lines


def portions(data: bytes, size: int) -> Callable[[], bytes]:
    parts = iter([data[i : i + size] for i in range(0, len(data), size)])
    return lambda: next(parts, b"")


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_lines_however_the_bytes_come(size: int) -> None:
    data = b"one\n\nthree\n" + b"x" * 20 + b"\nlast"
    expected = [(0, b"one"), (4, b""), (5, b"three"), (11, 20), (32, b"last")]
    assert list(lines(portions(data, size), 10)) == expected


def test_a_line_without_end_is_never_in_memory() -> None:
    block = b"x" * (1 << 20)
    count = iter(range(200))
    read = lambda: block if next(count, None) is not None else b""
    tracemalloc.start()
    found = list(lines(read, 10 << 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [(0, 200 << 20)]
    assert peak < 24 << 20


def test_names_below_the_packing() -> None:
    assert inner_name("a.md.GZ") == ("a.md", "gz")
    assert inner_name("a.md") == ("a.md", None)
