"""The stage with a program: no model, the same bytes every time, and settings that fit it."""

import json
from pathlib import Path
from typing import Any

import pytest

from matura.core.config import parse
from matura.core.errors import ConfigError
from matura.core.records import read_conversations
from matura.stages import synthesize
from tests.tiny_models import run


def test_a_program_needs_no_model_and_writes_the_same_again(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"program": "numbers", "count": 120, "heldout": 20, "seed": 5}
    made = run(synthesize, tmp_path / "made", **settings)
    assert (made.summary["train"], made.summary["heldout"]) == (100, 20)
    assert made.summary["line"] == "100 conversations and 20 held out, by the program numbers"
    assert len(list(read_conversations(made.file("train.jsonl")))) == 100
    assert json.loads(made.file("report.json").read_text())["version"] == "1"
    again = run(synthesize, tmp_path / "again", **settings)
    for part in ("train.jsonl", "heldout.jsonl"):
        assert again.file(part).read_bytes() == made.file(part).read_bytes()
    plan = synthesize.estimate(parse(synthesize.Config, settings, "test"), {})
    assert plan.note == "written by a program"
    assert plan.disk_bytes > sum(path.stat().st_size for path in made.path.iterdir())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"program": "number"}, "numbers"),
        ({"program": "numbers", "model": "tiny"}, "who writes"),
        ({"program": "numbers", "texts": 3}, "`texts` is for a model"),
        ({"program": "numbers", "tasks": {"count": 3}}, "`tasks` is for a model"),
        ({"program": "numbers", "count": 10, "heldout": 10}, "must be less than `count`"),
        ({"model": "tiny", "count": 3}, "`count` is for a program"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(synthesize.Config, settings, "test")
