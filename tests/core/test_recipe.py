"""Recipes: checked as a whole, planned with reasons, run with reuse, resume and gates."""

import json
import os
import time
from pathlib import Path

import pytest

from matura.core import artifact, planning, recipe, resolve
from matura.core.errors import ArtifactError, ConfigError, GateFailed, MaturaError, ModelNotFound
from matura.core.plan import table
from matura.core.run import run
from matura.core.workspace import Workspace
from tests.core.fake_stages import make_model, make_stages

RECIPE = """\
description: A small life.
stages:
  documents: {stage: curate, path: DOCS}
  replay: {stage: synthesize, model: base}
  tuned: {stage: finetune, model: base, corpus: $documents, replay: $replay}
  exam: {stage: evaluate, model: $tuned, parent: base}
  merged: {stage: merge, model: $tuned, after: exam}
"""


class Life:
    """A recipe file, documents, stages and a workspace to run them in."""

    def __init__(self, place: Path) -> None:
        self.docs = place / "docs"
        self.docs.mkdir()
        (self.docs / "a.txt").write_text("first")
        self.workspace = Workspace(place / "workspace")
        make_model(self.workspace, "base")
        self.file = place / "adapt.yaml"
        self.write(RECIPE)
        self.stages = make_stages()
        self.events: list[tuple[str, str]] = []
        self.details: dict[str, str] = {}

    def write(self, text: str) -> None:
        self.file.write_text(text.replace("DOCS", str(self.docs)))

    def load(self, *overrides: str) -> recipe.Recipe:
        return recipe.load(self.file, self.stages, overrides)

    def run(self, *overrides: str, pull=None) -> dict[str, artifact.Artifact]:
        self.events.clear()

        def show(event):
            self.events.append((event.stage, event.status))
            self.details[event.stage] = (
                event.detail if event.made is None else self.details.get(event.stage, "")
            )

        return run(self.load(*overrides), self.workspace, pull or no_pull, show=show)

    def ran(self) -> list[str]:
        return [stage for stage, status in self.events if status == "made"]

    def plan(self, *overrides: str) -> dict[str, tuple[str, str]]:
        rows = planning.plan(self.load(*overrides), self.workspace)
        return {row.name: (row.action, row.why) for row in rows}

    def journal(self) -> dict:
        return json.loads((self.workspace.runs / "adapt" / "run.json").read_text())


def no_pull(reference, workspace):
    raise ModelNotFound(f"no model {reference}")


@pytest.fixture
def life(tmp_path):
    return Life(tmp_path)


def problems(life: Life, text: str, *overrides: str) -> str:
    life.write(text)
    with pytest.raises(ConfigError) as caught:
        life.load(*overrides)
    return str(caught.value)


# Checking


def test_a_recipe_is_ordered_by_needs_and_otherwise_as_written(life):
    life.write(
        "stages:\n"
        "  exam: {stage: evaluate, model: $tuned, after: [replay]}\n"
        "  replay: {stage: synthesize, model: base}\n"
        "  tuned: {stage: finetune, model: base, corpus: $documents}\n"
        "  documents: {stage: curate, path: DOCS}\n"
    )
    loaded = life.load()
    assert [step.name for step in loaded.steps] == ["replay", "documents", "tuned", "exam"]
    assert loaded.name == "adapt"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "tuned: {stage: finetun, model: base}",
            "tuned.stage: unknown kind of stage 'finetun'; did you mean 'fine",
        ),
        ("tuned: {model: base}", "tuned: has no 'stage'; add one of: curate, evaluate"),
        ("tuned: 3", "tuned: expected settings"),
        ("tuned: {stage: merge, modle: base}", "tuned.modle: unknown setting; did you mean 'model'?"),
        (
            "tuned: {stage: merge, model: $documnts}",
            "there is no stage 'documnts'; did you mean 'documents'?",
        ),
        ("tuned: {stage: merge, model: $documents}", "expected a model, but $documents makes a corpus"),
        ("tuned: {stage: curate, path: $documents}", "expected a path, but $documents makes a corpus"),
        (
            "tuned: {stage: merge, model: base, after: documnt}",
            "tuned.after: there is no stage 'documnt'; did you",
        ),
        ("tuned: {stage: merge, model: base, after: [3]}", "tuned.after: expected the name of a stage"),
        ("tuned: {stage: merge, model: $tuned}", "the stages wait for each other: tuned -> tuned"),
        ("tu.ned: {stage: merge, model: base}", "tu.ned: the name must be letters"),
        (
            "tuned: {stage: finetune, model: base, corpus: $documents, method: $documents}",
            "tuned.method: is not an input; the inputs of this stage are: model, corpus, replay",
        ),
    ],
)
def test_each_problem_names_line_field_and_remedy(life, line, expected):
    text = problems(life, f"stages:\n  documents: {{stage: curate, path: DOCS}}\n  {line}\n")
    assert expected in text
    assert f"{life.file}:3: " in text


