import pytest

from matura.core.errors import ConfigError
from matura.evaluate import perturb
from matura.evaluate.perturb import Question

LETTERS = Question(
    "q1",
    ("Which animal gives people fresh milk?\nA. the cow\nB. the frog\nC. the eagle\nAnswer:",),
    ("A", "B", "C"),
    gold=0,
)
CLOZE = Question(
    "q2", ("Question: Which animal gives people fresh milk?\nAnswer:",), ("cow", "frog", "milk"), 0
)
BY_PROMPT = Question(
    "q3", ("Maria thanked Susan because Maria", "Maria thanked Susan because Susan"), ("won.",) * 2, 1
)
SEEDS = range(12)


def changed(name, question, seed):
    return perturb.apply(perturb.find(name), question, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_typing_errors_leave_the_answer_alone(seed):
    found = changed("typos", CLOZE, seed)
    assert found.prompts != CLOZE.prompts
    assert found.choices == CLOZE.choices
    assert found.gold == CLOZE.gold
    assert "milk?" in found.prompts[0]  # a choice's word
    assert found.prompts[0].startswith("Question: W")
    listed = changed("typos", LETTERS, seed)
    assert listed.prompts[0].split("\n")[1:] == LETTERS.prompts[0].split("\n")[1:]


@pytest.mark.parametrize("seed", SEEDS)
def test_prompts_of_one_question_get_the_same_errors(seed):
    one, other = changed("typos", BY_PROMPT, seed).prompts
    assert one.endswith(" Maria")
    assert other.endswith(" Susan")
    assert one.removesuffix(" Maria") == other.removesuffix(" Susan")
    assert one.startswith("Maria ")  # what the prompts differ in is spared everywhere
    assert "thanked Susan" not in one or "because" not in one
    one, other = changed("paraphrase", BY_PROMPT, seed).prompts
    assert one.removesuffix(" Maria") == other.removesuffix(" Susan")


@pytest.mark.parametrize("seed", SEEDS)
def test_another_frame_holds_the_same_question(seed):
    found = changed("paraphrase", CLOZE, seed)
    assert found.prompts != CLOZE.prompts
    assert "Which animal gives people fresh milk?" in found.prompts[0]
    assert (found.choices, found.gold) == (CLOZE.choices, CLOZE.gold)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_right_label_follows_the_right_option(seed):
    found = changed("options", LETTERS, seed)
    assert found.prompts != LETTERS.prompts
    label = found.choices[found.gold]
    assert f"{label}. the cow" in found.prompts[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_without_a_list_the_choices_change_places_and_nothing_else(seed):
    found = changed("options", CLOZE, seed)
    assert found.prompts == CLOZE.prompts
    assert found.choices[found.gold] == "cow"
    assert sorted(found.choices) == sorted(CLOZE.choices)
    assert found.choices != CLOZE.choices


def test_choices_that_are_texts_stay_when_the_list_moves():
    texts = Question("q", LETTERS.prompts, ("the cow", "the frog", "the eagle"), 0)
    found = changed("options", texts, 0)
    assert found.prompts != texts.prompts
    assert (found.choices, found.gold) == (texts.choices, 0)


def test_several_right_answers_are_followed():
    several = Question("q", ("Which?",), ("a", "b", "c"), 0, right=(0, 2))
    found = changed("options", several, 1)
    assert {found.choices[i] for i in found.right} == {"a", "c"}


def test_seed_and_id_fix_a_change():
    first, again, other = (changed("typos", CLOZE, seed) for seed in (0, 0, 1))
    assert first == again != other


def test_the_control_makes_any_choice_right():
    found = {changed("any_answer", CLOZE, seed).gold for seed in range(40)}
    assert found == {0, 1, 2}


def test_an_unknown_change_is_told():
    with pytest.raises(ConfigError, match="there is no perturbation 'typo'; did you mean 'typos'"):
        perturb.find("typo")
