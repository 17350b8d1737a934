"""Reports of training runs: which curves are drawn of what a run logs."""

from pathlib import Path
from typing import Any

import pytest

from matura.core.metrics import MetricsLog
from matura.evaluate import training_report


def curves(folder: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> list[list[str]]:
    """The names of the lines of each picture, for a run that logs these metrics."""
    drawn: list[list[str]] = []

    def curve(series: dict[str, Any], unit: str, **_: Any) -> str:
        drawn.append(list(series))
        return "<svg></svg>"

    monkeypatch.setattr("matura.evaluate.plots.curve", curve)
    MetricsLog(folder / "metrics.jsonl").log(1, **dict.fromkeys(names, 1.0))
    training_report.write(folder, "Run", {}, {})
    return drawn


def test_what_becomes_of_both_sides_of_a_pair_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T14: a margin alone would not show that chosen answers become unlikely."""
    logged = (
        "margin",
        "logprob_chosen",
        "logprob_rejected",
        "reward_chosen",
        "reward_rejected",
        "heldout_kl",
    )
    assert curves(tmp_path, monkeypatch, *logged) == [
        ["margin"],
        ["logprob_chosen", "logprob_rejected"],
        ["reward_chosen", "reward_rejected"],
        ["heldout_kl"],
    ]


def test_a_name_that_ends_with_a_point_stands_for_all_that_begin_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T30: a reward that is only measured is seen beside the one that is learned."""
    logged = ("heldout_reward.judge", "heldout_reward.exact", "heldout_reward", "rms.decoder.0", "other.x")
    found = curves(tmp_path, monkeypatch, *logged)
    assert found == [["heldout_reward"], ["exact", "judge"], ["decoder.0"]]
