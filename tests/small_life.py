"""`recipes/life.yaml` in seconds: its own stages on documents written here, with a model of width 32."""

import random
from pathlib import Path
from typing import Any

import yaml

from matura import cli
from matura.core import recipe
from matura.core.artifact import Artifact
from matura.core.recipe import Recipe
from matura.core.rounds import merged
from matura.core.run import run
from matura.core.workspace import Workspace
from tests.core.test_recipe import no_pull

ROOT = Path(__file__).parents[1]
RECIPE, RULES = ROOT / "recipes/life.yaml", ROOT / "recipes/life_rules.py"
SERVICES = ("garden", "kitchen", "library", "harbour", "station", "weather")
VERBS = ("create", "delete", "describe", "update", "start", "stop", "tag")
THINGS = ("boat", "lamp", "book", "train", "plan", "table", "cloud", "route")
ASKED_IN_EVERY_DOCUMENT = "show what is known"
"""A task that each document of a service has, so that held-out documents ask what others taught."""

PANEL_OFF = {"hellaswag": 0, "arc_easy": 0, "piqa": 0}
NEVER = {"fail_on": "regressed", "margin": 1.0}  # rewards are from 0 to 1, so no loss is larger
TUNING = {"tokens_per_step": 256, "sequence": 128, "meter_every": 0, "save_every": 20}
BY_KIND: dict[str, dict[str, Any]] = {
    "curate": {"heldout": 12},
    "tokenizer": {"vocabulary": 400},
    "pretrain": {
        "shape": {"layers": 1, "width": 32, "head_width": 16},
        "sizes": {"tokens": "24K", "step": 512, "sequence": 128},
        "watch": {"every": 1000, "sample_tokens": 4},
    },
    "finetune": TUNING | {"tokens": 12_000},
    "sample": {"count": 6, "heldout": 6, "k": 4, "batch": 48, "draw": {"max_new_tokens": 40}},
    "reward": TUNING | {"epochs": 1},
    "dpo": {"epochs": 1, "tokens_per_batch": 512, "sequence": 128, "meter_every": 0},
    "evaluate": {
        "panel": PANEL_OFF,
        "texts": {"documents": 12, "document_tokens": 64, "control": 0},
        "window": 128,
        "resamples": 1000,
        "gates": [{"metric": "domain.bpb", "fail_on": "regressed"}],
    },
    "export": {"weights": "F32"},
}
"""What makes stages of a kind small, and gates such that a model of this size passes them. The recipe's own settings
stay otherwise."""
BY_STAGE: dict[str, dict[str, Any]] = {
    "untrained": {"sizes": {"tokens": "0"}},
}
EXPORTS = {"assistant": {"format": "hf"}, "gguf": {"format": "gguf"}}


def write_documents(folder: Path) -> Path:
    """SERVICE/OPERATION.rst for every service and operation, each with two tasks and their commands."""
    draw = random.Random(0)
    for service in SERVICES:
        (folder / service).mkdir(parents=True)
        for verb in VERBS:
            thing = draw.choice(THINGS)
            name = f"{verb}-{thing}"
            text = _task(draw, service, name, f"{verb} a {thing}") + _task(
                draw, service, f"list-{thing}s", ASKED_IN_EVERY_DOCUMENT
            )
            (folder / service / f"{name}.rst").write_text(text)
    return folder


def _task(draw: random.Random, service: str, operation: str, task: str) -> str:
    options = draw.sample(["--name", "--size", "--colour", "--region", "--owner"], 2)
    words = " ".join(
        "".join(draw.choices("abcdefghiklmnoprstuvw", k=draw.randrange(3, 8))) for _ in range(20)
    )
    return (
        f"**To {task}**\n\n"
        f"The following ``{operation}`` example does so, with {words}. ::\n\n"
        f"    aws {service} {operation} \\\n"
        f"        {options[0]} {draw.choice(THINGS)} \\\n"
        f"        {options[1]} {draw.randrange(10, 100)}\n\n"
        f"This command produces no output.\n\n"
    )


def write_recipe(file: Path, documents: Path) -> Path:
    """The recipe with every stage that it has, small, and two exports where it has none."""
    values = yaml.safe_load(RECIPE.read_text())
    for key in ("size", "sizes"):
        del values[key]
    stages: dict[str, dict[str, Any]] = values["stages"]
    for name, settings in EXPORTS.items():
        stages.setdefault(name, {"stage": "export", "model": "$aligned"} | settings)
    for name, settings in stages.items():
        small = merged(BY_KIND.get(settings["stage"], {}), BY_STAGE.get(name, {}))
        stages[name] = merged(settings, small)
        if settings["stage"] == "rank":
            _localised(stages[name])
    stages["corpus"]["path"] = str(documents)
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return file


def _localised(judged: dict[str, Any]) -> None:
    """A stage `rank` with the rules' file wherever this runs, and its gate, if it has one, open."""
    for own in judged["rewards"]["own"].values():
        assert ROOT / own["file"] == RULES
        own["file"] = str(RULES)
    if "gate" in judged:
        judged["gate"] = NEVER


class Life:
    """The recipe's run in a workspace of its own: what each stage made, and what became of it."""

    def __init__(self, place: Path) -> None:
        self.documents = write_documents(place / "documents")
        self.workspace = Workspace(place / "workspace")
        self.recipe: Recipe = recipe.load(write_recipe(place / "life.yaml", self.documents), cli._Modules())
        self.place, self.made, self.status = place, dict[str, Artifact](), dict[str, str]()
        self.run()

    def run(self) -> dict[str, Artifact]:
        """All of it, or what is left of it."""
        self.status = {}
        self.made = run(self.recipe, self.workspace, no_pull, show=self._note)
        return self.made

    def _note(self, event: Any) -> None:
        self.status[event.stage] = event.status

    def __getitem__(self, stage: str) -> Artifact:
        return self.made[stage]
