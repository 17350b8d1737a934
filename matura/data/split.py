"""Set documents aside for the exam: whole documents, the same ones every time, no copy on both sides."""

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from matura.core.errors import MaturaError
from matura.core.records import Document


@dataclass(frozen=True, slots=True)
class Split:
    """Both sides, in the order the documents came in."""

    train: tuple[Document, ...]
    heldout: tuple[Document, ...]


def fingerprint(text: str) -> str:
    """A hash that two texts share when only case, spacing, punctuation or markup signs differ."""
    letters = "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())
    # A text of signs alone has no letters to compare; then the text itself counts.
    return hashlib.sha256((letters or text).encode("utf-8", "surrogatepass")).hexdigest()


def drop_duplicates(documents: Sequence[Document]) -> tuple[list[Document], list[tuple[Document, Document]]]:
    """Keep the first of each set of equal texts. Also returns the pairs (dropped, the one it repeats)."""
    first: dict[str, Document] = {}
    dropped: list[tuple[Document, Document]] = []
    for document in documents:
        original = first.setdefault(fingerprint(document.text), document)
        if original is not document:
            dropped.append((document, original))
    return list(first.values()), dropped


def split(documents: Sequence[Document], heldout: int, seed: int = 0) -> Split:
    """Hold out `heldout` documents, at most a third of all and of all text.

    The order is sha256 of the seed and a document's id: it depends neither on where the document stands nor
    on the others, so adding files moves few documents across. Copies (see `fingerprint`) stay together.

    Raises MaturaError for fewer than 3 different documents.
    """
    groups: dict[str, list[Document]] = {}
    for document in documents:
        groups.setdefault(fingerprint(document.text), []).append(document)
    if len(groups) < 3:
        left = "1 document is" if len(groups) == 1 else f"{len(groups)} different documents are"
        raise MaturaError(
            f"only {left} left to learn from; at least 3 are needed, so that some can be held out for the "
            "exam. Add files, or cut a long one into chapters."
        )
    room = min(heldout, len(documents) // 3)
    text_room = sum(len(document.text) for document in documents) // 3
    chosen: set[str] = set()
    for key in sorted(groups, key=lambda key: _rank(seed, min(document.id for document in groups[key]))):
        size = sum(len(document.text) for document in groups[key])
        if len(groups[key]) <= room and size <= text_room:
            chosen.add(key)
            room -= len(groups[key])
            text_room -= size
    if not chosen:  # every text has more copies than were asked for, or fills more than the third
        chosen.add(min(groups, key=lambda key: (len(groups[key]), len(groups[key][0].text), key)))
    sides = [(document, fingerprint(document.text) in chosen) for document in documents]
    return Split(tuple(d for d, out in sides if not out), tuple(d for d, out in sides if out))


def _rank(seed: int, identity: str) -> bytes:
    return hashlib.sha256(f"{seed}\n{identity}".encode()).digest()
