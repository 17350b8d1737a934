import pytest

from matura.core.errors import ConfigError
from matura.evaluate import needle


def words(text):
    return len(text.split())


def place(one):
    """The share of the text's sentences that stand before the needle."""
    text = one.prompt.split("\n\n")[1]
    before, _, after = text.partition(f"is {one.answer}.")
    first, last = before.count("."), after.count(".")
    return first / (first + last)


@pytest.mark.parametrize("length", [120, 500])
@pytest.mark.parametrize("depth", needle.DEPTHS)
def test_the_needle_is_at_its_depth_in_a_text_of_its_length(length, depth):
    one = needle.build(words, length, depth, 3)
    assert length - 15 < words(one.prompt) <= length  # one more sentence would not fit
    assert one.prompt.count(one.answer) == 1
    assert abs(place(one) - depth) < 2.5 / (length / 10)


def test_numbers_of_others_lie_in_the_text_and_further_ones_do_not():
    one = needle.build(words, 200, 0.5, 0)
    assert [number in one.prompt for number in one.decoys] == [True, True, False, False]
    assert len({one.answer, *one.decoys}) == 5
    assert one.chance == 0.2
    assert (
        one.prompt.count("number of the") == 3 + 2
    )  # the sentences, the question and the answer's beginning


def test_the_control_is_the_same_question_without_the_needle():
    with_it, without = (needle.build(words, 200, 0.5, 0, present=present) for present in (True, False))
    assert without.answer == with_it.answer
    assert without.answer not in without.prompt
    assert with_it.prompt.split("\n\n")[2] == without.prompt.split("\n\n")[2]
    assert all(number in without.prompt for number in without.decoys[:2])
    assert without.id != with_it.id


def test_seeds_make_other_questions_and_the_same_one_again():
    prompts = [needle.build(words, 200, 0.5, seed).prompt for seed in (0, 0, 1)]
    assert prompts[0] == prompts[1] != prompts[2]


def test_sentences_of_documents_can_be_the_text():
    sentences = [f"Sentence {n} of it." for n in range(30)]
    one = needle.build(words, 300, 0.5, 0, sentences=sentences)
    assert all(sentence in one.prompt for sentence in sentences)
    assert "farmer" not in one.prompt


def test_the_grid_holds_every_cell():
    cells = [(one.length, one.depth) for one in needle.grid(words, [100, 150], [0.0, 1.0], 3)]
    assert cells == [(100, 0.0)] * 3 + [(100, 1.0)] * 3 + [(150, 0.0)] * 3 + [(150, 1.0)] * 3
    assert len({one.id for one in needle.grid(words, [100, 150], [0.0, 1.0], 3)}) == 12


def test_what_is_written_must_be_the_number_and_no_longer_one():
    one = needle.build(words, 200, 0.5, 0)
    assert needle.found(one, f" {one.answer}.")
    assert not needle.found(one, f" {one.answer}0")
    assert not needle.found(one, f"It is {one.answer}")
    assert not needle.found(one, one.decoys[0])


def test_too_short_a_text_is_told():
    with pytest.raises(ConfigError, match="20 tokens do not hold the question alone"):
        needle.build(words, 20, 0.5, 0)
