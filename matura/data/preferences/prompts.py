"""Prompts without answers, to sample from and for rewards: from whatever has prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from matura.core.artifact import Artifact
from matura.core.errors import FormatError
from matura.core.preference_settings import PreferenceData
from matura.core.preferences import HELDOUT, TRAIN, Ranking
from matura.core.raw import RawInput
from matura.core.records import Conversation, read_conversations
from matura.data.conversations.forms import ANSWERS, near, said
from matura.data.conversations.messages import tools_of
from matura.data.preferences import forms, sides
from matura.data.preferences.asked import LAST_QUESTION, check_prompt, prompt
from matura.data.preferences.forms import Dropped, gold, question_and_answer
from matura.data.preferences.loading import (
    Loaded,
    artifact_sides,
    check_settings,
    in_sides,
    nothing,
    read_files,
)

SAME, TEXT = "the prompt was there already", "a plain text has no prompt"


def load(given: Artifact | RawInput, settings: PreferenceData) -> Loaded:
    """Prompts of a `conversations`, `preferences` or `samples` artifact, or of files of those or of prompts alone.

    Of a conversation the last assistant's message becomes the fact `gold`, and what comes before it is the prompt. A
    prompt that is there already (with the same facts) is dropped and counted, also from the held-out side. All may be
    held out. Raises as `loading.load` does.
    """
    if isinstance(given, RawInput):
        return load_files(given.path, settings)
    check_settings(given, settings)
    dropped: Counter[str] = Counter()
    if given.kind == "conversations":
        held = [_of_talks(read_conversations(given.file(name)), dropped) for name in (TRAIN, HELDOUT)]
    else:
        held = artifact_sides(given)
    return _done(str(given.path), held, settings.heldout, dropped)


def load_files(root: Path, settings: PreferenceData) -> Loaded:
    """Prompts of a file or a folder; see `load`."""
    seen: dict[str, str] = {}
    held, bad, apart, dropped = read_files(root, settings, seen, _form_of, _read, "prompt")
    loaded = _done(str(root), held if apart else held[:1], settings.heldout, dropped)
    return replace(loaded, forms=seen, bad=tuple(bad), found=loaded.found | {"bad_rows": len(bad)})


def of_conversation(row: Conversation) -> Ranking:
    """The prompt before the last answer of a conversation, which is its gold answer. Raises FormatError when it holds
    no prompt."""
    asked, answer = question_and_answer(list(row.messages), [])
    check_prompt(asked, f"conversation {row.id!r}: messages")
    facts = {} if answer is None else {"gold": answer}
    return Ranking(row.id, tuple(asked), facts=facts, tools=row.tools, provenance=row.provenance)


def _of_talks(rows: Iterable[Conversation], dropped: Counter[str]) -> Iterator[Ranking]:
    for row in rows:
        if row.messages:
            yield of_conversation(row)
        else:
            dropped[TEXT] += 1


def _done(name: str, held: Iterable[Iterable[Ranking]], heldout: int, dropped: Counter[str]) -> Loaded:
    """Each prompt once, on one side."""
    there: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
    made: list[list[Ranking]] = []
    for side in held:
        made.append([])
        for row in side:
            key = (sides.prompt_id(row), tuple(sorted(row.facts.items())))
            if key in there:
                dropped[SAME] += 1
            else:
                there.add(key)
                made[-1].append(replace(row, answers=(), annotator=""))
    if not any(made):
        raise nothing(name, dropped)
    return in_sides(made, heldout, dropped)


def _form_of(values: Mapping[str, Any]) -> str:
    try:
        return forms.form_of(values)
    except FormatError:
        return "prompts"


def _read(form: str, values: Mapping[str, Any], place: str) -> Iterator[Ranking | Dropped]:
    if form != "prompts":
        yield from forms.read(form, values, place)
        return
    name, asked = prompt(values)
    if not asked:
        raise FormatError("has no prompt" + near("prompt", values))
    column = next(
        (one for one in ANSWERS if values.get(one) is not None and one not in (name, LAST_QUESTION)), None
    )
    before, answer = question_and_answer(asked, said("assistant", values[column], column) if column else [])
    check_prompt(before, name)
    facts = gold(values) or ({} if answer is None else {"gold": answer})
    yield Ranking(place, tuple(before), facts=facts, tools=tools_of(values.get("tools")))
