"""What rankings are made of, counted: what a person should know before a model learns from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matura.core.preferences import Ranking
from matura.data.preferences import agreement, pairs
from matura.data.preferences.loading import Loaded
from matura.data.preferences.sides import groups, prompt_id

FORMS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts over rankings.

    `groups` stand on one side of a split each. `answers` has the number of rankings by number of answers. `pairs` are
    those that `pairs.of` makes; `ties` two judged answers of which neither was preferred; `equal` two equal texts of
    which one was preferred, which makes no pair; `skipped` answers that nobody judged beside judged ones; `without`
    rankings that make no pair; `repeated_answers` texts that their ranking has already; `repeated` rankings that are
    there already, with prompt, judged answers and annotator; `empty` answers without a letter; `cut` answers whose
    writer ran out of tokens. `longer` is the share of pairs in which the longer answer (in characters) was preferred,
    of the `unequal` pairs that differ in length: what a reward model has to beat.
    """

    rankings: int
    prompts: int
    groups: int
    annotators: int
    answers: Mapping[int, int]
    pairs: int
    ties: int
    equal: int
    skipped: int
    without: int
    liked: int
    disliked: int
    repeated_answers: int
    repeated: int
    empty: int
    cut: int
    longer: float | None
    unequal: int


def of(rankings: Iterable[Ranking]) -> Statistics:
    """Count. An empty list has zeros and no share."""
    rows = list(rankings)
    count: Counter[str] = Counter()
    there: set[Any] = set()
    for row in rows:
        count.update(_counted(row))
        key = (prompt_id(row), row.annotator, tuple(sorted((one.text, *_judged(one)) for one in row.answers)))
        count["repeated"] += key in there
        there.add(key)
    return Statistics(
        rankings=len(rows),
        prompts=len({prompt_id(row) for row in rows}),
        groups=len(set(groups(rows))),
        annotators=len({row.annotator for row in rows if row.annotator}),
        answers=dict(sorted(Counter(len(row.answers) for row in rows).items())),
        **{name: count[name] for name in _COUNTS},
        longer=count["longer"] / count["unequal"] if count["unequal"] else None,
    )


_LEFT = ("ties", "equal", "skipped", "without", "repeated_answers", "repeated", "empty", "cut")
_COUNTS = ("pairs", "unequal", "liked", "disliked", *_LEFT)


def _judged(answer: Any) -> tuple[str, str, str]:
    return str(answer.rank), str(answer.score), str(answer.liked)


def _counted(row: Ranking) -> Counter[str]:
    made = pairs.of(row)
    lengths = [len(one.chosen.text) - len(one.rejected.text) for one in made]
    value = pairs.value_of(row)
    signs = [(one.text == other.text, sign) for one, other, sign in pairs.compared(row)]
    return Counter(
        pairs=len(made),
        ties=sum(sign == 0 for _, sign in signs),
        equal=sum(same and sign != 0 for same, sign in signs),
        skipped=sum(value(one) is None for one in row.answers) if value else 0,
        without=not made,
        liked=sum(one.liked is True for one in row.answers),
        disliked=sum(one.liked is False for one in row.answers),
        repeated_answers=len(row.answers) - len({one.text for one in row.answers}),
        empty=sum(not one.text.strip() for one in row.answers),
        cut=sum(one.end == "length" for one in row.answers),
        longer=sum(one > 0 for one in lengths),
        unequal=sum(one != 0 for one in lengths),
    )


def describe(loaded: Loaded) -> list[str]:
    """What was read, in lines for people: counts, what was left out and why, and how far annotators agree."""
    rows = (*loaded.train, *loaded.heldout)
    found = of(rows)
    lines = [f"{name}: {form}" for name, form in list(loaded.forms.items())[:FORMS_SHOWN]]
    if len(loaded.forms) > FORMS_SHOWN:
        lines.append(f"... and {len(loaded.forms) - FORMS_SHOWN:,} files more")
    sides = f"{len(loaded.train):,} to learn from, {len(loaded.heldout):,} held out"
    lines.append(
        f"{found.rankings:,} rankings of {found.prompts:,} prompts in {found.groups:,} groups ({sides})"
    )
    sizes = ", ".join(f"{size} answers: {count:,}" for size, count in found.answers.items())
    lines += [f"rankings with {sizes}"] if sizes else []
    lines.append(f"{found.pairs:,} pairs; {found.without:,} rankings make none")
    if found.longer is not None:
        lines.append(f"the longer answer was preferred in {found.longer:.1%} of {found.unequal:,} pairs")
    told = _told(found)
    lines += ["; ".join(told)] if told else []
    lines += [f"dropped: {count:,}, because {why}" for why, count in loaded.found.get("dropped", {}).items()]
    lines += [f"bad rows left out: {len(loaded.bad):,}"] if loaded.bad else []
    if both := on_both_sides(loaded.train, loaded.heldout):
        lines.append(
            f"{both:,} held-out rankings share a prompt or a group with what is learned: their figures flatter"
        )
    if (agreed := agreement.of(rows)) is not None:
        lines += agreement.describe(agreed)
    return lines


def on_both_sides(train: Sequence[Ranking], heldout: Sequence[Ranking]) -> int:
    """Held-out rankings that belong together with one to learn from; none where the split was made here."""
    names = groups([*train, *heldout])
    learned = set(names[: len(train)])
    return sum(name in learned for name in names[len(train) :])


def _told(found: Statistics) -> list[str]:
    texts = {
        "thumbs up": found.liked,
        "thumbs down": found.disliked,
        "ties": found.ties,
        "answers skipped": found.skipped,
        "pairs of equal texts left out": found.equal,
        "answers repeated within a ranking": found.repeated_answers,
        "rankings repeated": found.repeated,
        "empty answers": found.empty,
        "answers cut off": found.cut,
    }
    return [f"{what}: {count:,}" for what, count in texts.items() if count]
