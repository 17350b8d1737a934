import re

import pytest

from matura.core.corpus_settings import C4
from matura.data.filters import c4
from matura.data.filters.words import sentences
from tests.data.filters.texts import EDGES, documents, random_texts

FIVE = "\n".join(f"This is sentence number {n} of the page." for n in range(5))


def plain(text):
    """The rules one after the other for every line: (reason or None, the text that is left)."""
    config = C4()
    kept = []
    for line in text.splitlines():
        line = line.strip()
        words = line.split()
        if any(len(word) > config.max_word_characters for word in words):
            continue
        line = re.sub(r"\[\d*\]|\[edit\]|\[citation needed\]", "", line)
        if not line or line[-1] not in ".?!\"'" or line.endswith("..."):
            continue
        if len(words) < config.min_line_words:
            continue
        if "lorem ipsum" in line.lower():
            return "lorem_ipsum", text
        if "javascript" in line.lower():
            continue
        if "{" in line:
            return "curly_bracket", text
        if any(words in line.lower() for words in c4.POLICY):
            continue
        kept.append(line)
    if sum(sentences(line) for line in kept) < config.min_sentences:
        return "sentences", text
    return None, "\n".join(kept)


TEXTS = [
    *EDGES,
    *random_texts(80, seed=3),
    FIVE,
    FIVE + "\nA cut line that does not end...\nno end here\nToo short.\nIt is so [12].\n",
    FIVE + "\nPlease enable JavaScript to go on.\nRead our Privacy Policy, and accept it.\n",
    FIVE + "\nHere is { a brace.\n",
    FIVE + "\nHere is { a brace in a line without an end\n",
    FIVE + "\nWith lorem IPSUM in it, and more.\n",
    FIVE + "\nWith JavaScript, and a { brace, it ends here.\n",
    FIVE + "\n" + "x" * 1001 + " is a long word.\n",
    FIVE + "\n" + "many words in a line " * 80 + "until its end.\n",
    FIVE.replace("\n", "\u2028"),
]


@pytest.mark.parametrize("text", TEXTS)
def test_decision_and_text_are_those_of_a_plain_reading(text):
    outcome = c4.make()(documents(text))
    reason, left = plain(text)
    assert [one.reason for one in outcome.dropped] == ([reason] if reason else [])
    assert [one.text for one in outcome.kept] == ([] if reason else [left])


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"terminal_punctuation": False}, "A line without its end"),
        ({"min_line_words": 1}, "Short."),
        ({"drop_javascript_lines": False}, "It is about JavaScript."),
        ({"drop_policy_lines": False}, "See the terms of use."),
        ({"drop_lorem_ipsum": False}, "It says lorem ipsum here."),
        ({"drop_curly_bracket": False}, "A brace { is here."),
        ({"max_word_characters": 2000}, "x" * 1500 + " is a word."),
    ],
)
def test_each_rule_can_be_turned_off(settings, line):
    text = f"{FIVE}\n{line}"
    (kept,) = c4.make(**settings)(documents(text)).kept
    assert kept.text == text
    assert [one.text for one in c4.make()(documents(text)).kept] != [text]


def test_kept_lines_are_measured():
    outcome = c4.make()(documents(f"{FIVE}\n" + "no end\n" * 5))
    assert outcome.measures == {"c4.sentences": [5.0], "c4.kept_lines": [0.5]}
