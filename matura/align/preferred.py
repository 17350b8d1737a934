"""Preferences as token ids: what reward models and preference losses learn from.

A prompt's ids are those that an answer is generated after; an answer's are those that would have been generated, with
the stop token where it ended by itself. Both come from the one renderer.

What does not fit is decided here and counted:

- an answer that with its prompt is longer than `length` drops its pairs ("too long"), or with truncation "cut" keeps
  its beginning, without a stop token;
- a prompt is never cut: where it leaves no room for an answer, its pairs are dropped ("answer cut away");
- two answers that have become the same ids make no pair ("equal answers"), nor does an answer without a token
  ("empty").

The weights of a ranking's remaining pairs stay as they are, so a prompt that lost pairs counts less.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple

from matura.align.sequences import Ids, Prompted
from matura.core.errors import MaturaError
from matura.core.preferences import Answer, Pair, Ranking
from matura.tokenizer.conversation import Format
from matura.train.examples import CUT_AWAY, EMPTY, LONG, seen

EQUAL, UNJUDGED, ALONE = "equal answers", "not judged", "no pair"
Truncation = Literal["drop", "cut"]


class Choice(NamedTuple):
    """Which answer of a prompt was preferred to which, by how much where that is known, and how much that counts."""

    chosen: int
    rejected: int
    weight: float = 1.0
    margin: float | None = None


class Thumb(NamedTuple):
    """What was thought of an answer by itself, and how much that counts."""

    answer: int
    liked: bool
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Preferred:
    """A prompt with its answers in token ids, and what was preferred: pairs, or thumbs. `id` is the ranking's."""

    id: str
    prompt: Ids
    answers: tuple[Ids, ...]
    choices: tuple[Choice, ...] = ()
    thumbs: tuple[Thumb, ...] = ()

    @property
    def prompted(self) -> Prompted:
        """The ids alone."""
        return Prompted(self.prompt, self.answers)

    @property
    def size(self) -> int:
        """Tokens that run through the model."""
        return self.prompted.size

    @property
    def weight(self) -> float:
        """How much all of it counts."""
        return sum(one.weight for one in self.choices) + sum(one.weight for one in self.thumbs)

    @property
    def trained(self) -> int:
        """Number of pairs and thumbs."""
        return len(self.choices) + len(self.thumbs)


class Made(NamedTuple):
    """Preferences in token ids, and how many pairs or answers were dropped for each reason."""

    preferred: list[Preferred]
    dropped: Counter[str]


def answered(format: Format, ranking: Ranking, answer: Answer) -> Prompted:
    """The ids of a ranking's prompt and of one answer to it, whole.

    Raises MaturaError naming the ranking that the template cannot write.
    """
    messages = [seen(message) for message in ranking.messages]
    try:
        rendered = format.render([*messages, {"role": "assistant", "content": answer.text}], ranking.tools)
    except MaturaError as error:
        raise MaturaError(f"ranking {ranking.id!r}: {error}") from error
    _, start, end = rendered.answers[-1]
    end -= answer.end == "length"  # nobody should learn to stop there
    return Prompted(tuple(rendered.ids[:start]), (tuple(rendered.ids[start:end]),))


Write = Callable[[Format, Ranking, Answer], Prompted]
"""How an answer and its prompt become ids: `answered`, or what a model without a template reads."""


def from_pairs(
    pairs: Iterable[Pair],
    format: Format,
    length: int,
    *,
    truncation: Truncation = "drop",
    write: Write = answered,
) -> Made:
    """Pairs with the answers that they share read once: neighbours of one ranking become one `Preferred`."""
    made = Made([], Counter())
    for _, group in groupby(pairs, key=lambda pair: id(pair.prompt)):
        its = list(group)
        ranking, book = its[0].prompt, _Book(format, its[0].prompt, length, truncation, write)
        choices: dict[tuple[int, int], Choice] = {}
        for pair in its:
            chosen, rejected = book.find(pair.chosen), book.find(pair.rejected)
            if isinstance(chosen, str) or isinstance(rejected, str):
                made.dropped[chosen if isinstance(chosen, str) else str(rejected)] += 1
            elif chosen == rejected:
                made.dropped[EQUAL] += 1
            else:
                before = choices.get((chosen, rejected), Choice(chosen, rejected, 0.0))
                choices[chosen, rejected] = Choice(chosen, rejected, before.weight + pair.weight, pair.margin)
        if choices:
            made.preferred.append(book.preferred(ranking, tuple(choices.values()), ()))
    return made


def from_thumbs(
    rankings: Iterable[Ranking], format: Format, length: int, *, truncation: Truncation = "drop"
) -> Made:
    """Answers that someone liked or did not, each by itself; those without a thumb are passed over and counted."""
    made = Made([], Counter())
    for ranking in rankings:
        book = _Book(format, ranking, length, truncation, answered)
        thumbs = []
        for answer in ranking.answers:
            found = UNJUDGED if answer.liked is None else book.find(answer)
            if isinstance(found, str):
                made.dropped[found] += 1
            else:
                thumbs.append(Thumb(found, bool(answer.liked)))
        if thumbs:
            made.preferred.append(book.preferred(ranking, (), tuple(thumbs)))
    return made


class _Book:
    """The answers of one ranking in token ids, each once."""

    def __init__(
        self, format: Format, ranking: Ranking, length: int, truncation: Truncation, write: Write
    ) -> None:
        self.format, self.ranking = format, ranking
        self.length, self.truncation, self.write = length, truncation, write
        self.prompt: Ids = ()
        self.answers: list[Ids] = []
        self._known: dict[tuple[str, str], int | str] = {}

    def find(self, answer: Answer) -> int | str:
        """The number of an answer, or why it is dropped."""
        key = answer.text, answer.end
        if key not in self._known:
            self.prompt, (ids,) = self.write(self.format, self.ranking, answer)
            self._known[key] = self._place(ids)
        return self._known[key]

    def _place(self, ids: Ids) -> int | str:
        room = self.length - len(self.prompt)
        if not ids:
            return EMPTY
        if room < 1:
            return CUT_AWAY
        if len(ids) > room:
            if self.truncation == "drop":
                return LONG
            ids = ids[:room]
        if ids not in self.answers:
            self.answers.append(ids)
        return self.answers.index(ids)

    def preferred(
        self, ranking: Ranking, choices: tuple[Choice, ...], thumbs: tuple[Thumb, ...]
    ) -> Preferred:
        """Its answers that are used, numbered anew."""
        used = sorted(
            {n for one in choices for n in (one.chosen, one.rejected)} | {one.answer for one in thumbs}
        )
        new = {old: number for number, old in enumerate(used)}
        return Preferred(
            ranking.id,
            self.prompt,
            tuple(self.answers[old] for old in used),
            tuple(one._replace(chosen=new[one.chosen], rejected=new[one.rejected]) for one in choices),
            tuple(one._replace(answer=new[one.answer]) for one in thumbs),
        )
