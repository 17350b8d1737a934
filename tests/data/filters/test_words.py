import unicodedata

import pytest

from matura.data.filters.words import PUNCTUATION, TERMINAL, sentences, spaces


def test_what_ends_a_sentence():
    assert set(".!?。？！।؟") <= TERMINAL
    assert not TERMINAL & set(",;:\"')…")
    assert all(unicodedata.category(one) in ("Po", "Cn", "So") for one in TERMINAL)


def test_punctuation_has_no_letters_and_no_digits():
    assert not [one for one in PUNCTUATION if one.isalnum()]
    assert "-" in PUNCTUATION
    assert "…" in PUNCTUATION
    assert "\x85" in PUNCTUATION
    assert "\n" not in PUNCTUATION


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("", 0),
        ("   ", 0),
        ("no end", 1),
        ("One. Two! Three?", 3),
        ("Version 3.5 is out.", 1),
        ('He said "no." She left.', 2),
        ("Really?! Yes.", 2),
        ("終わり。", 1),
    ],
)
def test_sentences(line, count):
    assert sentences(line) == count


@pytest.mark.parametrize("text", ["", " a\tb\x1cc\n\nd ", "naïve\u2028東京 \x85x", "\ud800 y"])
def test_spaces_are_plain_between_the_words_of_str_split(text):
    assert [
        word.decode("utf-8", "surrogatepass") for word in spaces(text).split(b" ") if word
    ] == text.split()
