"""Small corpora for the tests of deduplication."""

import random
from collections.abc import Sequence
from pathlib import Path

from matura.core.corpus_settings import Engine
from matura.core.records import Document, write_documents

HERE = Engine(workers=1)
VOCABULARY = [a + b + c for a in "bdfgklmn" for b in "aeiou" for c in ("n", "r", "s", "lt", "mp")]


def text(seed: int, count: int = 100) -> str:
    return " ".join(random.Random(seed).choices(VOCABULARY, k=count))


def edited(written: str, *places: int) -> str:
    listed = written.split()
    for place in places:
        listed[place] = f"new{place}"
    return " ".join(listed)


def write(folder: Path, texts: dict[str, str], parts: int = 1, *, backwards: bool = False) -> list[Path]:
    """The texts by id as part files."""
    folder.mkdir(parents=True, exist_ok=True)
    documents = [Document(name, written, "test") for name, written in texts.items()]
    if backwards:
        documents.reverse()
    paths = [folder / f"{number}.parquet" for number in range(parts)]
    for number, path in enumerate(paths):
        write_documents(path, documents[number::parts])
    return paths


def jaccard(first: str, second: str, length: int = 5) -> float:
    """By definition, from sets of word tuples."""
    one, other = (_tuples(written.lower().split(), length) for written in (first, second))
    return len(one & other) / len(one | other)


def _tuples(listed: Sequence[str], length: int) -> set[tuple[str, ...]]:
    return {tuple(listed[at : at + length]) for at in range(len(listed) - length + 1)}
