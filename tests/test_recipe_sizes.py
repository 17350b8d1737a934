"""The recipes of recipes/ in all their sizes: they can be run, the default is what it was before it had company, and
those for SmolLM2 fit a laptop."""

import json
from pathlib import Path

import pytest

from benchmarks import raft
from benchmarks.options import Options
from matura import cli
from matura.core import planning, recipe, yamlfile
from matura.core.recipe import Recipe
from matura.core.workspace import Workspace

FOLDER = Path(__file__).parents[1] / "recipes"
SIZES = [
    (file.name, size)
    for file in sorted(FOLDER.glob("*.yaml"))
    for size in yamlfile.read(file).values.get("sizes", {})
]
ALIGNMENT = ["dpo.yaml", "raft.yaml", "rlhf.yaml"]
MODEL = "smollm2-135m-instruct"
MOST_SECONDS, MOST_BYTES = 90 * 60, 12 << 30
"""By plan, which reckons with the longest answers that may be written."""


def load(file: str, size: str) -> Recipe:
    return recipe.load(FOLDER / file, cli._Modules(), (f"size={size}",))


@pytest.mark.parametrize(("file", "size"), SIZES)
def test_a_recipe_can_be_run_in_every_size(file: str, size: str) -> None:
    assert load(file, size).steps


@pytest.mark.parametrize("file", ALIGNMENT)
def test_the_default_only_leaves_stages_out(file: str) -> None:
    def changed(one: object) -> bool:
        return any(map(changed, one.values())) if isinstance(one, dict) else one is not None

    values = yamlfile.read(FOLDER / file).values
    assert values["size"] == "small"
    assert not changed(values["sizes"]["small"])


@pytest.mark.parametrize("size", ["smollm2", "own"])
@pytest.mark.parametrize("file", ALIGNMENT)
def test_a_size_for_smollm2_begins_with_it_and_ends_with_an_exam(file: str, size: str) -> None:
    steps = load(file, size).steps
    assert not {"tokenizer", "encode", "pretrain"} & {step.kind for step in steps}
    assert MODEL in {step.outside.get("model") for step in steps if step.kind != "evaluate"}
    tuned = [step for step in steps if step.kind in ("finetune", "dpo", "ppo")]
    assert tuned
    assert {step.config.method for step in tuned} == {"lora"}  # type: ignore[attr-defined]
    exams = [step for step in steps if step.kind == "evaluate"]
    assert exams
    for exam in exams:  # what the method cost; after SFT on one task, beside the model that it left
        named = exam.outside.get("parent") or exam.uses["parent"]
        assert named == ("merged_start" if size == "smollm2" else MODEL)
        asked = {gate.metric for gate in exam.config.gates}  # type: ignore[attr-defined]
        assert asked == {"general.gold_bpb", "general.acc_norm"}


@pytest.mark.parametrize("file", ALIGNMENT)
def test_smollm2_by_a_rule_takes_a_laptop_an_hour_or_so(file: str, tmp_path: Path) -> None:
    rows = planning.plan(load(file, "smollm2"), Workspace(tmp_path))
    assert sum(row.estimate.seconds for row in rows) < MOST_SECONDS
    assert max(row.estimate.memory_bytes for row in rows) < MOST_BYTES


@pytest.mark.parametrize("file", ALIGNMENT)
def test_own_preferences_are_read_from_files_and_no_rule_is_left(file: str) -> None:
    steps = load(file, "own").steps
    assert all(getattr(step.config, "program", None) is None for step in steps)
    assert any(step.outside.get("preferences", "").endswith("/preferences.jsonl") for step in steps)
    rewards = [step.config.rewards.weights for step in steps if hasattr(step.config, "rewards")]
    assert all("exact" not in one and one["judge"] == 1 for one in rewards)


@pytest.mark.parametrize("quick", [False, True])
def test_the_benchmark_of_rounds_fits_the_recipe(quick: bool, tmp_path: Path) -> None:
    stages = raft._recipe(1, Options(quick=quick))
    file = tmp_path / "raft.yaml"
    file.write_text(json.dumps({"name": "raft", "stages": stages}))
    steps = recipe.load(file, cli._Modules()).steps
    assert {"rounds-1-judged", f"rounds-{raft.ROUNDS}-judged"} <= {step.name for step in steps}
    assert not [step.name for step in steps if step.outside]  # all that it needs is made on the spot
