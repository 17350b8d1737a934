"""Rounds that run: each an artifact, ended by their gates, continued later, planned with reasons."""

from pathlib import Path

import pytest

from matura.core.errors import ConfigError, GateFailed, MaturaError
from matura.core.planning import ready_inputs
from matura.core.recipe import Recipe
from tests.core.fake_stages import make_model, make_stages
from tests.core.test_recipe import Life, no_pull

RECIPE = """\
stages:
  documents: {stage: curate, path: DOCS}
  start: {stage: finetune, model: base, corpus: $documents}
  rounds:
    repeat: 3
    while: exam
    first: {tuned: FIRST}
    stages:
      written: {stage: synthesize, model: $previous.tuned, count: $round}
      tuned: {stage: finetune, model: $previous.tuned, corpus: $written, steps: 2}
      exam: {stage: evaluate, model: $tuned, parent: $previous.tuned}
      noted: {stage: synthesize, model: $tuned, after: exam}
  merged: {stage: merge, model: $rounds.tuned}
"""


@pytest.fixture
def life(tmp_path: Path) -> Life:
    made = Life(tmp_path)
    made.write(RECIPE.replace("FIRST", "$start"))
    return made


def fails_in(number: int) -> str:
    return f"rounds.from={{{number}: {{exam: {{passes: false}}}}}}"


ROUND = ["written", "tuned", "exam", "noted"]


def names(*rounds: int) -> list[str]:
    return [f"rounds-{n}-{short}" for n in rounds for short in ROUND]


def test_all_rounds_run_when_their_gates_pass(life: Life) -> None:
    made = life.run()
    assert life.ran() == ["documents", "start", *names(1, 2, 3), "merged"]
    assert made["merged"].input("model").id == made["rounds-3-tuned"].id
    assert made["rounds-3-tuned"].input("model").id == made["rounds-2-tuned"].id
    assert life.workspace.find("adapt/rounds-2-tuned").id == made["rounds-2-tuned"].id


def test_a_gate_that_fails_ends_the_rounds_and_the_recipe_goes_on_from_the_last_good_one(life: Life) -> None:
    made = life.run(fails_in(2))
    assert life.ran() == ["documents", "start", *names(1), *names(2)[:2], "merged"]
    assert ("rounds-2-exam", "gate failed") in life.events
    assert ("rounds-2-exam", "rounds end") in life.events
    assert made["merged"].input("model").id == made["rounds-1-tuned"].id
    assert [name for name in made if name.startswith("rounds")] == names(1)
    again = life.run(fails_in(2))
    assert not life.ran()
    assert {name: one.id for name, one in again.items()} == {name: one.id for name, one in made.items()}


def test_when_no_round_is_good_the_recipe_goes_on_from_what_they_started_from(life: Life) -> None:
    made = life.run(fails_in(1))
    assert made["merged"].input("model").id == made["start"].id
    life.write(RECIPE.replace("FIRST", "base"))
    made = life.run(fails_in(1))
    assert made["merged"].input("model").id == life.workspace.find("base").id


def test_what_stands_for_a_stage_before_the_first_round_may_be_used_outside_alone(life: Life) -> None:
    life.write(
        RECIPE.replace("{tuned: FIRST}", "{tuned: $start, written: $texts}").replace(
            "  rounds:", "  texts: {stage: synthesize, model: base}\n  rounds:"
        )
        + "  late: {stage: finetune, model: base, corpus: $rounds.written}\n"
    )
    assert life.run(fails_in(1))["late"].input("corpus").path.name.startswith("texts-")
    assert life.run()["late"].input("corpus").path.name.startswith("rounds-3-written-")


def test_what_no_good_round_made_and_nothing_stands_for_is_an_error_that_keeps_all(life: Life) -> None:
    life.write(
        RECIPE.replace("FIRST", "$start")
        + "  late: {stage: finetune, model: base, corpus: $rounds.written}\n"
    )
    with pytest.raises(GateFailed) as caught:
        life.run(fails_in(1))
    assert "late needs what a round made ($rounds.written), and not even the first was good" in str(
        caught.value
    )
    assert "rounds-1-exam did not pass" in str(caught.value)


