"""How far annotators agree who ranked answers to the same prompts.

What is compared are two answers of one prompt, as each annotator saw them: the first better, the second, or a tie. So
it does not matter who ranked how many, or in which order the answers stood; they are known by their texts.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from matura.core.preferences import Ranking
from matura.data.preferences.pairs import compared
from matura.data.preferences.sides import prompt_id

SHOWN = 5
View = Mapping[tuple[str, str], int]
"""One annotator's judgements of one prompt: (text, text) in order -> 1, the first was preferred, -1 or 0."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Over `prompts` that at least two annotators judged.

    `judgements` are all (two answers, two annotators); in `strict` of them neither annotator saw a tie, and `share` of
    those have the same order (.5 is chance). `alpha` is Krippendorff's, over preferred (1), tied (0) and not preferred
    (-1) with squared differences, so ties count: 1 is perfect, 0 is chance. `tau` is Kendall's tau-b, a mean over
    prompts and pairs of annotators. A figure is None where nothing defines it. `between` has (share, strict) for each
    two annotators.
    """

    prompts: int
    annotators: int
    judgements: int
    strict: int
    share: float | None
    alpha: float | None
    tau: float | None
    between: Mapping[tuple[str, str], tuple[float, int]]


def of(rankings: Iterable[Ranking]) -> Agreement | None:
    """Compare annotators; None when no two judged the same answers. Who judged a prompt again counts with the last
    time, and rankings without an annotator do not count."""
    views: dict[str, dict[str, View]] = defaultdict(dict)
    for row in rankings:
        if row.annotator and (view := _view(row)):
            views[prompt_id(row)][row.annotator] = view
    counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])  # judged, strict, the same
    taus: list[float] = []
    prompts, units = 0, list[list[int]]()
    for of_prompt in views.values():
        units += _units(of_prompt.values())
        met = False
        for one, other in combinations(sorted(of_prompt), 2):
            both = _both(of_prompt[one], of_prompt[other])
            if not both:
                continue
            met = True
            found = [len(both), sum(a != 0 != b for a, b in both), sum(a * b > 0 for a, b in both)]
            counts[one, other] = [a + b for a, b in zip(counts[one, other], found, strict=True)]
            tau = _tau(both)
            taus += [] if tau is None else [tau]
        prompts += met
    if not counts:
        return None
    judged, strict, same = (sum(one) for one in zip(*counts.values(), strict=True))
    return Agreement(
        prompts,
        len({name for pair in counts for name in pair}),
        judged,
        strict,
        same / strict if strict else None,
        alpha([one for unit in units for one in (unit, [-value for value in unit])]),
        math.fsum(taus) / len(taus) if taus else None,
        {pair: (right / seen, seen) for pair, (_, seen, right) in counts.items() if seen},
    )


def alpha(units: Sequence[Sequence[int]]) -> float | None:
    """Krippendorff's alpha with squared differences, of the values that each unit got; None when all values are equal.

    1 - n-1 over n times the disagreement within units over that of any two values (Krippendorff, Content Analysis,
    chapter 11, interval data). Units with one value do not count.
    """
    kept = [unit for unit in units if len(unit) > 1]
    total = sum(map(len, kept))
    values = Counter(value for unit in kept for value in unit)
    expected = sum(n * m * (a - b) ** 2 for a, n in values.items() for b, m in values.items())
    if not expected:
        return None
    within = math.fsum(sum((a - b) ** 2 for a in unit for b in unit) / (len(unit) - 1) for unit in kept)
    return 1 - (total - 1) * within / expected


def describe(found: Agreement) -> list[str]:
    """Agreement in lines for people."""
    share, level, tau = (
        "-" if one is None else f"{one:{form}}"
        for one, form in zip((found.share, found.alpha, found.tau), (".1%", ".2f", ".2f"), strict=True)
    )
    lines = [
        f"{found.annotators:,} annotators judged {found.prompts:,} prompts together: {share} of {found.strict:,} pairs "
        f"in the same order, Krippendorff's alpha {level}, Kendall's tau {tau}"
    ]
    worst = sorted(found.between.items(), key=lambda item: (item[1][0], item[0]))
    if len(worst) > 1:
        lines += [f"{one} and {other}: {same:.1%} of {n:,}" for (one, other), (same, n) in worst[:SHOWN]]
    return lines


def _view(row: Ranking) -> View:
    """Judgements by text; each two texts once, however often an answer is repeated."""
    view: dict[tuple[str, str], int] = {}
    for one, other, sign in compared(row):
        if one.text < other.text:
            view.setdefault((one.text, other.text), sign)
        elif other.text < one.text:
            view.setdefault((other.text, one.text), -sign)
    return view


def _both(one: View, other: View) -> list[tuple[int, int]]:
    return [(sign, other[texts]) for texts, sign in one.items() if texts in other]


def _units(views: Iterable[View]) -> list[list[int]]:
    """What each two answers of a prompt were judged, by however many."""
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for view in views:
        for texts, sign in view.items():
            found[texts].append(sign)
    return list(found.values())


def _tau(both: Sequence[tuple[int, int]]) -> float | None:
    """Kendall's tau-b of two annotators on one prompt; None when one of them saw only ties."""
    left, right = sum(a != 0 for a, _ in both), sum(b != 0 for _, b in both)
    return sum(a * b for a, b in both) / math.sqrt(left * right) if left and right else None
