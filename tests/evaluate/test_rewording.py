import random

import pytest

from matura.evaluate import rewording

PROMPT = "Question: Which animal gives people fresh milk in 1985?\nA. cow\nB. frog\nC. eagle\nAnswer:"


def chance(seed=0):
    return random.Random(seed)


def distance(a, b):
    """Edits between two words, a swap of neighbours counted as one."""
    if len(a) == len(b):
        different = [i for i in range(len(a)) if a[i] != b[i]]
        if len(different) == 2 and different[1] == different[0] + 1:
            i, j = different
            return 1 if (a[i], a[j]) == (b[j], b[i]) else 2
        return len(different)
    return 1 if any(a[:i] + a[i + 1 :] == b for i in range(len(a))) else 2


def test_neighbours_touch_on_the_keyboard():
    assert set(rewording.NEIGHBOURS["g"]) == set("ftyhbv")
    assert set(rewording.NEIGHBOURS["q"]) == set("wa")
    assert all(a in rewording.NEIGHBOURS[b] for a, near in rewording.NEIGHBOURS.items() for b in near)


@pytest.mark.parametrize("seed", range(30))
def test_a_misspelt_word_is_one_error_away_and_keeps_its_first_letter(seed):
    word = rewording.misspell("Telephone", chance(seed))
    assert word[0] == "T"
    assert distance("Telephone", word) == 1


def test_what_cannot_be_misspelt_comes_back():
    assert rewording.misspell("at", chance()) == "at"
    assert rewording.misspell("яблоко", chance()) == "яблоко"


@pytest.mark.parametrize("seed", range(10))
def test_typing_errors_spare_the_answer_the_numbers_the_names_and_short_words(seed):
    changed = rewording.typos(PROMPT, chance(seed), 1.0, keep={"Fresh"})
    before, after = PROMPT.split("\n"), changed.split("\n")
    assert after[1:] == before[1:]
    pairs = list(zip(before[0].split(), after[0].split(), strict=True))
    assert {a for a, b in pairs if a == b} == {"Question:", "fresh", "in", "1985?"}
    assert all(distance(a, b) == 1 for a, b in pairs if a != b)


def test_the_rate_says_how_many_words_are_misspelt():
    text = " ".join(["telephone"] * 50)
    for rate, count in ((0.0, 0), (0.001, 1), (0.1, 5), (1.0, 50)):
        changed = rewording.typos(text, chance(), rate).split()
        assert sum(word != "telephone" for word in changed) == count
    with pytest.raises(ValueError, match="share of 0 to 1"):
        rewording.typos(text, chance(), 1.5)


def test_a_seed_fixes_the_errors_and_another_makes_others():
    changed = [rewording.typos(PROMPT, chance(seed), 0.5) for seed in (1, 1, 2)]
    assert changed[0] == changed[1] != changed[2]


def test_only_what_the_prompts_share_is_touched():
    prompts = ["Ann thanked Maria because Ann", "Ann thanked Maria because Maria"]
    end = rewording.shared(prompts)
    assert prompts[0][:end] == "Ann thanked Maria because "
    changed = [rewording.typos(one, chance(3), 1.0, end=end) for one in prompts]
    assert changed[0].removesuffix("Ann") == changed[1].removesuffix("Maria") != prompts[0][:end]
    assert rewording.shared(["same", "same"]) == 4


def test_a_frame_is_changed_and_the_question_is_not():
    frames = {rewording.reframe("Question: Why?\nAnswer:", chance(seed)) for seed in range(40)}
    assert frames == {frame.replace("{}", "Why?") for frame in rewording.FRAMES}
    assert "Question: Why?\nAnswer:" not in frames
    ours = rewording.FRAMES[0].replace("{}", "Why?")
    assert all(rewording.reframe(ours, chance(seed)) != ours for seed in range(40))
    leads = {rewording.reframe("He took {} the", chance(seed)) for seed in range(40)}
    assert leads == {lead + "He took {} the" for lead in rewording.LEADS}


def test_options_change_their_places_and_labels_stay():
    changed = rewording.reorder(PROMPT, [2, 0, 1])
    assert changed == PROMPT.replace("A. cow\nB. frog\nC. eagle", "A. eagle\nB. cow\nC. frog")
    assert rewording.reorder(PROMPT, [0, 1, 2]) == PROMPT
    assert rewording.reorder("Question: Why?\nAnswer:", [1, 0]) is None
    assert rewording.reorder("B. one\nA. two", [1, 0]) is None
    with pytest.raises(ValueError, match="each of 0 to 2 once"):
        rewording.reorder(PROMPT, [0, 0, 1])


def test_the_last_list_of_options_is_the_questions_own():
    two = PROMPT + " A\n\n" + PROMPT.replace("cow", "goat")
    assert rewording.reorder(two, [1, 0, 2]) == PROMPT + " A\n\n" + PROMPT.replace(
        "A. cow\nB. frog", "A. frog\nB. goat"
    )


@pytest.mark.parametrize("seed", range(20))
def test_another_order_is_another_order(seed):
    order = rewording.another_order(3, chance(seed))
    assert sorted(order) == [0, 1, 2]
    assert order != [0, 1, 2]
    assert rewording.another_order(1, chance(seed)) == [0]
