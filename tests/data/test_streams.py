"""Streams: pieces of the row of all documents, against the row itself."""

import random
from pathlib import Path

import pytest

from matura.core.errors import MaturaError
from matura.data.streams import Stream
from tests.token_shards import write


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[tuple[str, list[int]]]]]:
    """Three shards of documents whose sources alternate; some are empty, and one source is missing in a shard."""
    draw = random.Random(7)
    documents = [
        [
            (draw.choice("abc" if shard else "ab"), draw.choices(range(1000), k=draw.choice([0, 1, 5, 17])))
            for _ in range(30)
        ]
        for shard in range(3)
    ]
    return tmp_path_factory.mktemp("tokens"), documents


@pytest.mark.parametrize("sources", [None, ["a"], ["c"], ["a", "c"]])
def test_pieces_are_those_of_the_whole_row(corpus, sources: list[str] | None) -> None:  # type: ignore[no-untyped-def]
    folder, documents = corpus
    stream = Stream(write(folder, documents), "train", sources)
    chosen = [ids for shard in documents for source, ids in shard if sources is None or source in sources]
    row = [id for ids in chosen for id in ids]
    begins, at = set(), 0
    for ids in chosen:
        begins.add(at)
        at += len(ids)
    assert stream.tokens == len(row)
    assert [one.ids.tolist() for one in stream.each()] == chosen
    assert [one.bytes for one in stream.each()] == [3 * len(ids) for ids in chosen]
    for start in [
        0,
        1,
        len(row) - 1,
        len(row),
        3 * len(row) + 5,
        *random.Random(1).sample(range(len(row)), 50),
    ]:
        for count in (1, 7, 60, 2 * len(row) + 3):
            wanted = [(start + i) % len(row) for i in range(count)]
            assert stream.read(start, count).tolist() == [row[i] for i in wanted]
            assert stream.starts(start, count).tolist() == [n for n, i in enumerate(wanted) if i in begins]


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    made = write(tmp_path, [[("a", [1])]])
    with pytest.raises(MaturaError, match=r"no source 'b' .*it has: a"):
        Stream(made, "train", ["b"])
