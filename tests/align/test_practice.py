"""The batches that a model makes itself, without a model: answers are given, positions and figures are checked."""

import json

import pytest

from matura.align import practice
from matura.align.grpo import Surrogate
from matura.align.practice import Practice, Schedule
from matura.align.rewards import Part, Weighted
from matura.align.rollouts import Rollout
from matura.core.errors import MaturaError
from tests.align.completions import asked

PROMPTS = [asked(f"p{n}") for n in range(5)]


def answer(prompts, iteration):
    """Two answers to each prompt; their ids say of which prompt and iteration they are."""
    return [
        Rollout(one, (1, 2), (int(one.id[1:]), iteration, 7)[: 2 + k], (-0.5,) * (2 + k), str(k), "stop", k)
        for one in prompts
        for k in range(2)
    ]


def rewarded(completions):
    return [float(one.text) for one in completions]


THREE_PIECES = Schedule(3, epochs=2, minibatches=3)


def made(schedule=THREE_PIECES, reward=rewarded, **more):
    settings = Surrogate(longest=3)
    weighted = Weighted((Part("text", 1.0, reward),))
    return Practice(PROMPTS, answer, lambda written: 0.0, weighted, schedule, settings, "mean", **more)


def seen(batch):
    """What a batch is made of, as plain values."""
    return batch.answers.targets_N.tolist(), batch.advantages_S.tolist(), batch.weight


def test_an_iteration_goes_through_all_its_groups_in_every_epoch():
    source = made()
    batches = [next(source) for _ in range(6)]
    first = sorted(one.answers.targets_N[0].item() for one in batches[:3])
    assert first == sorted(one.answers.targets_N[0].item() for one in batches[3:])
    assert len(set(first)) == 3
    assert all(one.advantages_S.tolist() == [-0.5, 0.5] for one in batches)
    assert next(source).answers.targets_N[1].item() == 1  # the next iteration


def test_prompts_come_in_an_order_that_every_pass_shuffles_anew():
    found = [i for iteration in range(10) for i in practice.drawn(5, 3, iteration, seed=1)]
    passes = [found[start : start + 5] for start in range(0, 30, 5)]
    assert all(sorted(one) == list(range(5)) for one in passes)
    assert len({tuple(one) for one in passes}) > 1


@pytest.mark.parametrize("stop", range(8))
def test_t37_a_position_gives_the_very_batches_that_would_have_come(stop):
    whole, cut = made(), made()
    for _ in range(stop):
        next(whole), next(cut)
    state = json.loads(json.dumps(cut.state()))
    again = made()
    again.restore(state)
    assert [seen(next(again)) for _ in range(8)] == [seen(next(whole)) for _ in range(8)]
    assert again.state() == whole.state()


def test_pieces_of_an_update_hold_what_the_update_would():
    whole, pieces = made(Schedule(4)), made(Schedule(4, accumulate=2))
    one, parts = next(whole), [next(pieces), next(pieces)]
    targets = [target for part in parts for target in part.answers.targets_N.tolist()]
    assert targets == one.answers.targets_N.tolist()
    assert sum(part.weight for part in parts) == one.weight


def test_figures_of_an_iteration_come_with_its_first_update_only():
    source = made()
    next(source)
    told = source.notes()
    assert told["reward"] == told["reward.text"] == 0.5
    assert told["answer_tokens"] == 2.5
    assert told["even_groups"] == 0
    assert told["reward_std"] == pytest.approx(0.5**0.5)
    next(source)
    assert "reward" not in source.notes()


def test_t27_an_update_without_any_difference_has_no_weight_so_nothing_moves():
    source = made(reward=lambda completions: [1.0] * len(completions))
    batch = next(source)
    assert batch.weight == 0
    assert source.notes()["even_groups"] == 1
    held = made(
        reward=lambda completions: [1.0] * len(completions), reference=lambda answers: answers.targets_N
    )
    assert next(held).weight > 0  # the divergence is still learned from


def test_t27_answers_that_were_not_judged_are_in_no_batch():
    def some(completions):
        return [None if one.prompt.id == "p0" else float(one.text) for one in completions]

    source = made(Schedule(5), reward=some)
    batch = next(source)
    assert len(batch.answers.counts) == 8
    assert source.notes()["unjudged"] == pytest.approx(0.2)
    with pytest.raises(MaturaError, match="none of the first 10 answers was judged by text"):
        next(made(Schedule(5), reward=lambda completions: [None] * len(completions)))


def test_a_reward_that_never_judges_is_named_and_not_left_out_in_silence():
    weighted = Weighted((Part("text", 1.0, rewarded), Part("mute", 1.0, lambda them: [None] * len(them))))
    source = made(Schedule(2))
    source.rewards = weighted
    next(source), next(source)
    again = made(Schedule(2))
    again.rewards = weighted
    again.restore(json.loads(json.dumps(source.state())))
    with pytest.raises(MaturaError, match="reward mute has judged none of the answers of 3 iterations"):
        next(again)


def test_answers_that_do_not_fit_what_is_trained_stop_the_run():
    def refuse(written):
        raise MaturaError("log-probabilities of the rollouts differ")

    source = made()
    source.check = refuse
    with pytest.raises(MaturaError, match="differ"):
        next(source)
