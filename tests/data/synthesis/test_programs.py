"""Data by rule: right, reproducible, and nothing of the exam in any training set."""

import datetime
import random
from itertools import pairwise

import pytest

from matura.core.errors import MaturaError
from matura.core.records import Conversation
from matura.core.synthesis_settings import Program
from matura.data.synthesis import programs
from matura.data.synthesis.programs import PROGRAMS, in_words, is_held_out, ordinal, write

ALL = sorted(PROGRAMS)


def exchange(row: Conversation) -> tuple[str, str]:
    asked, said = row.messages
    assert (asked["role"], said["role"]) == ("user", "assistant")
    return asked["content"], said["content"]


def read(words: str) -> int:
    """The number that English words say, by another way than they were written."""
    ones = dict(zip((in_words(n) for n in range(20)), range(20), strict=True))
    tens = {in_words(n): n for n in range(20, 100, 10)}
    total = group = 0
    for word in words.replace("-", " ").split():
        if word == "thousand":
            total, group = group * 1000, 0
        elif word == "hundred":
            group *= 100
        else:
            group += ones[word] if word in ones else tens[word]
    return total + group


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (40, "forty"),
        (85, "eighty-five"),
        (100, "one hundred"),
        (4321, "four thousand three hundred twenty-one"),
        (70_007, "seventy thousand seven"),
        (999_999, "nine hundred ninety-nine thousand nine hundred ninety-nine"),
    ],
)
def test_numbers_in_words(number: int, words: str) -> None:
    assert in_words(number) == words
    assert read(words) == number


def test_numbers_go_both_ways_and_have_all_lengths() -> None:
    both = [exchange(row) for side in write("numbers", 3000, 300, 0) for row in side]
    to_words = [(source, target) for source, target in both if source.isdigit()]
    assert 1300 < len(to_words) < 1700
    for source, target in both:
        digits, words = (source, target) if source.isdigit() else (target, source)
        assert read(words) == int(digits)
    assert {len(source) for source, _ in to_words} == set(range(1, 7))


def test_dates_in_every_form_are_that_day() -> None:
    forms = ("%d %B %Y", "%B %d, %Y", "%b %d %Y", "%d.%m.%Y", "%m/%d/%Y")
    seen = set()
    for source, target in (exchange(row) for side in write("dates", 600, 60, 0) for row in side):
        text = source
        for ending in ("st of", "nd of", "rd of", "th of"):
            text = text.replace(ending, "")
        read = {}
        for form in forms:
            try:
                read[form] = datetime.datetime.strptime(" ".join(text.split()), form).date().isoformat()
            except ValueError:
                continue
        assert set(read.values()) == {target}, source
        seen |= set(read)
    assert seen == set(forms)
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 22, 31)] == (
        ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "31st"]
    )


def test_every_step_of_a_sum_is_right_and_follows_from_the_one_before() -> None:
    lengths = set()
    for source, target in (exchange(row) for side in write("arithmetic", 500, 50, 0) for row in side):
        steps = [line.split(" = ") for line in target.split("\n")]
        for left, right in steps:
            first, sign, term = left.split()
            assert int(right) == int(first) + int(sign + term)
        for before, after in pairwise(steps):
            assert after[0].split()[0] == before[1]
        total = 0
        for sign, term in zip(["+", *source.split()[1::2]], source.split()[::2], strict=True):
            total += int(sign + term)
        assert int(steps[-1][1]) == total
        lengths.add(len(steps))
    assert lengths == {1, 2, 3}


@pytest.mark.parametrize(("program", "order"), [("reverse", reversed), ("sort", sorted)])
def test_words_are_put_in_order(program: Program, order: type) -> None:
    for source, target in (exchange(row) for side in write(program, 200, 20, 0) for row in side):
        name, *words = source.split()
        assert name == f"{program}:"
        assert target.split() == list(order(words))


@pytest.mark.parametrize("program", ALL)
def test_counts_are_exact_questions_different_and_provenance_complete(program: Program) -> None:
    train, heldout = write(program, 400, 50, 3)
    assert (len(train), len(heldout)) == (350, 50)
    assert len({exchange(row)[0] for row in train + heldout}) == 400
    assert len({row.id for row in train + heldout}) == 400
    assert train[0].provenance == {"program": f"{program}@1", "seed": "3"}
    assert write(program, 400, 50, 3) == (train, heldout)
    assert write(program, 400, 50, 4)[0] != train


@pytest.mark.parametrize("program", ALL)
def test_nothing_that_any_exam_asks_is_in_any_training_set(program: Program) -> None:
    keys: dict[bool, set[str]] = {False: set(), True: set()}
    for seed, count in ((0, 300), (1, 600), (2, 300)):
        texts = {}
        draw = random.Random(f"{program}/{seed}")
        for _ in range(20_000):
            item = PROGRAMS[program](draw)
            texts[item.source] = item.key
        for side, rows in zip((False, True), write(program, count, 60, seed), strict=True):
            keys[side] |= {texts[exchange(row)[0]] for row in rows}
    assert keys[True]
    assert keys[False].isdisjoint(keys[True])


def test_about_one_key_in_ten_is_for_the_exam() -> None:
    found = sum(is_held_out("numbers", str(n)) for n in range(20_000))
    assert found == pytest.approx(2000, abs=200)


def test_a_number_is_on_one_side_in_both_directions() -> None:
    train, heldout = write("numbers", 4000, 400, 0)
    sides = [
        {int(text) if (text := exchange(row)[0]).isdigit() else read(text) for row in rows}
        for rows in (train, heldout)
    ]
    assert sides[0].isdisjoint(sides[1])


def test_a_program_with_too_little_to_say_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"numbers": lambda draw: programs.Item(str(n := draw.randrange(50)), str(n), in_words(n))}
    monkeypatch.setattr(programs, "PROGRAMS", few)
    with pytest.raises(MaturaError, match="hardly more than 50 different questions"):
        write("numbers", 100, 10, 0)
