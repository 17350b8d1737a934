"""Were test items in the text that a model was trained on?

An item is found when 13 of its words in a row (question and right answer; all of a shorter one, from 8 words on) stand
in a document: the rule by which curation takes test items out (`data/decontaminate.py`). What is found is a flag and
changes no figure: an item may be known without standing word for word in the text, and a quotation that many texts have
is no leak.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from matura.core.errors import ConfigError
from matura.core.records import Document
from matura.data.decontaminate import index, words
from matura.evaluate.sitting import Section

RUN = 13
"""Words in a row (arXiv:2005.14165, appendix C)."""
MOST_CHARACTERS = 500_000_000
"""Text that is searched; a larger corpus is searched as far as this."""
TOGETHER = 256


@dataclass(frozen=True)
class Search:
    """What was searched, and the ids of the items found by section; `whole` is False where text was left out."""

    documents: int
    characters: int
    whole: bool
    found: dict[str, list[str]]


def search(sections: Sequence[Section], documents: Iterable[Document]) -> Search | None:
    """Look for the items of all tasks in documents; None when no item has enough words, or there is no document.

    Where one place of a document has words of several items, the first of them counts, so the numbers are lower bounds.
    """
    tasks = [one for one in sections if one.role in ("panel", "task") and one.task.kind != "text"]
    items = [
        (one.name, item.id, _text(item.question, item.choices, item.gold))
        for one in tasks
        for item in one.items
    ]
    try:
        runs = index(items, RUN)
    except ConfigError:  # it says that all items are too short
        return None
    seen, characters, whole = 0, 0, True
    hits: set[tuple[str, str]] = set()
    for batch in _batches(documents):
        if characters >= MOST_CHARACTERS:
            whole = False
            break
        seen += len(batch)
        characters += sum(len(one.text) for one in batch)
        leaks = runs.find([words(one.text) for one in batch])
        hits |= {(leak.file, leak.item) for found in leaks for leak in found}
    if not seen:
        return None
    order = {(name, id): n for n, (name, id, _) in enumerate(items)}
    listed = sorted(hits, key=lambda one: order[one])
    found = {one.name: [id for name, id in listed if name == one.name] for one in tasks}
    return Search(seen, characters, whole, {name: ids for name, ids in found.items() if ids})


def _text(question: str, choices: Sequence[str], gold: int) -> str:
    return f"{question} {choices[gold]}"


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    left = iter(documents)
    while batch := list(islice(left, TOGETHER)):
        yield batch


def notes(search: Search, sections: Sequence[Section]) -> list[str]:
    """What was found, a sentence for each task."""
    sizes = {one.name: len(one.items) for one in sections}
    return [
        f"{name}: at least {len(ids)} of {sizes[name]} items stand in the text that was trained on "
        f"({RUN} words in a row)."
        for name, ids in search.found.items()
    ]