def test_all_problems_come_at_once_in_the_order_of_the_file(life):
    text = problems(
        life,
        "naem: x\nstages:\n"
        "  a: {stage: curate, pth: x}\n"
        "  b: {stage: finetune, model: $a, corpus: $c, steps: many, steps: 2}\n"
        "  d: {stage: unknown}\n",
        "e.steps=1",
        "nonsense",
    )
    lines = text.splitlines()
    assert lines[0] == f"{life.file}: 10 problems"
    expected = [
        "'e.steps=1': unknown stage 'e'",
        "'nonsense': expected stage.key=value",
        "adapt.yaml:1: naem: unknown key; did you mean 'name'?",
        "adapt.yaml:3: a.path: is required",
        "adapt.yaml:3: a.pth: unknown setting; did you mean 'path'?",
        "adapt.yaml:4: 'steps' is written twice (first on line 4)",
        'adapt.yaml:4: b.steps: expected a whole number, got "many"',
        "adapt.yaml:4: b.model: expected a model, but $a makes a corpus",
        "adapt.yaml:4: b.corpus: there is no stage 'c'",
        "adapt.yaml:5: d.stage: unknown kind of stage 'unknown'",
    ]
    found = lines[1:]
    assert len(found) == len(expected)
    for wanted in expected:
        assert sum(wanted in line for line in found) == 1, wanted


def test_a_cycle_is_shown(life):
    text = problems(
        life,
        "stages:\n"
        "  x: {stage: merge, model: $b}\n"
        "  a: {stage: merge, model: $c}\n"
        "  b: {stage: merge, model: $a}\n"
        "  c: {stage: merge, model: base, after: b}\n",
    )
    assert "wait for each other: b -> a -> c -> b" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected a mapping with the key 'stages'"),
        ("- a\n", "expected a mapping with the key 'stages'"),
        ("stages: {}\n", "at least one stage"),
        ("stages: [a]\n", "at least one stage"),
        ("stages:\n  a: {stage: curate\n", "is not valid YAML"),
        ("name: ../x\nstages: {a: {stage: curate, path: x}}\n", "name: '../x' must be letters"),
    ],
)
def test_what_is_no_recipe(life, text, expected):
    assert expected in problems(life, text)


def test_overrides(life):
    loaded = life.load("tuned.steps=9", "tuned.optim.lr=1e-4", "documents.path=~/notes", "tuned.replay=null")
    steps = {step.name: step for step in loaded.steps}
    assert steps["tuned"].config.steps == 9
    assert steps["tuned"].config.optim.lr == 1e-4
    assert steps["tuned"].uses == {"corpus": "documents"}
    assert steps["documents"].config.path == os.path.expanduser("~/notes")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("tund.steps=9", "unknown stage 'tund'; did you mean 'tuned'?"),
        ("tuned.stepps=9", "on the command line: tuned.stepps: unknown setting; did you mean 'steps'?"),
        ("tuned.steps=x", 'on the command line: tuned.steps: expected a whole number, got "x"'),
        ("tuned.corpus=$exam", "on the command line: tuned.corpus: expected a corpus or conversations"),
        ("steps=9", "expected stage.key=value"),
    ],
)
def test_wrong_overrides(life, override, expected):
    assert expected in problems(life, RECIPE, override)


def test_one_stage_alone(life):
    made = recipe.single("merge", ["model=~/m"], life.stages)
    assert (made.name, made.steps[0].name) == ("adhoc", "merge")
    assert made.steps[0].outside == {"model": os.path.expanduser("~/m")}
    with pytest.raises(ConfigError) as caught:
        recipe.single("finetune", ["model=base", "step=3", "x"], life.stages)
    text = str(caught.value)
    assert "finetune.corpus: is required" in text
    assert "did you mean 'steps'?" in text
    assert "'x': expected key=value" in text


def test_the_schema_tells_stages_apart(life):
    made = recipe.schema(life.stages)
    stage = made["$defs"]["stage-finetune"]
    assert stage["properties"]["stage"]["const"] == "finetune"
    assert stage["additionalProperties"] is False
    assert set(stage["required"]) == {"stage", "model", "corpus"}
    assert "#/$defs/finetune-Optimizer" in json.dumps(stage["properties"]["optim"])
    assert made["$defs"]["finetune-Optimizer"]["properties"]["lr"]["exclusiveMinimum"] == 0


