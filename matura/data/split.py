"""Set documents aside for the exam: whole documents, the same ones every time, no copy on both sides."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from matura.core.errors import MaturaError
from matura.core.records import Document

NO_LETTERS = re.compile(r"[\W_]+")  # all but letters and digits
ASCII_SIGNS = bytes(code for code in range(128) if not chr(code).isalnum())


@dataclass(frozen=True, slots=True)
class Split:
    """Both sides, in the order the documents came in."""

    train: tuple[Document, ...]
    heldout: tuple[Document, ...]


def fingerprint(text: str) -> str:
    """A hash that two texts share when only case, spacing, punctuation or markup signs differ."""
    if text.isascii():  # the same result, several times faster
        data = text.encode()
        return hashlib.sha256(data.lower().translate(None, ASCII_SIGNS) or data).hexdigest()
    letters = NO_LETTERS.sub("", unicodedata.normalize("NFKC", text).casefold())
    # A text of signs alone has no letters to compare; then the text itself counts.
    return hashlib.sha256((letters or text).encode("utf-8", "surrogatepass")).hexdigest()


def split(documents: Sequence[Document], heldout: int, seed: int = 0) -> Split:
    """Hold out `heldout` documents, as `held_out` chooses them. Copies (see `fingerprint`) stay together."""
    entries = [(fingerprint(document.text), document.id, len(document.text)) for document in documents]
    chosen = held_out(entries, heldout, seed)
    sides = [(document, copy in chosen) for document, (copy, _, _) in zip(documents, entries, strict=True)]
    return Split(tuple(d for d, out in sides if not out), tuple(d for d, out in sides if out))


def held_out(entries: Iterable[tuple[str, str, int]], heldout: int, seed: int = 0) -> set[str]:
    """Which texts to hold out: `heldout` documents, at most a third of all and of all text.

    An entry is (what equal texts share, identity, characters); the first of these names what is held out. The order is
    sha256 of the seed and an identity: it depends neither on where a document stands nor on the others, so adding files
    moves few documents across.

    Raises MaturaError for fewer than 3 different documents.
    """
    groups: dict[str, list[tuple[str, int]]] = {}
    for copy, identity, characters in entries:
        groups.setdefault(copy, []).append((identity, characters))
    if len(groups) < 3:
        left = "1 document is" if len(groups) == 1 else f"{len(groups)} different documents are"
        raise MaturaError(
            f"only {left} left to learn from; at least 3 are needed, so that some can be held out for the "
            "exam. Add files, or cut a long one into chapters."
        )
    room = min(heldout, sum(map(len, groups.values())) // 3)
    text_room = sum(characters for group in groups.values() for _, characters in group) // 3
    chosen: set[str] = set()
    for key in sorted(groups, key=lambda key: _rank(seed, min(groups[key])[0])):
        size = sum(characters for _, characters in groups[key])
        if len(groups[key]) <= room and size <= text_room:
            chosen.add(key)
            room -= len(groups[key])
            text_room -= size
    if not chosen:  # every text has more copies than were asked for, or fills more than the third
        chosen.add(min(groups, key=lambda key: (len(groups[key]), groups[key][0][1], key)))
    return chosen


def _rank(seed: int, identity: str) -> bytes:
    return hashlib.sha256(f"{seed}\n{identity}".encode()).digest()
