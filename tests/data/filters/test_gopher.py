import pytest

from matura.data.filters import gopher
from matura.data.filters.layout import layout
from matura.data.filters.words import PUNCTUATION
from tests.data.filters.texts import EDGES, documents, random_texts, rows

STOP = frozenset(["the", "be", "to", "of", "and", "that", "have", "with"])
PROSE = "We have seen that the quick brown animal ran with great speed to the river and came home\n" * 4


def measured(*texts):
    return rows(gopher.measures(layout(texts), STOP))


def plain(text):
    """The rules read word by word and character by character."""
    words = text.split()
    if not words:
        return {"words": 0}
    real = [word for word in words if not all(character in PUNCTUATION for character in word)]
    lines = text.splitlines()
    return {
        "words": len(real),
        "mean_word": sum(len(word) for word in real) / len(real) if real else 0,
        "hashes": text.count("#") / len(words),
        "ellipses": (text.count("...") + text.count("…")) / len(words),
        "bullet_lines": sum(line.lstrip()[:1] in ("•", "-") and line.strip() != "" for line in lines)
        / len(lines),
        "ellipsis_lines": sum(line.rstrip().endswith(("...", "…")) for line in lines) / len(lines),
        "alphabetic_words": sum(any(c.isalpha() for c in word) for word in words) / len(words),
        "stop_words": sum(word in words for word in STOP),
    }


@pytest.mark.parametrize("text", [*EDGES, *random_texts(60, seed=1)])
def test_the_numbers_are_those_of_a_plain_reading(text):
    assert measured(text) == [pytest.approx(plain(text))]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROSE, None),
        ("", "words"),
        ("too short", "words"),
        ("word " * 100_001, "words"),
        ("a b " * 50, "mean_word"),
        ("consequently-overlong " * 60, "mean_word"),
        (PROSE + "#" * 10, "hashes"),
        (PROSE + "... … " * 5, "ellipses"),
        ("- " + PROSE.replace("\n", "\n- ")[:-3], "bullet_lines"),
        (PROSE.replace("home\n", "home...\n"), "ellipsis_lines"),
        (PROSE + "2024 " * 30, "alphabetic_words"),
        ("Words without those that count here, " * 10, "stop_words"),
    ],
)
def test_each_rule_drops(text, reason):
    outcome = gopher.make()(documents(text))
    assert [one.reason for one in outcome.dropped] == ([reason] if reason else [])


def test_thresholds_and_stop_words_are_settings():
    text = "der Hund und die Katze"
    assert gopher.make()(documents(text)).dropped
    assert gopher.make(min_words=3, stop_words=("der", "und"))(documents(text)).kept


def test_a_bound_of_share_is_not_missed_by_rounding():
    words = ["letter"] * 40 + ["12"] * 10
    assert measured(" ".join(words))[0]["alphabetic_words"] == 0.8