# Running


def test_a_second_run_reuses_everything(life):
    first = life.run()
    assert life.ran() == ["documents", "replay", "tuned", "exam", "merged"]
    second = life.run()
    assert [status for _, status in life.events] == ["reused"] * 5
    assert {name: made.id for name, made in first.items()} == {name: made.id for name, made in second.items()}
    assert [len(stage.calls) for stage in life.stages.values()] == [1] * 5


def test_run_json_names_the_output_of_each_stage(life):
    made = life.run()
    record = life.journal()
    assert life.workspace.find("adapt/tuned").id == made["tuned"].id
    assert record["stages"]["tuned"]["status"] == "made"
    assert record["stages"]["tuned"]["reused"] is False
    assert list(record["stages"]) == ["documents", "replay", "tuned", "exam", "merged"]
    life.run()
    assert life.journal()["stages"]["tuned"]["reused"] is True


def test_run_json_says_how_the_run_stands_and_what_it_did_not_reach(life):
    life.run()
    assert (life.journal()["state"], life.journal()["to_come"]) == ("finished", [])
    with pytest.raises(GateFailed):
        life.run("exam.passes=false")
    assert (life.journal()["state"], life.journal()["to_come"]) == ("gate failed", ["merged"])
    life.stages["finetune"].kill_at = 2
    with pytest.raises(KeyboardInterrupt):
        life.run("tuned.steps=7")
    assert (life.journal()["state"], life.journal()["to_come"]) == ("interrupted", ["exam", "merged"])
    latest = life.workspace.latest("adapt")
    assert (latest.state, latest.to_come) == ("interrupted", ("exam", "merged"))


def test_a_change_reruns_the_stage_and_what_depends_on_it(life):
    life.run()
    life.run("tuned.steps=5")
    assert life.ran() == ["tuned", "exam", "merged"]
    assert life.details["tuned"] == "config changed: steps 4 -> 5"
    assert life.details["exam"] == "input tuned changed"


def test_going_back_finds_the_first_result_again(life):
    life.run()
    life.run("tuned.steps=5")
    life.run()
    assert life.ran() == []


def test_changed_documents_rerun_what_read_them(life):
    life.run()
    (life.docs / "a.txt").write_text("other")
    life.run()
    assert life.ran() == ["documents", "tuned", "exam", "merged"]
    assert life.details["documents"] == "input path changed"


def test_a_new_version_of_a_stage_reruns_it(life):
    life.run()
    life.stages["synthesize"].VERSION = 2
    life.run()
    assert life.ran() == ["replay", "tuned", "exam", "merged"]
    assert life.details["replay"] == "stage version 1 -> 2"


def test_a_killed_stage_goes_on_and_ends_the_same(life, tmp_path):
    finetune = life.stages["finetune"]
    finetune.kill_at = 3
    with pytest.raises(KeyboardInterrupt):
        life.run()
    assert life.journal()["stages"]["tuned"]["status"] == "interrupted"
    assert life.plan()["tuned"] == ("resume", "interrupted at step 2")
    finetune.kill_at = 0
    resumed = life.run()
    assert ("tuned", "resuming") in life.events
    assert life.details["tuned"] == "interrupted at step 2"
    assert finetune.worked == [1, 2, 3, 4]
    assert life.ran() == ["tuned", "exam", "merged"]
    other = tmp_path / "other"
    other.mkdir()
    assert Life(other).run()["tuned"].id == resumed["tuned"].id


def test_a_stage_that_fails_keeps_what_was_made(life):
    finetune = life.stages["finetune"]
    finetune.kill_at, finetune.kill_with = 2, MaturaError("the loss is not a number")
    with pytest.raises(MaturaError, match="not a number"):
        life.run()
    assert life.journal()["stages"]["tuned"]["status"] == "failed"
    finetune.kill_at = 0
    life.run()
    assert [status for name, status in life.events if name in ("documents", "replay")] == ["reused", "reused"]


def test_an_interrupted_stage_with_other_settings_starts_anew(life):
    life.stages["finetune"].kill_at = 3
    with pytest.raises(KeyboardInterrupt):
        life.run()
    life.stages["finetune"].kill_at = 0
    assert life.plan("tuned.steps=6")["tuned"] == ("run", "config changed: steps 4 -> 6")
    life.run("tuned.steps=6")
    assert life.stages["finetune"].worked == [1, 2, 1, 2, 3, 4, 5, 6]


