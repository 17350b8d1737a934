"""What a summary says of a practice is of the weights that came out."""

from matura.align.outcome import gained, said

ROWS = [
    {"step": 0, "heldout_reward": 0.1, "heldout_answer_kl": 0.0},
    {"step": 2, "reward": 0.3, "ended": 0.5, "heldout_reward": 0.6, "heldout_answer_kl": 1.0},
    {
        "step": 4,
        "reward": 0.9,
        "ended": 0.8,
        "heldout_reward": 0.2,
        "heldout_answer_kl": 7.0,
        "reward_std": 1.0,
    },
]


def test_before_and_after_are_the_first_and_the_last_row() -> None:
    assert gained(ROWS, {}) == {
        "heldout_reward_before": 0.1,
        "heldout_reward_after": 0.2,
        "heldout_answer_kl": 7.0,
        "reward_before": 0.3,
        "reward_after": 0.9,
        "ended": 0.8,
    }


def test_where_earlier_weights_were_kept_the_figures_are_theirs() -> None:
    kept = {"heldout_reward": 0.6, "heldout_answer_kl": 1.0, "steps": 4}
    found = gained(ROWS, kept)
    assert found["heldout_reward_after"] == 0.6
    assert found["heldout_answer_kl"] == 1.0
    assert found["reward_after"] == 0.9
    assert said(found, []) == "; heldout reward 0.1 to 0.6 at 1.00 nats an answer"
