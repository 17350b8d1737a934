"""Every alarm with a run that must ring it and one that looks like it and must not."""

import random

import pytest

from matura.align import doctor


def rows(**series):
    """A row for each step from lists of values, as metrics.jsonl has them."""
    length = max(map(len, series.values()))
    return [
        {
            "step": i + 1,
            **{name.replace("__", "."): values[i] for name, values in series.items() if i < len(values)},
        }
        for i in range(length)
    ]


def noisy(start, end, count=30, spread=0.05, seed=0):
    draw = random.Random(seed)
    return [start + (end - start) * i / (count - 1) + draw.gauss(0, spread) for i in range(count)]


SOUND = {
    "kl": [0.01, -0.01, 0.02, -0.001, 0.03] * 6,
    "even_groups": [0.2] * 30,
    "ended": [0.9] * 30,
    "answer_tokens": noisy(20, 30),
    "reward": noisy(0.3, 0.8),
    "heldout_reward": noisy(0.3, 0.7),
    "policy_entropy": noisy(1.0, 0.5),
    "clip_share": [0.1] * 30,
    "explained_variance": noisy(-0.2, 0.6),
    "logprob_chosen": noisy(-50, -52),
}

RINGING = {
    "negative KL": {"kl": [0.1] * 10 + [-0.02] * 10},
    "zero-variance groups": {"even_groups": [0.3] * 10 + [0.9] * 5},
    "no end": {"ended": [0.2] * 5},
    "chosen log-probability falls": {"logprob_chosen": noisy(-50, -80)},
    "length drift": {"answer_tokens": noisy(20, 70)},
    "reward up, held-out reward down": {"reward": noisy(0, 1), "heldout_reward": noisy(0.5, 0.1)},
    "entropy collapse": {"policy_entropy": noisy(1, 0.01, spread=0.001)},
    "updates go too far": {"clip_share": [0.5] * 5},
    "values explain nothing": {"explained_variance": [-1.0] * 5},
    "learned by heart": {"reward_mean": [0.0] * 10, "heldout_loss": [0.7, 0.6, 0.5, 0.52, 0.56, 0.6, 0.7]},
}


def test_a_sound_run_rings_nothing():
    assert doctor.examine(rows(**SOUND)) == []
    assert doctor.examine([]) == []


def test_held_out_answers_that_become_alike_are_not_taken_for_worse_ones():
    alike = {"reward": noisy(0, 1), "heldout_reward": noisy(0, 1), "heldout_reward_std": noisy(0.5, 0.1)}
    assert doctor.examine(rows(**(SOUND | alike))) == []


@pytest.mark.parametrize("name", RINGING)
def test_each_alarm_rings_alone_and_says_what_to_do(name):
    (alarm,) = doctor.examine(rows(**(SOUND | RINGING[name])))
    assert alarm.name == name
    assert alarm.step > 0
    assert str(alarm).startswith(f"{name} (step {alarm.step}): ")
    assert alarm.advice.endswith(".")


def test_t25_a_divergence_below_zero_now_and_then_is_noise():
    assert doctor.examine(rows(kl=[-0.01, -0.02, -0.01, -0.02, 0.001] * 3)) == []
    assert doctor.examine(rows(kl=[0.01] * 10 + [-0.01] * 9)) == []


def test_t30_a_held_out_reward_that_only_wavers_is_no_fall():
    assert doctor.examine(rows(reward=noisy(0, 1), heldout_reward=noisy(0.5, 0.49, spread=0.2))) == []
    named = doctor.examine(rows(reward=noisy(0, 1), heldout_reward__fluent=noisy(0.9, 0.2)))
    assert "heldout_reward.fluent fell by" in named[0].found


def test_groups_that_are_even_at_the_top_need_harder_prompts():
    top = doctor.examine(rows(even_groups=[0.9] * 10, reward=noisy(0.2, 1, 10)))
    bottom = doctor.examine(rows(even_groups=[0.9] * 10, reward=[0.0] * 10))
    assert "harder prompts" in top[0].advice
    assert "easier prompts" in bottom[0].advice
    lucky = doctor.examine(rows(even_groups=[0.9] * 10, reward=[*[0.0] * 9, 0.01]))
    assert "They are all right" not in lucky[0].advice


def test_values_that_are_no_numbers_are_passed_over():
    assert doctor.examine(rows(kl=[float("nan")] * 5, ended=[None] * 5)) == []


def test_of_a_reward_with_a_negative_weight_less_is_better():
    fewer = rows(reward=noisy(0, 1), heldout_reward__words=noisy(0.9, 0.2))
    assert [one.name for one in doctor.examine(fewer)] == ["reward up, held-out reward down"]
    assert doctor.examine(fewer, {"words"}) == []
    more = rows(reward=noisy(0, 1), heldout_reward__words=noisy(0.2, 0.9))
    assert doctor.examine(more) == []
    assert "heldout_reward.words, whose weight is below 0, rose by" in doctor.alarms(more, {"words"})[0]


def test_t14_a_margin_may_grow_while_chosen_answers_become_unlikely():
    margin = noisy(0, 5)
    (alarm,) = doctor.examine(rows(margin=margin, logprob_chosen=noisy(-50, -80)))
    assert alarm.name == "chosen log-probability falls"
    assert doctor.examine(rows(margin=margin, logprob_chosen=noisy(-50, -40))) == []
    unlucky = [*[-46, -58] * 12, *[-58] * 5]  # batches of short and long answers, in the end long ones
    assert doctor.examine(rows(margin=margin, logprob_chosen=unlucky)) == []


def test_t30_few_looks_are_enough_when_they_agree():
    """As many as GRPO makes by default. The control has as many that do not agree."""
    learned = noisy(0, 1, 100)
    falls = doctor.examine(rows(reward=learned, heldout_reward=[0.6, 0.55, 0.5, 0.52, 0.4, 0.3]))
    assert [one.name for one in falls] == ["reward up, held-out reward down"]
    assert doctor.examine(rows(reward=learned, heldout_reward=[0.6, 0.4, 0.5, 0.62, 0.4, 0.5])) == []
    assert doctor.examine(rows(reward=learned, heldout_reward=[0.6, 0.5, 0.4, 0.3])) == []


def test_a_trend_is_mann_and_kendalls():
    series = doctor.Series(rows(x=[1.0, 2.0, 2.0, 3.0, 5.0, 4.0]))
    # 14 pairs differ, 13 rise and 1 falls; one tie of two: (6 5 17 - 2 1 9) / 18
    assert series.change("x")[1] == pytest.approx((12 - 1) / ((510 - 18) / 18) ** 0.5)
    assert doctor.Series(rows(x=[1.0] * 9)).change("x") == (0.0, 0.0)
    long = doctor.Series(rows(x=noisy(0, 1, 5_000)))
    assert long.change("x")[0] == pytest.approx(2 / 3, abs=0.02)
    assert long.change("x")[1] > 10
