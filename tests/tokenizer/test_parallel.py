"""Encoding in processes: the same arrays in the same order, and a worker that dies."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from matura.core.errors import MaturaError
from matura.tokenizer import parallel
from matura.tokenizer.parallel import Around
from tests.tiny_models import chatml

GROUPS = [[f"hello {n}", "", "grüße <|im_end|>"] for n in range(15)]


def test_processes_give_what_one_gives(tmp_path: Path) -> None:
    format = chatml()
    format.save(tmp_path)
    around = Around((7,), (8, 9))
    found = []
    for workers in (1, 2):
        with parallel.encoders(tmp_path, around, workers) as encode:
            found.append([(ids.tolist(), lengths.tolist()) for ids, lengths in encode(iter(GROUPS))])
    assert found[0] == found[1]
    for (ids, lengths), texts in zip(found[0], GROUPS, strict=True):
        rows = [[7, *format.tokenizer.encode(text), 8, 9] for text in texts]
        assert ids == [id for row in rows for id in row]
        assert lengths == [len(row) for row in rows]


def test_a_worker_that_dies_is_one_clear_message(tmp_path: Path) -> None:
    chatml().save(tmp_path)

    def groups() -> Iterator[list[str]]:
        yield from GROUPS[:8]
        os.kill(a_worker(), signal.SIGKILL)
        yield from GROUPS * 20

    with (
        pytest.raises(MaturaError, match="ended by itself"),
        parallel.encoders(tmp_path, Around(), 2) as encode,
    ):
        list(encode(groups()))


def a_worker() -> int:
    """The process id of a child of this process that encodes."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            command = (place / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == os.getpid() and b"spawn_main" in command:
            return int(place.name)
    raise AssertionError("no worker is running")
