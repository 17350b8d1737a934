"""The toxicity filter: the lexicon and what hides from it, learned scores, functions, thresholds by group."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from matura.core.errors import ConfigError
from matura.core.records import Document
from matura.data.filters import lexicon, toxicity


def only_jews(texts: Sequence[str]) -> list[float]:
    return [0.9 if "hate" in text else 0.6 if "jewish" in text.lower() else 0.1 for text in texts]


def too_many(texts: Sequence[str]) -> list[float]:
    return [0.1] * (len(texts) + 1)


def too_high(texts: Sequence[str]) -> list[float]:
    return [7.0] * len(texts)


def documents(*texts: str) -> list[Document]:
    return [Document(str(i), text, "made") for i, text in enumerate(texts)]


@pytest.mark.parametrize(
    "text",
    ["you idiot", "Idiots!", "1d10t", "i.d.i.o.t", "idiooooot", "an id*ot", "sh1t", "sh*t", "$h!t", "'BULLSHIT'",
     "\uff49\uff44\uff49\uff4f\uff54", "moron's"],
)  # fmt: skip
def test_an_insult_is_found_however_it_is_spelled(text: str) -> None:
    assert lexicon.scores([text]) == [0.5]


@pytest.mark.parametrize(
    "text",
    ["Scunthorpe, Penistone and Essex", "the cockpit crew assesses the class", "a shiitake cocktail", "***",
     "4 x 5 * 3", "1.0.1.0", "Dick Cheney met a gay Pakistani dyke builder", "",
     "hello!!! coooool", "the snigger of a raccoon"],
)  # fmt: skip
def test_harmless_words_are_not(text: str) -> None:
    assert lexicon.scores([text]) == [0.0]


def test_one_word_in_a_long_text_is_little() -> None:
    assert lexicon.scores(["idiot " + "word " * 999]) == [pytest.approx(0.025)]
    assert lexicon.scores(["idiot " * 60]) == [1.0]


def test_the_words_are_not_in_clear() -> None:
    groups = json.loads((Path(lexicon.__file__).parent / "lexicon.json").read_text())["words"]
    assert set(groups) == set(lexicon.WEIGHTS)
    assert all(len(one) == lexicon.DIGITS and int(one, 16) for hashes in groups.values() for one in hashes)
    assert lexicon.hashed("idiot") in groups["insults"]


def test_toxic_documents_are_dropped() -> None:
    outcome = toxicity.make(use="on")(documents("you idiot", "a kind word"))
    assert [one.id for one in outcome.kept] == ["1"]
    assert [(one.reason, one.detail) for one in outcome.dropped] == [("toxicity", "score 0.500; below 0.5")]
    assert outcome.measures == {"toxicity.score": [0.5, 0.0]}


def test_examples_can_be_learned_from(tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    rows = [
        {"text": f"{'awful nasty' if i % 2 else 'kind nice'} number {i}", "label": i % 2} for i in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    outcome = toxicity.make(score="learned", examples=str(path))(documents("awful nasty", "kind nice"))
    assert [one.id for one in outcome.kept] == ["1"]


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [({"score": "learned"}, "needs `examples`"), ({"examples": "some.jsonl"}, "belong to score: learned"),
     ({"score": "perspective"}, "there are lexicon, learned"), ({"score": "matura.nothing:here"}, "no function"),
     ({"score": f"{__name__}:too_many"}, "scores for"), ({"score": f"{__name__}:too_high"}, "gave 7.0")],
)  # fmt: skip
def test_wrong_settings_are_told(settings: dict[str, str], wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong):
        toxicity.make(**settings).report()


def test_equal_rates_spare_the_group_that_is_wronged() -> None:
    texts = documents("A Jewish family lives here.", "I hate every Jewish neighbour.", "I hate you.", "Nice.")
    same = toxicity.make(score=f"{__name__}:only_jews")
    equal = toxicity.make(score=f"{__name__}:only_jews", group_thresholds="equal-rates")
    assert [one.id for one in same(texts).kept] == ["3"]
    outcome = equal(texts)
    assert [one.id for one in outcome.kept] == ["0", "3"]
    assert outcome.counts == {"kept by a group's threshold": 1}
    assert same.report()["gap"] == {"same": 1.0, "used": 1.0}
    assert equal.report()["gap"] == {"same": 1.0, "used": 0.0}
