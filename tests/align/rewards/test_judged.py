"""A reward model as a reward."""

import pytest

from matura.align.reward_model import Judge, set_reward_head
from matura.align.rewards import Completion
from matura.align.rewards.judged import judged_by
from matura.core.preferences import Ranking
from matura.infer.reading import longest
from tests.tiny_models import chatml, network


def test_an_answer_that_is_too_long_for_the_judge_is_not_judged_and_the_others_are():
    judge = Judge(set_reward_head(network(), seed=3), chatml())
    long = "a" * longest(judge.model)
    prompts = [Ranking(name, ({"role": "user", "content": name},)) for name in ("p", long, "q")]
    said = [(0, "yes"), (0, long), (0, "no"), (1, "yes"), (2, "yes")]
    found = judged_by(judge)([Completion(prompts[at], text, "stop", 1) for at, text in said])
    assert found[1] is None
    assert found[3] is None
    (yes, no), (other,) = judge.scores([prompts[0], prompts[2]], [["yes", "no"], ["yes"]])
    assert [found[0], found[2], found[4]] == pytest.approx([yes, no, other], abs=1e-5)