def test_a_gate_stops_the_recipe_also_when_reused(life):
    for status in ("gate failed", "gate failed"):
        with pytest.raises(GateFailed) as caught:
            life.run("exam.passes=false")
        assert life.events[-1] == ("exam", status)
        assert "accuracy regressed: -9.0 points" in str(caught.value)
        assert "report.html" in str(caught.value)
    assert len(life.stages["evaluate"].calls) == 1
    assert life.stages["merge"].calls == []
    assert life.workspace.find("adapt/tuned").kind == "model"
    assert "gate failed" in life.plan("exam.passes=false")["exam"][1]


def test_a_stage_that_the_latest_run_did_not_reach_is_not_taken_for_its_result(life):
    life.run()
    earlier = life.workspace.find("adapt/merged").path
    with pytest.raises(GateFailed):
        life.run("exam.passes=false")
    with pytest.raises(ArtifactError, match="did not get that far") as caught:
        life.workspace.find("adapt/merged")
    assert str(earlier) in str(caught.value)
    life.run()
    assert life.workspace.find("adapt/merged").path == earlier


def test_a_damaged_output_is_moved_aside_and_made_again(life):
    first = life.run()["documents"]
    (first.path / "train.txt").write_text("")
    assert life.plan()["documents"][1].startswith("its output is damaged: train.txt: has 0 bytes")
    again = life.run()["documents"]
    assert ("documents", "damaged") in life.events
    assert life.details["documents"].startswith("its output was damaged: train.txt: has 0 bytes")
    assert life.ran() == ["documents"]  # the same result again, so nothing after it runs
    assert again.id == first.id
    assert len(list(first.path.parent.glob("documents-*.damaged-*"))) == 1


def test_a_full_disk_does_not_hide_that_a_stage_was_interrupted(life, monkeypatch):
    finetune = life.stages["finetune"]
    real = finetune.run

    def fill_the_disk(config, inputs, draft):
        def full(path, value):
            raise ArtifactError("the disk is full")

        monkeypatch.setattr("matura.core.run.write_json", full)
        finetune.kill_at = 2
        return real(config, inputs, draft)

    finetune.run = fill_the_disk
    with pytest.raises(KeyboardInterrupt):
        life.run()


def test_a_full_disk_is_noticed_before_the_stage_starts(life, monkeypatch):
    needed = []

    def check(self, count, what):
        needed.append((count, what))
        raise ArtifactError("too little disk")

    monkeypatch.setattr(Workspace, "check_disk", check)
    with pytest.raises(ArtifactError, match="too little"):
        life.run()
    assert needed == [(1200, "The stage documents")]
    assert life.stages["curate"].calls == []


def test_a_second_run_at_the_same_time_is_refused(life):
    with life.workspace.lock(), pytest.raises(MaturaError, match="in use"):
        life.run()


# Inputs from outside


def test_a_model_that_is_not_here_is_pulled_once_and_first(life):
    order = []

    def pull(reference, workspace):
        order.append((reference, len(life.stages["curate"].calls)))
        return make_model(workspace, "other")

    life.write(RECIPE.replace("base", "hf:org/other"))
    life.run(pull=pull)
    assert order == [("hf:org/other", 0)]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("documents.path=/nowhere", r"documents.path: There is no file or folder /nowhere"),
        ("tuned.corpus=adapt/docs", r"tuned.corpus: There is no artifact 'adapt/docs'"),
        ("tuned.corpus=base", r"tuned.corpus: expected a corpus or conversations, but base is a model"),
        ("merged.model=nope/tuned", r"merged.model: There is no artifact 'nope/tuned'"),
        ("merged.model=unknown", r"merged.model: There is no model 'unknown'"),
        ("merged.model=smollm2-135m-instrct", r"did you mean smollm2-135m-instruct\?"),
        ("merged.model=./nowhere.gguf", r"merged.model: There is no artifact './nowhere.gguf'"),
    ],
)
def test_a_wrong_input_stops_before_the_first_stage(life, override, expected):
    with pytest.raises(MaturaError, match=expected):
        life.run(override)
    assert life.stages["curate"].calls == []


def test_all_wrong_inputs_come_at_once(life):
    with pytest.raises(ConfigError) as caught:
        life.run("documents.path=/nowhere", "tuned.corpus=base")
    assert str(caught.value).splitlines()[0] == "adapt: 2 problems"


