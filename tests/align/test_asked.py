"""What a practice begins with: held-out prompts are counted as they are looked at."""

from pathlib import Path
from typing import Any

import pytest

from matura.align.asked import Asked, asked
from matura.align.rewards import Part, Weighted
from matura.core.config import parse
from matura.core.errors import MaturaError
from matura.core.preferences import Ranking, write_rankings
from matura.core.raw import raw_input
from matura.stages import grpo
from tests.tiny_models import CONTEXT, chatml, network


def begun(folder: Path, heldout: list[str], learned: int = 6, **settings: Any) -> Asked:
    """With so many prompts to learn from and these held out."""
    folder.mkdir()
    for name, texts in (("train", [f"say {n}" for n in range(learned)]), ("test", heldout)):
        rows = [Ranking(f"{name}{n}", ({"role": "user", "content": one},)) for n, one in enumerate(texts)]
        write_rankings(folder / f"{name}.jsonl", rows)
    values = {"model": "m", "prompts": str(folder), "rewards": {"ending": {"weight": 1}}} | settings
    quick = {"rollouts": {"max_new_tokens": 6}, "forgetting": {"text": None}}
    config = parse(grpo.Config, values | quick, "test")
    judges = Weighted((Part("none", 1.0, lambda given: [0.0] * len(given)),))
    return asked(config, {"prompts": raw_input(folder)}, network(), network(), chatml(), judges)


def test_held_out_prompts_are_counted_as_they_are_looked_at(tmp_path: Path) -> None:
    heldout = ["x" * CONTEXT, "ask one", "ask two", "ask three"]
    found = begun(tmp_path / "some", heldout, meter_prompts=3)
    (look,) = found.looks.also
    shown = [one.messages[0]["content"] for one in look.prompts]  # type: ignore[attr-defined]
    assert shown == ["ask one", "ask two"]
    assert (found.counts["heldout_prompts"], found.counts["heldout_rankings"]) == (2, 4)
    none = begun(tmp_path / "none", heldout, meter_every=0)
    assert (none.counts["heldout_prompts"], none.looks.also) == (0, ())


def test_held_out_prompts_of_which_none_fits_are_named(tmp_path: Path) -> None:
    with pytest.raises(MaturaError, match="none of 1 held-out prompts leaves room for 6 new tokens"):
        begun(tmp_path / "long", ["x" * CONTEXT])


def test_held_out_prompts_alone_leave_nothing_to_practise(tmp_path: Path) -> None:
    with pytest.raises(MaturaError, match="all prompts are held out, and none is left to practise"):
        begun(tmp_path / "none", ["ask one"], learned=0)
