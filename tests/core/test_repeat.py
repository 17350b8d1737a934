"""Rounds written out: names, what the round before made, changes from a round on, and errors where they stand."""

import json
from pathlib import Path
from typing import Any

import pytest

from matura.core import recipe, repeat, rounds
from matura.core.errors import ConfigError
from tests.core.fake_stages import make_stages

ROUNDS: dict[str, Any] = {
    "repeat": 3,
    "while": "exam",
    "first": {"tuned": "$start"},
    "stages": {
        "written": {"stage": "synthesize", "model": "$previous.tuned", "seed": "$round"},
        "tuned": {
            "stage": "finetune",
            "model": "$previous.tuned",
            "corpus": "$written",
            "optim": {"lr": 0.1},
        },
        "exam": {"stage": "evaluate", "model": "$tuned", "parent": "$previous.tuned"},
    },
}


def expanded(**stages: Any) -> repeat.Expanded:
    wrong: list[str] = []
    made = repeat.expand(stages, lambda place, message: wrong.append(f"{place}: {message}"))
    assert not wrong
    return made


def complaints(**stages: Any) -> str:
    wrong: list[str] = []
    repeat.expand(stages, lambda place, message: wrong.append(f"{'.'.join(map(str, place))}: {message}"))
    return "\n".join(wrong)


def test_every_round_goes_on_from_the_one_before() -> None:
    made = expanded(start={"stage": "merge", "model": "base"}, rounds=ROUNDS).stages
    assert list(made)[:4] == ["start", "rounds-1-written", "rounds-1-tuned", "rounds-1-exam"]
    assert len(made) == 1 + 9
    assert made["rounds-1-written"] == {"stage": "synthesize", "model": "$start", "seed": 1}
    assert made["rounds-3-tuned"] == {
        "stage": "finetune",
        "model": "$rounds-2-tuned",
        "corpus": "$rounds-3-written",
        "optim": {"lr": 0.1},
        "after": ["rounds-2-exam"],
    }


def test_outside_of_the_rounds_their_name_is_the_last_round_once_its_gate_has_spoken() -> None:
    made = expanded(
        start={"stage": "merge", "model": "base"},
        rounds=ROUNDS,
        last={"stage": "merge", "model": "$rounds.tuned", "deep": {"also": ["$rounds.written"]}},
        end={"stage": "merge", "model": "base", "after": "rounds"},
    ).stages
    assert made["last"] == {
        "stage": "merge",
        "model": "$rounds-3-tuned",
        "deep": {"also": ["$rounds-3-written"]},
        "after": ["rounds-3-exam"],
    }
    assert made["end"]["after"] == ["rounds-3-written", "rounds-3-tuned", "rounds-3-exam"]


def test_one_group_goes_on_from_another() -> None:
    second = ROUNDS | {"first": {"tuned": "$rounds.tuned"}, "repeat": 1}
    made = expanded(start={"stage": "merge", "model": "base"}, rounds=ROUNDS, more=second).stages
    assert made["more-1-written"]["model"] == "$rounds-3-tuned"
    assert made["more-1-written"]["after"] == ["rounds-3-exam"]


def test_settings_change_from_a_round_on_and_the_number_stands_in_texts() -> None:
    inner = {"a": {"stage": "x", "group": {"kept": 1, "lr": 1}, "ranks": "~/ranks-$round.jsonl"}}
    changes = {"3": {"a": {"group": {"lr": 3}}}, "2": {"a": {"group": {"lr": 2}, "new": "$rounds_of"}}}
    made = expanded(loop={"repeat": 4, "stages": inner, "from": changes}).stages
    assert [one["group"] for one in made.values()] == [{"kept": 1, "lr": n} for n in (1, 2, 3, 3)]
    assert [one["ranks"] for one in made.values()] == [f"~/ranks-{n}.jsonl" for n in (1, 2, 3, 4)]
    assert [one.get("new") for one in made.values()] == [None, *["$rounds_of"] * 3]


def test_more_rounds_leave_the_earlier_ones_as_they_are() -> None:
    few = expanded(start={"stage": "merge", "model": "base"}, rounds=ROUNDS).stages
    many = expanded(start={"stage": "merge", "model": "base"}, rounds=ROUNDS | {"repeat": 5}).stages
    assert few.items() <= many.items()


def test_nothing_in_the_first_round_leaves_a_setting_out() -> None:
    inner = {
        "a": {
            "stage": "x",
            "before": "$previous.a",
            "group": {"before": "$previous.a"},
            "list": ["$previous.a", 1],
        }
    }
    made = expanded(loop={"repeat": 2, "first": {"a": None}, "stages": inner}).stages
    assert made["loop-1-a"] == {"stage": "x", "group": {}, "list": [1]}
    assert made["loop-2-a"]["before"] == "$loop-1-a"


