"""What the terminal and the page show of a sitting: plain values, every text from a model made harmless."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from matura.align.ranking import session
from matura.align.ranking.sitting import Progress, Sitting
from matura.core.page import visible

MOST = 100_000
"""Characters of a text that are shown."""

KEYS = (
    ("1-{n}", "place; equal places are a tie"),
    ("T", "tie with the last"),
    ("X", "not judged"),
    ("A-{last}", "go to an answer"),
    ("S", "skip the prompt"),
    ("U", "undo"),
    ("Enter", "save"),
)


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of the prompt."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Card:
    """One answer. `place` is "" (none yet), "x" (not judged) or a number; `copies` of it were written."""

    letter: str
    text: str
    place: str
    focus: bool
    cut: bool
    copies: int


@dataclass(frozen=True, slots=True)
class View:
    """All that is shown."""

    turn: int
    prompt: tuple[Turn, ...]
    cards: tuple[Card, ...]
    places: tuple[str, ...]
    complete: bool
    notice: str
    earlier: str
    can_undo: bool
    progress: Progress
    annotator: str
    keys: tuple[tuple[str, str], ...]


def view(sitting: Sitting) -> View:
    """What is to be shown now."""
    state, item = sitting.state, sitting.item
    many = len(item.shown) if item else 0
    return View(
        turn=sitting.turn,
        prompt=tuple(Turn(visible(str(one["role"]), 40), _said(one)) for one in item.row.messages)
        if item
        else (),
        cards=_cards(sitting),
        places=tuple(session.DIGITS[:many]),
        complete=bool(item) and state.complete,
        notice=state.notice,
        earlier=_earlier(sitting),
        can_undo=state.before is not None,
        progress=sitting.progress(),
        annotator=visible(sitting.annotator, 60),
        keys=_keys(many),
    )


def _keys(many: int) -> tuple[tuple[str, str], ...]:
    """The keys for so many answers; without any there is only undo."""
    if not many:
        return tuple(one for one in KEYS if one[0] == "U")
    last = session.LETTERS[many - 1].upper()
    return tuple((key.format(n=many, last=last), about) for key, about in KEYS)


def _cards(sitting: Sitting) -> tuple[Card, ...]:
    item, state = sitting.item, sitting.state
    if item is None:
        return ()
    answers = [item.row.answers[same[0]] for same in item.shown]
    return tuple(
        Card(
            letter=session.LETTERS[i].upper(),
            text=visible(answer.text, MOST),
            place="" if place is None else "x" if place == "out" else str(place),
            focus=i == state.focus,
            cut=answer.end == "length",
            copies=len(item.shown[i]),
        )
        for i, (answer, place) in enumerate(zip(answers, state.places, strict=True))
    )


def _said(message: dict[str, Any]) -> str:
    calls = message.get("tool_calls") or []
    parts = [str(message["content"]), *(json.dumps(one, ensure_ascii=False) for one in calls)]
    return visible("\n".join(filter(None, parts)), MOST)


def _earlier(sitting: Sitting) -> str:
    earlier = sitting.earlier
    if earlier is None:
        return ""
    what = "skipped" if earlier.skipped else "judged"
    return f"You {what} this prompt before. That stands until you save or skip it again."
