"""Small token shards made on the spot."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from matura.data import shards
from matura.data.shards import Coding, Group, TokenShards

Documents = Sequence[tuple[str, Sequence[int]]]


def coding(vocabulary: int = 1000, begin: int | None = None, end: int | None = None) -> Coding:
    """What the ids mean, of a tokenizer that nobody needs."""
    return Coding(vocabulary, "f" * 64, {"bos": begin, "eos": end}, begin, end)


def group(documents: Documents) -> Group:
    """Documents as (source, ids); every token is three bytes of text."""
    return Group(
        np.array([id for _, ids in documents for id in ids], dtype=np.uint32),
        np.array([len(ids) for _, ids in documents], dtype=np.int64),
        np.array([3 * len(ids) for _, ids in documents], dtype=np.int64),
        tuple(source for source, _ in documents),
    )


def write(
    folder: Path, train: Sequence[Documents], heldout: Documents = (), **more: int | None
) -> TokenShards:
    """Shards of these documents: `train` is a list of shards."""
    folder.mkdir(parents=True, exist_ok=True)
    meaning = coding(**more)  # type: ignore[arg-type]
    made = {
        "train": [
            shards.write_shard(folder, f"train-{n:05d}", meaning.dtype, [group(one)])
            for n, one in enumerate(train)
        ],
        "heldout": [shards.write_shard(folder, "heldout-00000", meaning.dtype, [group(heldout)])],
    }
    shards.write_index(folder, meaning, made)
    return shards.load(folder)
