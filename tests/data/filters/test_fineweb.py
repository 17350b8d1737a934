import pytest

from matura.data.filters import fineweb
from matura.data.filters.layout import layout
from matura.data.filters.words import TERMINAL
from tests.data.filters.texts import EDGES, documents, random_texts, rows


def plain(text, short):
    """The rules read line by line."""
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        return {"lines": 0}
    again = [line for i, line in enumerate(lines) if line in lines[:i]]
    return {
        "lines": len(lines),
        "lines_with_punctuation": sum(any(line.endswith(end) for end in TERMINAL) for line in lines)
        / len(lines),
        "short_lines": sum(len(line) <= short for line in lines) / len(lines),
        "duplicate_line_characters": len("".join(again)) / len(text.replace("\n", "")),
        "newlines_per_word": text.count("\n") / len(text.split()),
    }


@pytest.mark.parametrize("text", [*EDGES, *random_texts(60, seed=2)])
def test_the_numbers_are_those_of_a_plain_reading(text):
    assert rows(fineweb.measures(layout([text]), 10)) == [pytest.approx(plain(text, 10))]


GOOD = "This is a line of text that is long enough, number {}.\n"
PROSE = "".join(GOOD.format(n) for n in range(10)).strip()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROSE, None),
        ("", "lines"),
        (" \n\t\n", "lines"),
        (PROSE.replace(".", ""), "lines_with_punctuation"),
        ("Short one.\n" * 3, "short_lines"),
        (PROSE + "\n" + GOOD.format(3), "duplicate_line_characters"),
        (PROSE.replace("\n", "\n" * 8), "newlines_per_word"),
    ],
)
def test_each_rule_drops(text, reason):
    outcome = fineweb.make()(documents(text))
    assert [one.reason for one in outcome.dropped] == ([reason] if reason else [])


def test_thresholds_are_settings():
    text = "Short one.\nShort two."
    assert fineweb.make()(documents(text)).dropped
    assert fineweb.make(short_line_characters=5)(documents(text)).kept
    assert fineweb.make(max_short_lines=1.0)(documents(text)).kept