def test_a_model_that_cannot_be_pulled_stops_before_the_first_stage(life):
    with pytest.raises(ModelNotFound, match="no model hf:org/gone"):
        life.run("merged.model=hf:org/gone")
    assert life.stages["curate"].calls == []


def test_a_stage_may_read_its_raw_input_in_its_own_way(life):
    seen = []

    def raw_input(config, setting, workspace):
        seen.append((config.path, setting, workspace.root))
        return answer

    answer = life.docs

    life.stages["curate"].raw_input = raw_input
    made = life.run("documents.path=package:docs==1")
    assert seen == [("package:docs==1", "path", life.workspace.root)]
    assert made["documents"].file("train.txt").read_text() == "first"
    plan = life.plan("documents.path=package:docs==2")
    assert plan["documents"] == ("run", "package:docs==2 is fetched first")
    assert life.plan("documents.path=package:docs==1")["documents"] == ("reuse", "unchanged")
    assert len(seen) == 1  # a plan fetches nothing
    answer = artifact.raw_input(life.docs)
    life.run("documents.path=package:docs==1")
    assert life.ran() == []


def test_raw_files_are_hashed_again_only_when_they_changed(life, monkeypatch):
    hashed = []
    real = resolve.raw_input
    monkeypatch.setattr(resolve, "raw_input", lambda path: hashed.append(path) or real(path))
    first = resolve.remembered_raw_input(life.docs, life.workspace)
    resolve.remembered_raw_input(life.docs, life.workspace)
    assert len(hashed) == 2  # too fresh to be trusted
    monkeypatch.setattr(resolve, "SETTLED_SECONDS", -3600.0)
    resolve.remembered_raw_input(life.docs, life.workspace)
    assert resolve.remembered_raw_input(life.docs, life.workspace) == first
    assert len(hashed) == 3
    time.sleep(0.01)
    (life.docs / "a.txt").write_text("other")
    assert resolve.remembered_raw_input(life.docs, life.workspace).id != first.id


# Planning


def test_a_plan_of_a_new_recipe(life):
    rows = life.plan()
    assert rows == {
        "documents": ("run", "never run"),
        "replay": ("run", "never run"),
        "tuned": ("run", "never run; documents runs first; replay runs first"),
        "exam": ("run", "never run; tuned runs first"),
        "merged": ("run", "never run; tuned runs first"),
    }
    assert not life.workspace.runs.exists()


def test_a_plan_writes_and_pulls_nothing(life):
    before = sorted(path for path in life.workspace.root.rglob("*"))
    life.write(RECIPE.replace("base", "hf:org/other"))
    assert life.plan()["replay"] == ("run", "never run; hf:org/other is pulled first")
    assert sorted(path for path in life.workspace.root.rglob("*")) == before


def test_a_plan_says_what_changed(life):
    life.run()
    assert {row[0] for row in life.plan().values()} == {"reuse"}
    rows = life.plan("tuned.steps=5", "tuned.optim.lr=1e-4")
    assert rows["documents"] == ("reuse", "unchanged")
    assert rows["tuned"] == ("run", "config changed: steps 4 -> 5, optim.lr 0.001 -> 0.0001")
    assert rows["exam"] == ("run", "tuned runs first")
    assert life.plan("tuned.replay=null")["tuned"] == ("run", "input replay removed")
    make_model(life.workspace, "larger")
    assert life.plan("replay.model=larger")["replay"] == ("run", "input model changed: base -> larger")
    life.stages["finetune"].VERSION = 2
    assert life.plan()["tuned"] == ("run", "stage version 1 -> 2")
    (life.docs / "b.txt").write_text("second")
    assert life.plan()["documents"] == ("run", "input path changed")


def test_a_plan_that_follows_a_gone_output(life):
    made = life.run()["merged"]
    for path in made.path.iterdir():
        path.unlink()
    made.path.rmdir()
    assert life.plan()["merged"] == ("run", "never run")


def test_the_table_adds_up_what_will_run(life):
    life.run()
    text = table(planning.plan(life.load("tuned.steps=5"), life.workspace))
    lines = text.splitlines()
    assert lines[0].split() == ["stage", "action", "time", "memory", "disk", "why"]
    assert lines[1].split() == ["documents", "reuse", "-", "-", "-", "unchanged"]
    assert lines[3].split()[:8] == ["tuned", "run", "30", "s", "2.0", "GB", "1.0", "kB"]
    assert lines[-1].split() == ["total", "3", "of", "5", "2", "min", "2.0", "GB", "3.0", "kB"]
