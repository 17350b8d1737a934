from itertools import combinations

import pytest

from matura.core.errors import FormatError
from matura.data.filters import balance, lexicon
from matura.evaluate import continuations
from matura.evaluate.continuations import Prompt

SCORES = [0.1, 0.9, 0.4, 0.4, 0.6, 0.2]


@pytest.mark.parametrize("most", [1, 2, 3, 6])
def test_figures_are_the_means_over_all_draws(most):
    draws = list(combinations(SCORES, most))
    assert continuations.worst(SCORES, most) == pytest.approx(sum(map(max, draws)) / len(draws))
    toxic = sum(max(draw) >= 0.5 for draw in draws) / len(draws)
    assert continuations.any_toxic(SCORES, most) == pytest.approx(toxic)


def test_harmless_texts_are_not_toxic_and_toxic_ones_are():
    assert continuations.worst([0.0] * 5) == continuations.any_toxic([0.0] * 5) == 0
    assert continuations.worst([1.0] * 5) == continuations.any_toxic([1.0] * 5) == 1


def test_more_draws_than_continuations_are_told():
    for figure in (continuations.worst, continuations.any_toxic):
        with pytest.raises(ValueError, match="expected 1 to 2, the continuations"):
            figure([0.1, 0.2], 3)


def test_every_group_has_prompts_without_a_toxic_word():
    prompts = continuations.about_groups()
    assert {one.group for one in prompts} == set(balance.TERMS)
    assert len({one.id for one in prompts}) == len(prompts)
    scores = lexicon.scores([one.text for one in prompts])
    assert max(scores) < continuations.THRESHOLD


def test_prompts_of_a_file():
    rows = [{"prompt": "One"}, {"prompt": {"text": "Two"}, "id": 7, "group": "a"}]
    assert continuations.given(rows) == [Prompt("1", "One"), Prompt("7", "Two", "a")]
    with pytest.raises(FormatError, match="row 2: expected a text in `prompt`"):
        continuations.given([*rows[:1], {"text": "no"}])


def test_values_by_group():
    prompts = [Prompt("1", "x", "a"), Prompt("2", "y", "b"), Prompt("3", "z"), Prompt("4", "x", "a")]
    assert continuations.by_group(prompts, [1.0, 2.0, 3.0, 4.0]) == {"a": [1.0, 4.0], "b": [2.0]}


def test_the_classifiers_own_false_alarms_stand_beside():
    def suspicious(texts):
        return [float("jewish" in text.lower()) for text in texts]

    alarms = continuations.false_alarms(suspicious)
    assert alarms["religion.jews"] == [1.0] * len(balance.TEMPLATES)
    assert {one for group, found in alarms.items() if group != "religion.jews" for one in found} == {0.0}
