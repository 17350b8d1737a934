"""What the figures of each panel are for models that know, that know nothing, and that have no preference."""

import hashlib
import re

import pytest

from matura.core.panel_settings import Panels
from matura.data import canary
from matura.evaluate.asking import Score, Scored
from matura.evaluate.panels import registry
from matura.evaluate.panels.sheet import Room
from matura.evaluate.rows import Sources
from tests.evaluate.panels import made_rows

IDS = [f"d{n}" for n in range(12)]


def scores_of(texts):
    """A classifier for the tests: "bad" is toxic."""
    return [float("bad" in text) for text in texts]


@pytest.fixture
def room(tmp_path):
    folder, corpus = tmp_path / "rows", tmp_path / "corpus"
    folder.mkdir()
    corpus.mkdir()
    made_rows.write(folder)
    canary.save(corpus, canary.plan(IDS, rates=[1, 4], each=3))
    return Room(Sources(folder=folder), 4096, lambda text: len(text.split()), corpus)


def asked(room, model, **settings):
    """The one panel's figures, by name and part, for a model: a function of a request."""
    (sheet,) = registry.sheets(Panels.model_validate(settings), room)
    replies = [[model(request) for request in item] for item in sheet.asked]
    assert len(sheet.marks(replies)) == len(sheet.items)
    (made,) = registry.results([sheet], {"child": {sheet.name: replies}}, resamples=1000, seed=0)
    return {(one["name"], one["part"]): one["value"] for one in made["figures"]}


def scored(value):
    return Scored(float(value), False, 1, 1)


def flat(request):
    """A model to which every text is as likely as any other, and that writes nothing."""
    return scored(-1.0) if isinstance(request, Score) else ""


def noise(request):
    """A model whose likelihoods are chance."""
    digest = hashlib.sha256(repr(request).encode()).digest()
    return scored(-int.from_bytes(digest[:4], "big") / 2**32) if isinstance(request, Score) else ""


def fond_of(*words):
    """A model to which a text with one of the words is likelier."""

    def model(request):
        if not isinstance(request, Score):
            return ""
        return scored(-1.0 if any(word in request.continuation for word in words) else -90.0)

    return model


# Instructions


def test_following_all_instructions_and_none(room):
    settings = {"ifeval": {"prompts": 9}}
    all_of_them = asked(room, lambda request: '"tea"', **settings)
    assert {all_of_them[name, ""] for name in ("prompt_strict", "instruction_strict")} == {1.0}
    none = asked(room, lambda request: "milk, and more", **settings)
    assert set(none.values()) == {0.0}
    # Half of the prompts ask for no comma alone; the others for quotation marks and a word.
    some = asked(room, lambda request: "tea", **settings)
    assert (some["prompt_strict", ""], some["instruction_strict", ""]) == (1 / 2, 4 / 6)
    assert some["instruction_strict", "startend"] == 0


# Bias


def test_no_preference_is_half(room):
    found = asked(room, flat, bias={"crows_pairs": 9})
    assert set(found.values()) == {0.5}
    assert asked(room, fond_of("Poor"), bias={"crows_pairs": 9})["preference", ""] == 1
    assert asked(room, fond_of("Rich"), bias={"crows_pairs": 9})["preference", ""] == 0


def test_the_gap_is_zero_without_understanding_and_one_for_stereotypes_alone(room):
    found = asked(room, flat, bias={"winobias": 9})
    assert found["gap", ""] == 0
    assert found["preference", ""] == 0.5

    found = asked(room, by_occupation, bias={"winobias": 9})
    assert found["right, as stereotypes expect", ""] == 1
    assert found["right, against stereotypes", ""] == 0
    assert found["gap", ""] == 1


def test_which_twin_is_likelier_is_told_by_the_sentences(room):
    def usual(request):
        if not isinstance(request, Score) or request.context:
            return scored(-1.0)
        return scored(
            -1.0 if "because he" in request.continuation or "if she" in request.continuation else -2.0
        )

    assert asked(room, usual, bias={"winobias": 9})["preference", ""] == 1


def by_occupation(request):
    """Whoever does the work that statistics expect of the pronoun's gender, whatever the sentence says."""
    expected = ("developer", "guard") if '"he"' in request.context else ("designer", "nurse")
    return scored(-1.0 if any(one in request.continuation for one in expected) else -90.0)


def test_bbq_for_a_model_that_declines_and_one_that_always_names_the_same(room):
    declines = asked(room, fond_of("Not known"), bias={"bbq": 99})
    assert declines["right, ambiguous", ""] == 1
    assert declines["right, disambiguated", ""] == 0
    assert declines["bias, ambiguous", ""] == 0
    assert declines["bias, disambiguated", ""] is None  # no answer but "unknown"
    # Always the old man: biased where the question asks for something bad, against it where for the opposite.
    always = asked(room, fond_of("old man"), bias={"bbq": 99})
    assert (always["bias, ambiguous", ""], always["bias, disambiguated", ""]) == (0, 0)
    assert always["right, disambiguated", ""] == pytest.approx(1 / 3)  # two of six


def test_sense_and_stereotypes_apart(room):
    found = asked(room, fond_of("stereotype", "anti-stereotype"), bias={"stereoset": 9})
    assert found["language model", ""] == 1
    assert found["preference", ""] == 0.5
    assert found["icat", ""] == 1
    assert asked(room, fond_of("He is stereotype"), bias={"stereoset": 9})["icat", ""] == 0


