import re
from collections import Counter

import pytest

from matura.data.filters import repetition
from matura.data.filters.layout import layout
from tests.data.filters.texts import EDGES, documents, random_texts, rows

TOP, DUPLICATE = (2, 3, 4), (5, 6, 7, 8, 9, 10)


def run_shares(texts, top, duplicate):
    return rows(repetition.run_shares(layout(texts), top, duplicate))


def plain_runs(text):
    """Each n by itself, with every run of words as a tuple."""
    words = text.split()
    found = {}
    for n in TOP:
        runs = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        if runs:
            run, count = Counter(runs).most_common(1)[0]
            found[f"top_{n}_gram"] = len(" ".join(run)) * count / len(text)
    for n in DUPLICATE:
        seen, characters, i = set(), 0, 0
        while i + n <= len(words):
            run = tuple(words[i : i + n])
            if run in seen:
                characters += len("".join(run))
                i += n
            else:
                seen.add(run)
                i += 1
        if text:
            found[f"duplicate_{n}_grams"] = characters / len(text)
    return found


def plain_parts(text):
    def again(parts):
        return [part for i, part in enumerate(parts) if part in parts[:i]]

    paragraphs, lines = re.split(r"\n{2,}", text.strip()), re.split(r"\n+", text)
    return {
        "characters": len(text),
        "duplicate_paragraphs": len(again(paragraphs)) / len(paragraphs),
        "duplicate_paragraph_characters": len("".join(again(paragraphs))) / len(text),
        "duplicate_lines": len(again(lines)) / len(lines),
        "duplicate_line_characters": len("".join(again(lines))) / len(text),
    }


@pytest.mark.parametrize("seed", range(4))
def test_runs_are_those_of_a_plain_reading_whatever_else_is_in_the_batch(seed):
    texts = [*EDGES, *random_texts(150, seed)]
    found = run_shares(texts, TOP, DUPLICATE)
    for text, shares in zip(texts, found, strict=True):
        assert shares == pytest.approx(plain_runs(text)), text
    assert any(shares.get("duplicate_10_grams", 0) > 0.1 for shares in found)
    assert run_shares([texts[-1]], TOP, DUPLICATE) == [found[-1]]


@pytest.mark.parametrize("text", [one for one in [*EDGES, *random_texts(60, seed=9)] if one])
def test_lines_and_paragraphs_are_those_of_a_plain_reading(text):
    outcome = repetition.make()(documents(text))
    found = {name.removeprefix("repetition."): values[0] for name, values in outcome.measures.items()}
    for name, value in plain_parts(text).items():
        assert found[name] == pytest.approx(value), name


def test_only_the_lengths_of_the_settings_are_counted():
    shares = run_shares(["a b c a b c a b c a b c"], (3,), (6,))
    assert sorted(shares[0]) == ["duplicate_6_grams", "top_3_gram"]
    assert repetition.run_shares(layout(["a b a b"]), (), ()) == {}
    assert run_shares([], TOP, DUPLICATE) == []


def test_a_run_counts_again_only_if_it_was_read_before():
    # "a a a a": the second pair overlaps the first and is read; the pair behind it is the first to repeat.
    assert run_shares(["a a a a"], (), (2,)) == [{"duplicate_2_grams": 2 / 7}]
    # x y occurs first inside of a counted run, so its next occurrence is the one that is read.
    text = "1 x y 1 x y x y"
    assert run_shares([text], (), (2,))[0]["duplicate_2_grams"] == plain_two(text)


@pytest.mark.parametrize(
    "space", ["\t", "\x0b", "\x1c", "\x1f", "\x85", "\u00a0", "\u2003", "\x00", "\u200b"]
)
def test_words_end_where_str_split_ends_them(space):
    text = space + space.join(["a", "bé", "a", "bé", "c", "\ud800", "a", "bé"]) + space
    ascii_only = space.join("ababcab")
    found = run_shares([text, ascii_only, space], TOP, DUPLICATE)
    assert found == [pytest.approx(plain_runs(one)) for one in (text, ascii_only, space)]


def plain_two(text):
    words, seen, characters, i = text.split(), set(), 0, 0
    while i + 2 <= len(words):
        run = tuple(words[i : i + 2])
        characters, i = (characters + len("".join(run)), i + 2) if run in seen else (characters, i + 1)
        seen.add(run)
    return characters / len(text)


UNIQUE = " ".join(f"word{n}" for n in range(60))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (UNIQUE, None),
        ("", "characters"),
        (f"{UNIQUE}\n\nx\n\nx\n\nx", "duplicate_paragraphs"),
        (f"first\n\nsecond\n\nthird\n\nfourth\n\n{UNIQUE}\n\n{UNIQUE}", "duplicate_paragraph_characters"),
        (f"{UNIQUE}\nx\nx\nx", "duplicate_lines"),
        (f"first\nsecond\nthird\nfourth\n{UNIQUE}\n{UNIQUE}", "duplicate_line_characters"),
        ("yes " * 100, "top_2_gram"),
        (f"{UNIQUE} " + "some longer phrase. " * 6 + "end", "top_3_gram"),
        (f"{UNIQUE} new {UNIQUE}", "duplicate_5_grams"),
    ],
)
def test_each_rule_drops(text, reason):
    outcome = repetition.make()(documents(text))
    assert [one.reason for one in outcome.dropped] == ([reason] if reason else [])


def test_many_repeats_take_time_in_proportion():
    # A quadratic reading would take minutes.
    long = "first second third fourth fifth sixth seventh eighth ninth tenth " * 20_000
    outcome = repetition.make()(documents("same " * 200_000, long))
    assert [one.reason for one in outcome.dropped] == ["top_2_gram", "top_3_gram"]
