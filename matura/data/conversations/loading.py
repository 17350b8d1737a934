"""From files to checked conversations on two sides: to learn from, and held out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from matura.core.config import did_you_mean
from matura.core.conversation_settings import ConversationData
from matura.core.errors import FormatError, MaturaError
from matura.core.records import Conversation, Held, characters
from matura.data.conversations import rows
from matura.data.conversations.forms import COLUMNS, form_of, talk
from matura.data.split import fingerprint, held_out

Bad = tuple[str, str]
SHOWN = 5
_HELD_OUT_FILE = re.compile(
    r"(^|[/_.-])(test|valid|validation|val|dev|eval|evaluation|heldout)([/_.-]|$)", re.IGNORECASE
)


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
    for name in settings.columns:
        if name not in COLUMNS:
            raise FormatError(
                f"data.columns.{name}: nothing reads a column {name!r}{did_you_mean(name, COLUMNS)}"
            )
    sides: dict[bool, list[Conversation]] = {False: [], True: []}
    forms: dict[str, str] = {}
    bad: list[Bad] = []
    known = rows.files(root)
    names = [name for name, _ in known if root.is_dir() and _HELD_OUT_FILE.search(name)]
    apart = set(names) if len(names) < len(known) else set()
    held = Held(root)
    for name, path in known:
        for found in _file(name, path, settings, forms):
            if isinstance(found, Conversation):
                sides[name in apart].append(held.add(found))
            else:
                bad.append(found)
    total = sum(map(len, sides.values())) + len(bad)
    if bad and (settings.bad_rows == "error" or len(bad) == total):
        raise _bad_rows(root, bad, total)
    if not sides[False]:
        raise FormatError(f"{root}: there are no rows")
    if not apart:
        sides = _split(sides[False], settings.heldout)
    return Loaded(tuple(sides[False]), tuple(sides[True]), forms, tuple(bad))


def prompt_of(row: Conversation) -> str:
    """What is asked before the first answer: rows of one prompt belong on one side. Of a plain text, all of it."""
    asked = []
    for one in row.messages:
        if one["role"] == "assistant":
            break
        if one["role"] != "system":
            asked.append(one["content"])
    return "\n".join(asked) if row.messages else row.text


def _file(
    name: str, path: Path, settings: ConversationData, forms: dict[str, str]
) -> Iterator[Conversation | Bad]:
    """The conversations of a file, and the bad rows."""
    for row in rows.read(name, path, COLUMNS.union(settings.columns.values())):
        if row.values is None:
            yield row.place, row.problem
            continue
        try:
            values = _renamed(row.values, settings.columns)
            if name not in forms:
                forms[name] = settings.form if settings.form != "auto" else form_of(values)
            found = talk(forms[name], values)
        except FormatError as error:
            yield row.place, str(error)
            continue
        yield Conversation(row.place, found.messages, found.text, tools=found.tools)


def _renamed(values: dict[str, object], columns: Mapping[str, str]) -> dict[str, object]:
    for ours, theirs in columns.items():
        if theirs not in values:
            raise FormatError(f"data.columns.{ours}: there is no column {theirs!r}, but {', '.join(values)}")
    taken = set(columns.values())
    rest = {name: value for name, value in values.items() if name not in taken and name not in columns}
    return rest | {ours: values[theirs] for ours, theirs in columns.items()}


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


def _bad_rows(root: Path, bad: list[Bad], total: int) -> MaturaError:
    """One line for each thing that is wrong, with the first row that has it."""
    places: dict[str, list[str]] = {}
    for place, problem in bad:
        places.setdefault(problem, []).append(place)
    lines = [
        f"{rows[0]}: {problem}" + (f" (and {len(rows) - 1:,} rows more)" if len(rows) > 1 else "")
        for problem, rows in list(places.items())[:SHOWN]
    ]
    if len(places) > SHOWN:
        lines.append(f"... and {len(places) - SHOWN:,} problems more")
    none = len(bad) == total
    what = "no row is a conversation" if none else f"{len(bad):,} of {total:,} rows are no conversations"
    hint = "" if none else "\nMend them, or leave them out: data.bad_rows=drop"
    return FormatError(f"{root}: {what}:\n  " + "\n  ".join(lines) + hint)
