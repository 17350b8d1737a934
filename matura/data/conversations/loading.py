"""From files to checked conversations on two sides: to learn from, and held out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from matura.core.conversation_settings import ConversationData
from matura.core.errors import FormatError
from matura.core.records import Conversation, Held, characters
from matura.data.conversations import rows
from matura.data.conversations.files import Bad, check_columns, read, renamed
from matura.data.conversations.forms import COLUMNS, check_read, form_of, talk
from matura.data.conversations.messages import opening
from matura.data.split import fingerprint, held_out


@dataclass(frozen=True)
class Loaded:
    """Both sides, in the order of the files; the form of each file; and the rows left out: (place, what is wrong)."""

    train: tuple[Conversation, ...]
    heldout: tuple[Conversation, ...]
    forms: dict[str, str]
    bad: tuple[Bad, ...] = ()


def load(root: Path, settings: ConversationData) -> Loaded:
    """Read a file or a folder.

    In a folder, files (or folders) named test, validation, dev, ... are held out, as datasets mean it. Without such
    files `settings.heldout` rows are held out by a hash of their prompt, so rows of one prompt stay on one side and
    new rows move few others.

    Raises FormatError for bad rows, with what is wrong, where first, and how many they are (unless they are to be
    dropped), for a broken file, and when no row is left; MaturaError for more text than memory should hold.
    """
    forms: dict[str, str] = {}
    held = Held(root)
    check_columns(settings.columns, COLUMNS)
    found = read(
        root, lambda name, path: _file(name, path, settings, forms, held), "conversation", settings.bad_rows
    )
    sides = found.sides
    if not sides[False]:
        raise FormatError(f"{root}: there are no rows")
    if not found.apart:
        sides = _split(sides[False], settings.heldout)
    return Loaded(tuple(sides[False]), tuple(sides[True]), forms, tuple(found.bad))


def prompt_of(row: Conversation) -> str:
    """What is asked before the first answer: rows of one prompt belong on one side. Of a plain text, all of it."""
    return opening(row.messages) if row.messages else row.text


def _file(
    name: str, path: Path, settings: ConversationData, forms: dict[str, str], held: Held
) -> Iterator[Conversation | Bad]:
    """The conversations of a file, and the bad rows."""
    for row in rows.read(name, path, COLUMNS.union(settings.columns.values())):
        if row.values is None:
            yield row.place, row.problem
            continue
        try:
            values = renamed(row.values, settings.columns)
            if name not in forms:
                forms[name] = settings.form if settings.form != "auto" else form_of(values)
            if settings.form == "auto":
                check_read(forms[name], values)
            found = talk(forms[name], values)
        except FormatError as error:
            yield row.place, str(error)
            continue
        yield held.add(Conversation(row.place, found.messages, found.text, tools=found.tools))


def _split(found: list[Conversation], heldout: int) -> dict[bool, list[Conversation]]:
    prompts = [fingerprint(prompt_of(row)) for row in found]
    sizes = [characters(row) for row in found]
    if heldout == 0 or len(set(prompts)) < 3:
        return {False: found, True: []}
    chosen = held_out(zip(prompts, prompts, sizes, strict=True), heldout)
    sides: dict[bool, list[Conversation]] = {False: [], True: []}
    for row, prompt in zip(found, prompts, strict=True):
        sides[prompt in chosen].append(row)
    return sides
