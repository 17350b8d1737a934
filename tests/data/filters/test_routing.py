"""Filters by language: other thresholds, none at all, stop words of the language; source code is left alone."""

import math
from typing import Any

import pytest

from matura.core.config import parse
from matura.core.corpus_settings import C4, Gopher, Quality
from matura.core.errors import ConfigError
from matura.core.records import Document
from matura.data.filters import routing, stop_words
from matura.data.steps import Outcome
from matura.stages import curate

GERMAN = "Der Hund und die Katze sind nicht im Haus von dem Mann. " * 6
ENGLISH = "The dog and the cat have to be in the house of that man. " * 6


def apply(*languages: str, text: str = GERMAN, kind: str = "", **settings: Any) -> Outcome:
    given = {"filter": "gopher", "languages": {}, **Gopher(use="on").model_dump(mode="json"), **settings}
    meta = {"kind": kind} if kind else {}
    return routing.make(**given)(
        [Document(f"{n}", text, "s", {"language": code, **meta}) for n, code in enumerate(languages)]
    )


def test_stop_words_are_those_of_the_language() -> None:
    outcome = apply("de", "en", "", "de-AT")
    assert [one.id for one in outcome.kept] == ["0", "3"]
    assert {one.reason for one in outcome.dropped} == {"stop_words"}
    assert [one.id for one in apply("de", "en", "", text=ENGLISH).kept] == ["1", "2"]
    assert [one.id for one in apply("zh", text=GERMAN).kept] == ["0"]  # no list: no rule


def test_stop_words_that_the_user_named_are_for_all() -> None:
    assert [one.id for one in apply("de", "en", stop_words=["Hund", "Katze"]).kept] == ["0", "1"]


def test_settings_of_a_language_take_the_place_of_the_others() -> None:
    languages = {"de": {"min_words": 1000}, "fr": {"use": "off"}}
    outcome = apply("de", "fr", "nl", languages=languages, min_stop_words=0)
    assert [one.id for one in outcome.kept] == ["1", "2"]
    (one,) = outcome.dropped
    assert (one.step, one.reason, one.detail) == ("gopher", "words", "words is 72; at least 1000")
    words = outcome.measures["gopher.words"]
    assert [math.isnan(value) for value in words] == [
        False,
        True,
        False,
    ]  # without the filter nothing is measured


def test_a_filter_can_be_on_for_one_language_only() -> None:
    outcome = apply("de", "en", use="off", languages={"en": {"use": "on", "min_words": 1000}})
    assert [one.id for one in outcome.kept] == ["0"]


def test_rules_of_prose_do_not_look_at_source_code() -> None:
    step = routing.make(filter="c4", languages={}, **C4(use="on").model_dump(mode="json"))
    code = Document("0", "if (x) { y(); }", "s", {"kind": "code", "language": "C"})
    assert step([code]).kept == [code]
    assert step([Document("1", code.text, "s")]).kept == []


def test_every_language_that_can_be_told_has_words_or_none_on_purpose() -> None:
    import eldc

    assert set(eldc.LANGUAGES) - {"en"} <= stop_words.STOP_WORDS.keys() | set(stop_words.WITHOUT)
    assert not stop_words.STOP_WORDS.keys() & set(stop_words.WITHOUT)
    assert all(len(set(words)) >= 8 for words in stop_words.STOP_WORDS.values())


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"de": {"gopher": {"min_word": 3}}}, r"de\.gopher\.min_word: .*did you mean 'min_words'"),
        ({"de": {"gopher": {"min_words": "many"}}}, r"de\.gopher\.min_words"),
        ({"de": {"goofer": {}}}, "goofer"),
        ({"de": {"quality": {"examples": "x"}}}, "one for all languages"),
    ],
)
def test_wrong_settings_of_a_language(filters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(curate.Config, {"path": "x", "language": {"use": "on", "filters": filters}}, "test")


def test_a_threshold_of_a_classifier_by_language() -> None:
    settings = {"path": "x", "quality": Quality(threshold=0.9).model_dump()}
    config = parse(
        curate.Config,
        settings | {"language": {"use": "on", "filters": {"de": {"quality": {"threshold": 0.1}}}}},
        "test",
    )
    assert config.language.filters == {"de": {"quality": {"threshold": 0.1}}}