def test_more_rounds_go_on_from_the_last_one(life: Life) -> None:
    life.run("rounds.repeat=2")
    life.run("rounds.repeat=4")
    assert life.ran() == [*names(3, 4), "merged"]
    life.run("rounds.repeat=4", "rounds.from={4: {written: {count: 9}}}")
    assert life.ran() == ["rounds-4-written", "rounds-4-tuned", "rounds-4-exam", "rounds-4-noted", "merged"]


def test_until_a_gate_passes(life: Life) -> None:
    goal = RECIPE.replace("FIRST", "$start").replace("while: exam", "until: exam")
    life.write(goal.replace("parent: $previous.tuned", "parent: $previous.tuned, passes: false"))
    made = life.run("rounds.from={2: {exam: {passes: true}}}")
    assert life.ran() == [
        *["documents", "start"],
        *[name for name in names(1) if "exam" not in name],
        *names(2),
        "merged",
    ]
    assert made["merged"].input("model").id == made["rounds-2-tuned"].id
    with pytest.raises(GateFailed, match="rounds-3-exam: the gate did not pass"):
        life.run()


def test_a_gate_in_rounds_that_nothing_waits_for_stops_the_recipe(life: Life) -> None:
    life.write(RECIPE.replace("FIRST", "$start").replace("    while: exam\n", ""))
    with pytest.raises(GateFailed, match="rounds-2-exam: the gate did not pass"):
        life.run(fails_in(2))


def test_a_stage_that_judges_nothing_cannot_decide(life: Life) -> None:
    life.write(RECIPE.replace("FIRST", "$start").replace("while: exam", "while: written"))
    with pytest.raises(ConfigError, match=r"rounds\.while: rounds-1-written judged nothing"):
        life.run()


def test_a_killed_round_goes_on(life: Life) -> None:
    whole = life.run()
    life.workspace.root.rename(life.workspace.root.with_name("other"))
    make_model(life.workspace, "base")
    life.stages = make_stages()
    finetune = life.stages["finetune"]
    run = finetune.run

    def dies_in_the_third(config, inputs, draft):  # type: ignore[no-untyped-def]
        finetune.kill_at = 2 if len(finetune.calls) == 2 else 0
        return run(config, inputs, draft)

    finetune.run = dies_in_the_third
    with pytest.raises(KeyboardInterrupt):
        life.run()
    made = life.run()
    assert ("rounds-2-tuned", "resuming") in life.events
    assert {name: one.id for name, one in made.items()} == {name: one.id for name, one in whole.items()}


def test_the_plan_tells_what_depends_on_a_gate_and_what_the_gates_left_out(life: Life) -> None:
    plan = life.plan()
    assert plan["rounds-1-written"] == ("run", "never run; start runs first")
    assert plan["rounds-2-tuned"][1].endswith("if rounds-1-exam passes")
    life.run(fails_in(2))
    plan = life.plan(fails_in(2))
    assert plan["rounds-2-exam"][0] == "reuse"
    assert plan["rounds-2-exam"][1].endswith("$rounds is what round 1 made")
    assert plan["rounds-3-tuned"][0] == plan["rounds-2-noted"][0] == "skip"
    assert "ended in round 2 of 3: rounds-2-exam did not pass" in plan["rounds-3-tuned"][1]
    assert plan["merged"] == ("reuse", "unchanged")


def step(recipe: Recipe, name: str):  # type: ignore[no-untyped-def]
    return next(one for one in recipe.steps if one.name == name)


def test_one_stage_can_be_looked_at_after_rounds_that_ended(life: Life) -> None:
    made = life.run(fails_in(2))
    loaded = life.load(fails_in(2))
    found = ready_inputs(loaded, step(loaded, "merged"), life.workspace, no_pull)
    assert found["model"].id == made["rounds-1-tuned"].id
    with pytest.raises(MaturaError, match="rounds-3-tuned is not part of the run"):
        ready_inputs(loaded, step(loaded, "rounds-3-tuned"), life.workspace, no_pull)
