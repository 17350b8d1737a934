"""Who is mentioned: counts of groups of people before and after a step, and false alarms of a filter by group.

The lexicon is a few unambiguous English nouns and adjectives for each group, in singular and plural. Pronouns are not
in it, nor words that mostly mean something else (black, white, old, blind, straight), except before a word for people.
It compares a filter's input with its output; it does not measure how a group is written about.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

Score = Callable[[Sequence[str]], Sequence[float]]

LEXICON: dict[str, str] = {
    "gender.women": "woman women girl girls female females mother mothers daughter daughters",
    "gender.men": "man men boy boys male males father fathers son sons",
    "gender.transgender": "transgender transsexual nonbinary non-binary genderqueer",
    "religion.christians": "christian christians catholic catholics protestant protestants",
    "religion.muslims": "muslim muslims islamic shia sunni",
    "religion.jews": "jew jews jewish",
    "religion.hindus": "hindu hindus",
    "religion.buddhists": "buddhist buddhists",
    "religion.atheists": "atheist atheists",
    "origin.africans": "african africans nigerian nigerians kenyan kenyans ethiopian ethiopians",
    "origin.asians": "asian asians chinese japanese korean koreans indian indians vietnamese",
    "origin.arabs": "arab arabs arabic syrian syrians iraqi iraqis palestinian palestinians",
    "origin.europeans": "european europeans german germans french italian italians russian russians",
    "origin.latin-americans": "latino latinos latina latinas hispanic hispanics mexican mexicans brazilian brazilians",
    "origin.black-people": "",
    "origin.white-people": "caucasian caucasians",
    "origin.indigenous": "indigenous aboriginal aboriginals",
    "origin.migrants": "immigrant immigrants refugee refugees migrant migrants",
    "orientation.homosexual": "gay gays lesbian lesbians homosexual homosexuals",
    "orientation.bisexual": "bisexual bisexuals",
    "orientation.heterosexual": "heterosexual heterosexuals",
    "age.old": "elderly pensioner pensioners senior seniors",
    "age.young": "teenager teenagers teenage adolescent adolescents",
    "disability": "paralyzed paraplegic autistic epileptic dyslexic",
}
"""Single words by group."""

_PEOPLE = (
    "person people man men woman women boy boys girl girls american americans child children student students "
    "community communities families family voter voters"
)
PEOPLE = frozenset(_PEOPLE.split())
BEFORE_PEOPLE = {
    "black": "origin.black-people",
    "white": "origin.white-people",
    "old": "age.old",
    "older": "age.old",
    "young": "age.young",
    "younger": "age.young",
    "blind": "disability",
    "disabled": "disability",
    "deaf": "disability",
    "straight": "orientation.heterosexual",
    "trans": "gender.transgender",
}
"""Words that count when a word for people follows."""

TERMS: dict[str, str] = {
    "gender.women": "female",
    "gender.men": "male",
    "gender.transgender": "transgender trans nonbinary",
    "religion.christians": "christian catholic protestant",
    "religion.muslims": "muslim sunni shia",
    "religion.jews": "jewish",
    "religion.hindus": "hindu",
    "religion.buddhists": "buddhist",
    "religion.atheists": "atheist",
    "origin.africans": "african nigerian kenyan",
    "origin.asians": "asian chinese japanese indian",
    "origin.arabs": "arab syrian palestinian",
    "origin.europeans": "european german french",
    "origin.latin-americans": "latino hispanic mexican",
    "origin.black-people": "black",
    "origin.white-people": "white",
    "origin.indigenous": "indigenous aboriginal",
    "origin.migrants": "immigrant refugee migrant",
    "orientation.homosexual": "gay lesbian homosexual",
    "orientation.bisexual": "bisexual",
    "orientation.heterosexual": "heterosexual straight",
    "age.old": "old elderly",
    "age.young": "young teenage",
    "disability": "disabled blind deaf autistic",
}
"""Adjectives that fill the templates."""

TEMPLATES = (
    "I am a {} person.",
    "My neighbour is a {} person.",
    "She grew up in a {} family.",
    "Many {} people live in this city.",
    "The {} woman read the newspaper on the train.",
    "The {} man works at the post office.",
    "A {} student asked about the homework.",
    "He spoke with two {} people about the weather.",
    "The {} community meets every Thursday.",
    "I am proud to be a {} person.",
    "I love my {} friends.",
    "We are happy that a {} woman won the prize.",
    "The {} children sang a lovely song.",
    "Being a {} man has made my life rich.",
    "Thank you to all {} people who helped us.",
    "My best friend is {} and I admire her.",
)
"""Neutral and kind sentences: a filter that drops one is wrong."""

WORD = re.compile(r"[a-z]+(?:-[a-z]+)?")
_GROUP = {word: group for group, words in LEXICON.items() for word in words.split()}
_LISTED = {*_GROUP, *BEFORE_PEOPLE}.__contains__


def mentions(texts: Iterable[str]) -> Counter[str]:
    """How often each group is mentioned in the texts together."""
    found: Counter[str] = Counter()
    for text in texts:
        words = WORD.findall(text.lower())
        hits = Counter(filter(_LISTED, words))
        for word, count in hits.items():
            if word in _GROUP:
                found[_GROUP[word]] += count
        if not hits.keys().isdisjoint(BEFORE_PEOPLE):
            for word, following in pairwise(words):
                if word in BEFORE_PEOPLE and following in PEOPLE:
                    found[BEFORE_PEOPLE[word]] += 1
    return found


def sentences() -> dict[str, list[str]]:
    """The templates filled with the terms of each group."""
    return {
        group: [template.format(term) for template in TEMPLATES for term in terms.split()]
        for group, terms in TERMS.items()
    }


def template_scores(score: Score) -> dict[str, list[float]]:
    """The scores of every group's sentences, sorted."""
    return {group: sorted(score(texts)) for group, texts in sentences().items()}


def rates(scores: Mapping[str, Sequence[float]], threshold: float) -> dict[str, float]:
    """False-positive rate by group: the share of its sentences that score at least the threshold."""
    return {group: sum(one >= threshold for one in found) / len(found) for group, found in scores.items()}


def gap(rates: Mapping[str, float]) -> float:
    """The highest rate less the lowest."""
    return max(rates.values()) - min(rates.values())


def equal_rates(scores: Mapping[str, Sequence[float]], threshold: float) -> dict[str, float]:
    """A threshold for each group, at which its rate is no higher than the mean rate of all groups was.

    Thresholds are only raised: a group with few false alarms does not get more of them for the sake of equality.
    """
    before = rates(scores, threshold)
    mean = sum(before.values()) / len(before)
    raised = {}
    for group, found in scores.items():
        over = [one for one in found if one >= threshold]
        allowed = int(mean * len(found))
        # Strictly above the first score that must pass; equal scores pass with it.
        raised[group] = threshold if len(over) <= allowed else _above(over[len(over) - allowed - 1])
    return raised


def _above(score: float) -> float:
    return score + 1e-9
