"""What the stages that practise (`ppo`, `grpo`) are tried on: a tiny model, prompts, and rewards of a file."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from matura.core.artifact import Artifact, RawInput
from matura.core.config import parse
from matura.core.metrics import MetricsLog
from matura.core.preferences import Ranking, write_rankings
from matura.core.raw import raw_input
from tests.tiny_models import make, network, pulled

World = dict[str, Artifact | RawInput]
"""`model`, `prompts`, and the `file` of the rewards."""


def world_of(place: Path, rewards: str) -> World:
    """Twelve prompts beside the source of a file of rewards."""
    (place / "rewards.py").write_text(rewards)
    rows = [Ranking(f"p{n}", ({"role": "user", "content": f"say {n}"},)) for n in range(12)]
    write_rankings(place / "prompts.jsonl", rows)
    return {
        "model": pulled(place, model=network(scale=2.0)),
        "prompts": raw_input(place / "prompts.jsonl"),
        "file": raw_input(place / "rewards.py"),
    }


def run_stage(
    stage: ModuleType, world: World, folder: Path, rewards: Mapping[str, float], settings: dict[str, Any]
) -> Artifact:
    """What the stage makes with these functions of the file as rewards, by name and weight."""
    own = {name: {"file": str(world["file"].path), "weight": weight} for name, weight in rewards.items()}
    places = {name: str(world[name].path) for name in ("model", "prompts")}
    config = parse(stage.Config, settings | places | {"rewards": {"own": own}}, "test")
    inputs = {name: world[name] for name in places}
    inputs |= {f"rewards.own.{name}.file": world["file"] for name in rewards}
    return make(stage, folder, config, inputs)


def rows(made: Artifact) -> list[dict[str, Any]]:
    return MetricsLog(made.path / "metrics.jsonl").rows()
