"""Stopping by the meter: what is kept, when it stops, and that a killed run decides the same."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from matura.core.config import parse
from matura.core.errors import ArtifactError, ConfigError, MaturaError
from matura.core.forgetting_settings import Forgetting
from matura.train.limit import Limit


def model(value: float) -> nn.Module:
    made = nn.Linear(2, 2)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.fill_(value)
    return made


def walk(limit: Limit, looks: list[tuple[float, float | None]]) -> list[bool]:
    """Looks at steps 1, 2, ... with the weights 1.0, 2.0, ..., until it stops."""
    found: list[bool] = []
    for step, (change, heldout) in enumerate(looks, start=1):
        found.append(limit.look(step, change, heldout, model(float(step))))
        if found[-1]:
            break
    return found


def test_it_stops_after_patience_and_the_best_within_the_limit_comes_back(tmp_path: Path) -> None:
    limit = Limit(Forgetting(limit=2.0, patience=2), tmp_path)
    looks = [
        (0.001, 3.0),
        (0.01, 2.0),
        (0.019, 2.5),
        (0.03, 1.0),
        (0.01, 2.2),
        (0.03, 0.9),
        (0.04, 0.8),
        (0.0, 0.1),
    ]
    assert walk(limit, looks) == [False] * 6 + [True]
    end = model(7.0)
    assert limit.finish(end) == 2
    assert all((parameter == 2.0).all() for parameter in end.parameters())


def test_a_run_that_forgets_nothing_is_not_stopped(tmp_path: Path) -> None:
    limit = Limit(Forgetting(limit=2.0), tmp_path)
    assert walk(limit, [(0.0, 3.0 - n / 10) for n in range(9)]) == [False] * 9
    assert limit.finish(model(9.0)) == 9


def test_without_a_limit_nothing_is_kept_or_stopped(tmp_path: Path) -> None:
    limit = Limit(Forgetting(), tmp_path)
    assert walk(limit, [(9.0, 1.0)] * 5) == [False] * 5
    assert limit.finish(model(1.0)) is None
    assert not list(tmp_path.iterdir())


def test_the_last_weights_may_be_kept_instead(tmp_path: Path) -> None:
    limit = Limit(Forgetting(limit=2.0, keep="last"), tmp_path)
    assert walk(limit, [(0.0, 3.0), (0.1, 2.0), (0.1, 2.0)]) == [False, False, True]
    end = model(3.0)
    assert limit.finish(end) is None
    assert all((parameter == 3.0).all() for parameter in end.parameters())
    assert not list(tmp_path.iterdir())


def test_a_figure_that_is_no_number_is_beyond_every_limit(tmp_path: Path) -> None:
    limit = Limit(Forgetting(limit=50.0, patience=1), tmp_path)
    assert walk(limit, [(float("nan"), 1.0)]) == [True]


def test_without_held_out_material_the_latest_within_the_limit_is_kept(tmp_path: Path) -> None:
    limit = Limit(Forgetting(limit=2.0), tmp_path)
    walk(limit, [(0.0, None), (0.01, None), (0.1, None)])
    assert limit.finish(model(0.0)) == 2


def test_nothing_within_the_limit_is_told(tmp_path: Path) -> None:
    limit = Limit(Forgetting(limit=2.0), tmp_path)
    assert walk(limit, [(0.1, 1.0), (0.1, 1.0)])[-1]
    with pytest.raises(MaturaError, match=r"at every look .* more than forgetting\.limit=2 percent"):
        limit.finish(model(0.0))


def test_a_resumed_run_decides_as_one_that_was_not_killed(tmp_path: Path) -> None:
    looks = [(0.0, 3.0), (0.01, 2.0), (0.1, 1.0), (0.1, 0.9)]
    settings = Forgetting(limit=2.0, patience=2)
    first = Limit(settings, tmp_path)
    walk(first, looks[:2])
    state: dict[str, Any] = first.state()
    first.tidy()
    first.look(3, 0.0, 0.5, model(3.0))  # written after the checkpoint, and lost
    second = Limit(settings, tmp_path)
    second.restore(state)
    assert not second.look(3, *looks[2], model(3.0))
    assert second.look(4, *looks[3], model(4.0))
    assert second.finish(model(4.0)) == 2
    second.tidy()
    assert [path.name for path in tmp_path.iterdir()] == ["within-limit-2.safetensors"]


def test_no_more_than_two_copies_of_the_weights_lie_on_disk(tmp_path: Path) -> None:
    limit = Limit(Forgetting(limit=2.0), tmp_path)
    for step in range(1, 7):
        limit.look(step, 0.0, 9.0 - step, model(float(step)))
        if step == 2:
            limit.tidy()  # a checkpoint
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["within-limit-2.safetensors", "within-limit-6.safetensors"]


def test_kept_weights_that_are_broken_are_told(tmp_path: Path) -> None:
    limit = Limit(Forgetting(limit=2.0), tmp_path)
    walk(limit, [(0.0, 1.0)])
    (tmp_path / "within-limit-1.safetensors").write_bytes(b"no")
    with pytest.raises(ArtifactError, match="cannot be read"):
        limit.finish(model(0.0))


def test_settings_that_would_do_nothing_are_refused() -> None:
    for values in ({"patience": 3}, {"keep": "last"}):
        with pytest.raises(ConfigError, match="would do nothing without a limit"):
            parse(Forgetting, values, "test")
    with pytest.raises(ConfigError, match="kl_on would do nothing without an anchor"):
        parse(Forgetting, {"kl_on": "both"}, "test")
