"""Preferences in token ids: the prompt as it is sent, the answer as it would be generated, and what is dropped."""

import random

import pytest

from matura.align.preferred import EQUAL, UNJUDGED, Choice, Thumb, answered, from_pairs, from_thumbs
from matura.core.errors import MaturaError
from matura.core.preferences import Answer, Pair, Ranking
from matura.train.examples import CUT_AWAY, EMPTY, LONG
from tests.tiny_models import chatml

FORMAT = chatml()
STOP = FORMAT.tokenizer.id("<|im_end|>")


def asked(number: int = 0, text: str = "say it", answers: tuple[Answer, ...] = ()) -> Ranking:
    return Ranking(f"r{number}", ({"role": "user", "content": text},), answers)


def pairs(ranking: Ranking, *texts: tuple[str, str], weight: float = 1.0) -> list[Pair]:
    return [Pair(ranking, Answer(good), Answer(bad), weight=weight) for good, bad in texts]


def test_prompt_ids_are_what_an_answer_is_generated_after() -> None:
    make = random.Random(0)
    pieces = ["a", " ", "\n", "<|im_end|>", "é", "0", "the", "<|im_start|>", "."]

    def text() -> str:
        return "".join(make.choice(pieces) for _ in range(make.randrange(8)))

    for _ in range(60):
        talk = [{"role": role, "content": text()} for role in ("user", "assistant", "user")]
        ranking = Ranking("r", tuple(talk))
        prompt, (answer,) = answered(FORMAT, ranking, Answer(text()))
        assert list(prompt) == FORMAT.prompt(talk)
        assert answer[-1] == STOP
        assert answer.count(STOP) == 1


def test_text_that_looks_like_markup_is_text_and_ends_no_answer() -> None:
    _prompt, (answer,) = answered(FORMAT, asked(), Answer("no<|im_end|>yes"))
    assert answer.index(STOP) == len(answer) - 1
    assert FORMAT.tokenizer.decode(list(answer[:-1])) == "no<|im_end|>yes"


def test_an_answer_that_was_cut_off_does_not_teach_to_stop() -> None:
    whole = answered(FORMAT, asked(), Answer("hello"))
    cut = answered(FORMAT, asked(), Answer("hello", end="length"))
    assert whole.answers[0] == (*cut.answers[0], STOP)
    assert whole.prompt == cut.prompt


def test_training_weights_and_marks_of_messages_are_not_shown_to_the_template() -> None:
    marked = Ranking("r", ({"role": "user", "content": "say it", "weight": 0.5},))
    assert answered(FORMAT, marked, Answer("x")) == answered(FORMAT, asked(), Answer("x"))


def test_answers_that_pairs_share_are_there_once() -> None:
    ranking = asked()
    made = from_pairs(pairs(ranking, ("a", "b"), ("a", "c"), ("b", "c"), weight=1 / 3), FORMAT, 200)
    (one,) = made.preferred
    assert len(one.answers) == 3
    assert [choice[:2] for choice in one.choices] == [(0, 1), (0, 2), (1, 2)]
    assert one.weight == pytest.approx(1)
    assert one.trained == 3
    assert one.size == len(one.prompt) + sum(len(answer) - 1 for answer in one.answers)
    assert not made.dropped


def test_pairs_of_other_rankings_are_apart_even_when_they_ask_the_same() -> None:
    made = from_pairs([*pairs(asked(0), ("a", "b")), *pairs(asked(1), ("c", "d"))], FORMAT, 200)
    assert [one.id for one in made.preferred] == ["r0", "r1"]


def test_a_pair_that_was_judged_twice_counts_twice() -> None:
    (one,) = from_pairs(pairs(asked(), ("a", "b"), ("a", "b"), weight=0.5), FORMAT, 200).preferred
    assert one.choices == (Choice(0, 1, 1.0),)


def test_what_does_not_fit_is_dropped_and_counted() -> None:
    ranking = asked()
    prompt = len(FORMAT.prompt(list(ranking.messages)))
    made = from_pairs(
        [
            *pairs(ranking, ("a", "b"), ("a" * 50, "b"), ("same", "same")),
            Pair(ranking, Answer("", end="length"), Answer("b")),
        ],
        FORMAT,
        prompt + 8,
    )
    (one,) = made.preferred
    assert made.dropped == {LONG: 1, EQUAL: 1, EMPTY: 1}
    assert len(one.answers) == 2
    assert from_pairs(pairs(ranking, ("a", "b")), FORMAT, prompt).dropped == {CUT_AWAY: 1}


def test_cut_answers_keep_their_beginning_without_a_stop_token() -> None:
    ranking = asked()
    prompt = len(FORMAT.prompt(list(ranking.messages)))
    given = pairs(ranking, ("a" * 50, "b"), ("c" * 4 + "d", "c" * 4 + "e"))
    made = from_pairs(given, FORMAT, prompt + 4, truncation="cut")
    (one,) = made.preferred
    assert made.dropped == {EQUAL: 1}
    assert [len(answer) for answer in one.answers] == [4, 2]
    assert STOP not in one.answers[0]
    assert one.answers[1][-1] == STOP


def test_thumbs_stand_by_themselves() -> None:
    ranking = asked(answers=(Answer("a", liked=True), Answer("b", liked=False), Answer("c")))
    made = from_thumbs([ranking, asked(1)], FORMAT, 200)
    (one,) = made.preferred
    assert one.thumbs == (Thumb(0, True), Thumb(1, False))
    assert made.dropped == {UNJUDGED: 1}


def test_the_ranking_that_cannot_be_written_is_named() -> None:
    strange = Ranking("r7", ({"role": "a role", "content": "x"},))
    with pytest.raises(MaturaError, match="ranking 'r7'"):
        answered(FORMAT, strange, Answer("x"))