# Toxicity


def test_toxicity_of_what_is_written_about_one_group(room):
    settings = {
        "toxicity": {"prompts": 400, "samples": 2, "score": "tests.evaluate.panels.test_sheets:scores_of"}
    }
    harmless = asked(room, lambda request: "They sang.", **settings)
    assert set(harmless.values()) == {0.0}
    found = asked(room, lambda request: "bad" if "elderly" in request.prompt else "good", **settings)
    assert 0 < found["toxic in 2", "age.old"] < 1  # "old" and "elderly" are both terms of the group
    assert found["toxic in 2", "age.young"] == 0
    assert found["worst of 2", ""] == found["toxic in 2", ""] == found["toxic continuations", ""]


def test_continuations_of_a_prompt_have_seeds_of_their_own(room):
    (sheet,) = registry.sheets(Panels.model_validate({"toxicity": {"prompts": 3, "samples": 4}}), room)
    seeds = [request.seed for item in sheet.asked for request in item]
    assert len(set(seeds)) == 12
    assert {request.temperature for item in sheet.asked for request in item} == {1.0}


# Memorisation


def test_planted_secrets_are_exposed_by_a_model_that_read_them(room):
    secrets = [one.secret for one in canary.plan(IDS, rates=[1, 4], each=3)]

    def read_them(request):
        if isinstance(request, Score):
            return scored(-1.0 if request.context + request.continuation in secrets else -20.0)
        return next((one[len(request.prompt) :] for one in secrets if one.startswith(request.prompt)), "no")

    settings = {"memorisation": {"others": 7, "controls": 4}}
    found = asked(room, read_them, **settings)
    for part in ("planted 1 times", "planted 4 times"):
        assert (found["exposure", part], found["extracted", part]) == (3, 1)
    assert (found["exposure", "planted nowhere"], found["extracted", "planted nowhere"]) == (0, 0)
    nothing = asked(room, noise, memorisation={"others": 255, "controls": 200})
    assert abs(nothing["exposure", "planted nowhere"] - 1.44) < 0.35
    assert nothing["extracted", "planted 4 times"] == 0


# Long contexts


def reads(request):
    """A model that finds the number in the text."""
    prompt = request.context if isinstance(request, Score) else request.prompt
    name = re.search(r"What is the number of the (.*)\?", prompt)[1]
    told = re.search(rf"number of the {name} is (\d+)\.", prompt)
    if isinstance(request, Score):
        return scored(-1.0 if told and told[1] in request.continuation else -9.0)
    return f" {told[1]}." if told else " unknown"


def test_a_number_is_found_where_it_is_and_nowhere_else(room):
    settings = {"needle": {"lengths": [200, 400], "depths": [0.0, 0.5, 1.0], "each": 2}}
    found = asked(room, reads, **settings)
    assert {value for (_, part), value in found.items() if part != "without the number"} == {1.0}
    assert {value for (_, part), value in found.items() if part == "without the number"} == {0.0}
    assert set(asked(room, flat, **settings).values()) == {0.0}


def test_a_model_that_takes_any_number_is_at_chance(room):
    found = asked(room, noise, needle={"lengths": [150], "depths": [0.5], "each": 200})
    assert abs(found["likeliest of the numbers", "150 tokens, depth 0.5"] - 0.2) < 0.07


# Abstention


def test_a_model_that_reads_declines_where_it_must(room):
    def careful(request):
        prompt = request.context if isinstance(request, Score) else request.prompt
        text, question = re.search(r"Text: (.*)\nQuestion: (.*)\n", prompt).groups()
        name = next(word for word in re.findall(r"[A-Z]\w+", question)[1:])
        verb = {"live": "lives", "job": "works", "pet": "pet", "instrument": "plays", "favourite": "likes"}
        key = next(value for word, value in verb.items() if word in question)
        line = next((one for one in text.split(". ") if one.startswith(name) and key in one), None)
        words = re.findall(r"\w+", line or "")
        if not isinstance(request, Score):
            return f" {line}" if line else " The text does not say."
        said = any(re.search(rf"\b{word}\b", request.continuation) for word in words[2:])
        return scored(-1.0 if (said if line else "does not say" in request.continuation) else -99.0)

    found = asked(room, careful, abstention={"pairs": 20})
    for part in ("chosen", "written"):
        assert (found["gain", part], found["declined with evidence", part]) == (1, 0)
    assert found["pairs told apart", "likelihood"] == 1
    assert found["right among the answers, with evidence", "likelihood"] == 1


def test_a_model_that_always_declines_gains_nothing(room):
    found = asked(room, fond_of("does not say"), abstention={"pairs": 20})
    assert found["gain", "chosen"] == 0
    assert found["pairs told apart", "likelihood"] == 0.5


# Robustness


def test_a_model_that_goes_by_the_letter_turns_with_the_order_of_options(room):
    settings = {"robustness": {"tasks": ["animals"], "items": 14}}
    found = asked(room, fond_of("A"), **settings)
    assert found["acc, as it is", ""] == 1 / 2
    assert found["turned", "options"] == 1
    assert found["change", "options"] == 0
    assert found["turned", "typos"] == found["turned", "paraphrase"] == 0
    assert found["right in every form", ""] == 0
