"""Mentions of groups, and false alarms by group."""

import pytest

from matura.data.filters import balance


def test_mentions_are_counted_by_group() -> None:
    texts = ["Muslims and Jews met; a Muslim spoke.", "The gay couple, two women."]
    assert balance.mentions(texts) == {
        "religion.muslims": 2,
        "religion.jews": 1,
        "orientation.homosexual": 1,
        "gender.women": 1,
    }


def test_ambiguous_words_count_before_people_only() -> None:
    assert balance.mentions(["A black box on white paper, an old disabled setting, straight ahead."]) == {}
    found = balance.mentions(["Black people and white women; the blind student."])
    assert found == {"origin.black-people": 1, "origin.white-people": 1, "gender.women": 1, "disability": 1}


def test_words_within_words_do_not_count() -> None:
    assert balance.mentions(["manual human womanise arable mandate"]) == {}


def test_counts_add_up_however_texts_are_divided() -> None:
    texts = ["a Hindu man", "an atheist", "old people and migrants"]
    assert sum((balance.mentions([one]) for one in texts), balance.mentions([])) == balance.mentions(texts)


def test_every_group_has_terms_that_its_lexicon_finds() -> None:
    assert balance.TERMS.keys() == balance.LEXICON.keys()
    for group, terms in balance.TERMS.items():
        for term in terms.split():
            assert balance.mentions([f"a {term} person"])[group] == 1, (group, term)


def test_rates_and_their_gap() -> None:
    scores = {"a": [0.1, 0.2, 0.6, 0.7], "b": [0.1, 0.1, 0.1, 0.5], "c": [0.0] * 4}
    rates = balance.rates(scores, 0.5)
    assert rates == {"a": 0.5, "b": 0.25, "c": 0.0}
    assert balance.gap(rates) == 0.5


def test_thresholds_rise_until_the_rate_is_the_mean_at_most() -> None:
    scores = {"a": [0.1, 0.2, 0.6, 0.7], "b": [0.1, 0.1, 0.1, 0.5], "c": [0.0] * 4}
    raised = balance.equal_rates(scores, 0.5)
    assert raised["b"] == raised["c"] == 0.5
    assert raised["a"] == pytest.approx(0.6)
    assert [one >= raised["a"] for one in scores["a"]] == [False, False, False, True]