INNER: dict[str, Any] = {"a": {"stage": "x", "model": "$previous.a"}, "b": {"stage": "x", "model": "$a"}}
GOOD: dict[str, Any] = {"repeat": 2, "first": {"a": "base"}, "stages": INNER}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"repeat": 0}, "stages.loop.repeat: expected a number of rounds from 1 to 100, got 0"),
        ({"repeat": True}, "expected a number of rounds"),
        ({"repeat": 101}, "expected a number of rounds"),
        ({"stages": {}}, "stages.loop.stages: expected the stages of one round"),
        ({"stages": INNER | {"c": 3}}, "stages.loop.stages.c: expected settings"),
        ({"stages": INNER | {"c": GOOD}}, "rounds cannot hold rounds"),
        ({"stages": INNER | {"c": {"stage": "x", "sweep": {"n": [1]}}}}, "rounds cannot be swept"),
        ({"stages": INNER | {"round": {"stage": "x"}}}, "a stage of a round cannot be called round"),
        ({"while": "c"}, "stages.loop.while: there is no stage 'c' in these rounds"),
        ({"while": "a", "until": "b"}, "give either `while`"),
        ({"until": ["a"]}, "stages.loop.until: there is no stage ['a']"),
        ({"first": {}}, "stages.loop.stages.a.model: $previous.a: first: {a: ...} must say what it is"),
        ({"first": {"a": "base", "b": "base"}}, "stages.loop.first.b: would do nothing"),
        ({"first": {"a": "base", "c": "base"}}, "stages.loop.first.c: there is no stage 'c'"),
        ({"first": {"a": 3}}, "stages.loop.first.a: expected $stage, a reference or null"),
        ({"first": 3}, "expected what the first round starts from"),
        ({"from": {"3": {}}}, "stages.loop.from.3: would do nothing: there are 2 rounds"),
        ({"from": {"x": {}}}, "stages.loop.from.x: expected the number of a round"),
        ({"from": {"2": {"c": {}}}}, "stages.loop.from.2.c: there is no stage 'c'"),
        ({"from": {"2": {"a": {"stage": "y"}}}}, "stages.loop.from.2.a: expected other settings"),
        ({"from": [2]}, "expected settings by the round"),
        ({"wile": "a"}, "stages.loop.wile: unknown key; did you mean 'while'?"),
    ],
)
def test_what_is_wrong_is_told_where_it_stands(change: dict[str, Any], message: str) -> None:
    assert message in complaints(loop=GOOD | change)


def test_names_that_are_taken_are_refused() -> None:
    assert "there is one already" in complaints(**{"loop": GOOD, "loop-1-a": {"stage": "x"}})
    assert "rounds cannot be called previous" in complaints(previous=GOOD)


def test_an_unknown_name_of_the_round_before_is_told_once() -> None:
    inner = {"a": {"stage": "x", "model": "$previous.c"}}
    text = complaints(loop={"repeat": 3, "stages": inner})
    assert text == (
        "stages.loop.stages.a.model: $previous.c: there is no stage 'c' in these rounds; known: a"
    )


FILE = """\
stages:
  documents: {stage: curate, path: DOCS}
  start: {stage: finetune, model: base, corpus: $documents}
  rounds:
    repeat: 2
    first: {tuned: $start}
    stages:
      written: {stage: synthesize, model: $previous.tuned, count: $round}
      tuned:
        stage: finetune
        model: $previous.tuned
        corpus: $written
        optim: {lr: 1e-3}
  merged: {stage: merge, model: $rounds.tuned}
"""


def load(place: Path, text: str, *overrides: str) -> recipe.Recipe:
    (place / "docs").mkdir(exist_ok=True)
    file = place / "life.yaml"
    file.write_text(text.replace("DOCS", str(place / "docs")))
    return recipe.load(file, make_stages(), overrides)


def problems(place: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(place, text, *overrides)
    return str(caught.value)


def test_a_recipe_with_rounds(tmp_path: Path) -> None:
    made = load(tmp_path, FILE, "rounds.repeat=3", "rounds.stages.tuned.optim.lr=0.5")
    steps = {step.name: step for step in made.steps}
    assert list(steps)[2:5] == ["rounds-1-written", "rounds-1-tuned", "rounds-2-written"]
    assert steps["rounds-3-tuned"].uses == {"model": "rounds-2-tuned", "corpus": "rounds-3-written"}
    assert [steps[f"rounds-{n}-written"].config.count for n in (1, 2, 3)] == [1, 2, 3]  # type: ignore[attr-defined]
    assert steps["rounds-2-tuned"].config.optim.lr == 0.5  # type: ignore[attr-defined]
    assert steps["merged"].uses == {"model": "rounds-3-tuned"}
    assert [group.name for group in made.rounds] == ["rounds"]


def test_errors_in_rounds_are_told_once_with_their_line(tmp_path: Path) -> None:
    text = problems(tmp_path, FILE.replace("{lr: 1e-3}", "{lrr: 1e-3}"))
    assert (
        text == f"{tmp_path}/life.yaml:13: rounds.stages.tuned.optim.lrr: unknown setting; did you mean 'lr'?"
    )
    text = problems(tmp_path, FILE.replace("repeat: 2", "repeat: many").replace("$written", "$writen"))
    assert "life.yaml:5: rounds.repeat: expected a number of rounds" in text
    text = problems(tmp_path, FILE.replace("$written", "$writen"))
    assert "life.yaml:12: rounds.stages.tuned.corpus: there is no stage 'writen'" in text
    text = problems(tmp_path, FILE.replace("$rounds.tuned", "$rounds.tunde"))
    assert "life.yaml:14: merged.model: there is no stage 'rounds.tunde'" in text
    text = problems(tmp_path, FILE, "rounds.stages.tuned.optim.lr=x")
    assert "on the command line: rounds.stages.tuned.optim.lr: expected a number" in text


def test_what_is_swept_cannot_reach_into_rounds(tmp_path: Path) -> None:
    swept = FILE.replace("corpus: $documents}", "corpus: $documents, sweep: {steps: [1, 2]}}")
    assert "rounds: uses a stage that is swept" in problems(tmp_path, swept)


def test_the_schema_knows_rounds() -> None:
    made = recipe.schema(make_stages())
    group = made["$defs"]["rounds"]
    assert group["additionalProperties"] is False
    assert set(group["properties"]) == set(rounds.KEYS)
    assert "#/$defs/rounds" in json.dumps(made["properties"]["stages"])
    count = made["$defs"]["stage-synthesize"]["properties"]["count"]
    assert {"const": "$round"} in count["anyOf"]
