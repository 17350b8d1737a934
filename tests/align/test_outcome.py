"""What a summary says of a practice is of the weights that came out."""

from pathlib import Path

from matura.align.outcome import commit, gained, said
from matura.core import artifact
from matura.core.config import parse
from matura.stages import grpo

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


def test_alarms_are_raised_by_the_weights_of_the_rewards(tmp_path: Path) -> None:
    for weight, alarms in ((-1.0, 0), (1.0, 1)):
        rewards = {"repetition": {"weight": weight}}
        config = parse(grpo.Config, {"model": "m", "prompts": "p", "rewards": rewards}, "test")
        place = tmp_path / str(alarms)
        draft = artifact.begin(place, kind="model", stage="grpo", version=1, config={}, inputs={})
        for step in range(1, 31):
            draft.metrics.log(step, reward=step / 30, **{"heldout_reward.repetition": 1 - step / 30})
        made = commit(draft, "Practice", config, {}, {}, None)
        assert len(made.summary["alarms"]) == alarms
