"""A sitting as a pure function of keys: which prompt, which places, what is saved. The terminal and the page only show
the state and send keys.

    1-9    place of the answer in focus (1 is the best; equal places are a tie)
    t      the place that was given last: a tie
    x      the answer is not judged
    a-i    focus
    s      skip the prompt
    u      undo
    enter  save, and go on

Digits go from answer to answer, so `2 1 3 4 enter` judges four answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from matura.align.ranking.items import MOST, Item

Place = int | None | Literal["out"]
"""1 is the best; "out": not judged; None: nothing yet."""

LETTERS = "abcdefghi"
DIGITS = "123456789"
TIE, OUT, SKIP, UNDO, SAVE = "t", "x", "s", "u", "enter"
KEYS = frozenset({*LETTERS, *DIGITS, TIE, OUT, SKIP, UNDO, SAVE})
assert len(LETTERS) == len(DIGITS) == MOST


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided: a rank for each answer of the item's row (None: not judged); none at all: it was skipped.
    `shown` are the indexes of the answers in the order of their positions."""

    item: Item
    ranks: tuple[int | None, ...]

    @property
    def shown(self) -> tuple[int, ...]:
        return tuple(answer for same in self.item.shown for answer in same)


@dataclass(frozen=True, slots=True)
class State:
    """Where a sitting is. `at` is an index of the queue (its length: all is done), `places` and `focus` go by
    position, `last` is the place that was given last. `settled` are items that were saved or skipped: undo takes
    none of them back, it only opens them again."""

    at: int
    places: tuple[Place, ...]
    focus: int = 0
    last: int | None = None
    before: State | None = field(default=None, repr=False, compare=False)
    settled: frozenset[int] = field(default=frozenset(), compare=False)
    notice: str = field(default="", compare=False)

    @property
    def complete(self) -> bool:
        """Whether every answer has its place, and two of them were judged."""
        return None not in self.places and sum(place != "out" for place in self.places) > 1


def start(queue: Sequence[Item], done: Mapping[str, object] | frozenset[str] = frozenset()) -> State:
    """The state before the first key: at the first item whose id is not in `done`."""
    settled = frozenset(i for i, item in enumerate(queue) if item.row.id in done)
    return _open(queue, _next(queue, -1, settled), settled)


def press(queue: Sequence[Item], state: State, key: str) -> tuple[State, Verdict | None]:
    """The state after a key, and the verdict if the key made one. A key that can do nothing leaves a notice."""
    if key not in KEYS:
        return _refuse(state, f"{key!r:.20} is no key here"), None
    if key == UNDO:
        return _undone(state), None
    if state.at >= len(queue):
        return _refuse(state, "Everything is judged; u opens the last one again"), None
    item = queue[state.at]
    if key == SKIP:
        return _leave(queue, state), Verdict(item, ())
    if key == SAVE:
        if not state.complete:
            return _refuse(state, _missing(state)), None
        places = [place if isinstance(place, int) else None for place in state.places]
        return _leave(queue, state), Verdict(item, item.ranks(places))
    return _placed(state, key), None


def _placed(state: State, key: str) -> State:
    """After a key that belongs to one answer."""
    many = len(state.places)
    if key in LETTERS:
        focus = LETTERS.index(key)
        if focus >= many:
            return _refuse(state, f"There is no answer {key.upper()}")
        return replace(state, focus=focus, notice="")
    if key in DIGITS and int(key) > many:
        return _refuse(state, f"There are {many} places")
    if key == TIE and state.last is None:
        return _refuse(state, "A tie with what? Give a place first")
    place: Place = "out" if key == OUT else state.last if key == TIE else int(key)
    places = (*state.places[: state.focus], place, *state.places[state.focus + 1 :])
    last = place if isinstance(place, int) else state.last
    return replace(
        state, places=places, focus=_free(places, state.focus), last=last, before=_kept(state), notice=""
    )


def _free(places: Sequence[Place], focus: int) -> int:
    """The next position that has no place, going round; the same one when all have."""
    around = [*range(focus + 1, len(places)), *range(focus)]
    return next((i for i in around if places[i] is None), focus)


def _leave(queue: Sequence[Item], state: State) -> State:
    settled = state.settled | {state.at}
    return replace(_open(queue, _next(queue, state.at, settled), settled), before=_kept(state))


def _next(queue: Sequence[Item], at: int, settled: frozenset[int]) -> int:
    """The first item after `at` that is not settled, else the first of all, else the end."""
    around = [*range(at + 1, len(queue)), *range(at + 1)]
    return next((i for i in around if i not in settled), len(queue))


def _open(queue: Sequence[Item], at: int, settled: frozenset[int]) -> State:
    return State(at, (None,) * len(queue[at].shown) if at < len(queue) else (), settled=settled)


def _undone(state: State) -> State:
    if state.before is None:
        return _refuse(state, "There is nothing to undo")
    return replace(state.before, settled=state.settled)


def _kept(state: State) -> State:
    return replace(state, notice="")


def _refuse(state: State, notice: str) -> State:
    return replace(state, notice=notice)


def _missing(state: State) -> str:
    left = [LETTERS[i].upper() for i, place in enumerate(state.places) if place is None]
    if left:
        return f"{', '.join(left)}: give a place, or x for not judged"
    return "Fewer than two answers are judged; s skips the prompt"
