"""Sizes: settings over those of the stages, a run of its own, and errors where the size is written."""

import json
from pathlib import Path
from typing import Any

import pytest

from matura import cli
from matura.core import recipe, sizes
from matura.core.errors import ConfigError
from matura.core.rounds import merged
from tests.core.fake_stages import make_stages

FILE = """\
name: life
size: small
sizes:
  tiny:
    documents: {heldout: 1}
    tuned: {optim: {lr: 0.5}, steps: 1}
  small: {}
  large:
    tuned:
      steps: 900
stages:
  documents: {stage: curate, path: DOCS, heldout: 7}
  tuned: {stage: finetune, model: base, corpus: $documents, steps: 30}
  merged: {stage: merge, model: $tuned}
"""


def load(place: Path, text: str, *overrides: str, name: str | None = None) -> recipe.Recipe:
    (place / "docs").mkdir(exist_ok=True)
    file = place / "file.yaml"
    file.write_text(text.replace("DOCS", str(place / "docs")))
    return recipe.load(file, make_stages(), overrides, name)


def settings(place: Path, text: str, *overrides: str) -> dict[str, Any]:
    return {step.name: step.config for step in load(place, text, *overrides).steps}


def problems(place: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(place, text, *overrides)
    return str(caught.value).replace(f"{place}/", "")


def test_groups_are_merged_and_everything_else_is_replaced() -> None:
    plain: dict[str, Any] = {"tuned": {"lr": {"peak": 1, "warm": [1, 2]}, "on": {"a": 1}}, "other": {"n": 1}}
    size = {"tuned": {"lr": {"warm": [3], "new": {"x": 1}}, "on": None}}
    assert merged(plain, size) == {
        "tuned": {"lr": {"peak": 1, "warm": [3], "new": {"x": 1}}, "on": None},
        "other": {"n": 1},
    }
    assert plain["tuned"]["lr"] == {"peak": 1, "warm": [1, 2]}


def test_the_default_size_is_the_recipe_as_it_is_written(tmp_path: Path) -> None:
    made = settings(tmp_path, FILE)
    assert (made["documents"].heldout, made["tuned"].steps, made["tuned"].optim.lr) == (7, 30, 1e-3)
    assert settings(tmp_path, FILE, "size=small") == made


def test_another_size_changes_what_it_names(tmp_path: Path) -> None:
    made = settings(tmp_path, FILE, "size=tiny")
    assert (made["documents"].heldout, made["tuned"].steps, made["tuned"].optim.lr) == (1, 1, 0.5)
    assert list(made) == ["documents", "tuned", "merged"]
    large = settings(tmp_path, FILE, "size=large")
    assert (large["documents"].heldout, large["tuned"].steps) == (7, 900)


def test_the_default_may_change_settings_too(tmp_path: Path) -> None:
    text = FILE.replace("size: small", "size: tiny")
    assert settings(tmp_path, text)["tuned"].steps == 1
    assert load(tmp_path, text).name == "life"
    assert load(tmp_path, text, "size=small").name == "life-small"


def test_overrides_come_on_top_wherever_the_size_stands(tmp_path: Path) -> None:
    for order in (("size=tiny", "tuned.steps=5"), ("tuned.steps=5", "size=tiny")):
        made = settings(tmp_path, FILE, *order)
        assert (made["tuned"].steps, made["tuned"].optim.lr) == (5, 0.5)


def test_another_size_is_another_run_unless_a_name_is_given(tmp_path: Path) -> None:
    assert load(tmp_path, FILE).name == "life"
    assert load(tmp_path, FILE, "size=tiny").name == "life-tiny"
    assert load(tmp_path, FILE, "size=tiny", name="mine").name == "mine"
    assert load(tmp_path, FILE.replace("name: life\n", ""), "size=tiny").name == "file-tiny"


def test_a_name_that_is_none_stays_an_error_in_every_size(tmp_path: Path) -> None:
    assert "file.yaml:1: name: 3 must be letters" in problems(
        tmp_path, FILE.replace("name: life", "name: 3"), "size=tiny"
    )
    long = FILE.replace("name: life", f"name: {'n' * 60}")
    assert load(tmp_path, long).name == "n" * 60
    assert "at most 64" in problems(tmp_path, long, "size=tiny")


ROUNDS = """\
size: small
sizes:
  small: {}
  tiny:
    rounds: {repeat: 1, stages: {written: {count: 2}}}
stages:
  rounds:
    repeat: 2
    first: {tuned: base}
    stages:
      written: {stage: synthesize, model: $previous.tuned}
      tuned: {stage: finetune, model: $previous.tuned, corpus: $written}
"""


def test_a_size_reaches_into_rounds(tmp_path: Path) -> None:
    assert len(load(tmp_path, ROUNDS).steps) == 4
    made = settings(tmp_path, ROUNDS, "size=tiny")
    assert list(made) == ["rounds-1-written", "rounds-1-tuned"]
    assert made["rounds-1-written"].count == 2
    assert settings(tmp_path, ROUNDS)["rounds-1-written"].count == 3


@pytest.mark.parametrize("size", ["tiny", "small"])
@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("{count: 2}", "{cuont: 2}", "5: sizes.tiny.rounds.stages.written.cuont: unknown setting; did you"),
        (
            "{written: {c",
            "{writen: {c",
            "5: sizes.tiny.rounds.stages.writen: there is no stage 'writen'; did",
        ),
        ("{count: 2}", "{stage: merge}", "5: sizes.tiny.rounds.stages.written.stage: a stage is of the same"),
        ("repeat: 1", "repeat: 0", "5: sizes.tiny.rounds.repeat: expected a number of rounds"),
        ("repeat: 1", "repaet: 1", "5: sizes.tiny.rounds.repaet: unknown key; did you mean 'repeat'?"),
    ],
)
def test_what_a_size_gets_wrong_in_rounds(
    tmp_path: Path, size: str, old: str, new: str, expected: str
) -> None:
    assert old in ROUNDS
    text = problems(tmp_path, ROUNDS.replace(old, new), f"size={size}")
    assert text.startswith(f"file.yaml:{expected}")
    assert "\n" not in text


@pytest.mark.parametrize("size", ["tiny", "small", "large"])
@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("steps: 900", "stps: 900", "10: sizes.large.tuned.stps: unknown setting; did you mean 'steps'?"),
        ("steps: 900", "steps: many", '10: sizes.large.tuned.steps: expected a whole number, got "many"'),
        ("steps: 900", "corpus: $tuned", "10: sizes.large.tuned.corpus: expected a corpus or conversations"),
        ("steps: 900", "corpus: $dcuments", "10: sizes.large.tuned.corpus: there is no stage 'dcuments'; did"),
        ("steps: 900", "optim: {lrr: 1}", "10: sizes.large.tuned.optim.lrr: unknown setting; did you mean 'lr'?"),
        ("steps: 900", "stage: merge", "10: sizes.large.tuned.stage: a stage is of the same kind in every size"),
        ("    tuned:\n", "    tund:\n", "9: sizes.large.tund: there is no stage 'tund'; did you mean 'tuned'?"),
        ("      steps: 900", "      - 3", "9: sizes.large.tuned: expected settings, {key: value}, or null to"),
        ("small: {}", "small: 3", "7: sizes.small: expected stages with settings, or {} for no change, got 3"),
        ("large:", "lar.ge:", "8: sizes.lar.ge: the name must be letters, digits"),
    ],
)  # fmt: skip
def test_what_one_size_gets_wrong_is_told_in_every_size(
    tmp_path: Path, size: str, old: str, new: str, expected: str
) -> None:
    text = problems(tmp_path, FILE.replace(old, new), *([] if "lar.ge" in new else [f"size={size}"]))
    assert expected in text
    assert f"file.yaml:{expected}" in text
    if "$tuned" not in new:  # which is a cycle as well
        assert "\n" not in text, "told once"


@pytest.mark.parametrize(
    ("text", "overrides", "expected"),
    [
        (FILE, ["size=tny"], "'size=tny': there is no such size; did you mean 'tiny'?"),
        (FILE, ["size="], "'size=': there is no such size; known: large, small, tiny"),
        (FILE.replace("size: small", "size: smal"), [], "file.yaml:2: size: there is no size 'smal'; did you mean"),
        (FILE.replace("size: small", "size: 7"), [], "file.yaml:2: size: expected the name of a size, got 7"),
        (FILE.replace("size: small\n", ""), [], "file.yaml:2: sizes: needs a default; add `size` with one of them"),
        ("size: x\nstages: {a: {stage: merge, model: b}}\n", [], "file.yaml:1: size: would do nothing without"),
        ("stages: {a: {stage: merge, model: b}}\n", ["size=x"], "'size=x': this recipe has no `sizes`"),
        ("size: x\nsizes: {}\nstages: {a: {stage: merge, model: b}}\n", [], "file.yaml:2: sizes: expected settings by"),
        ("size: x\nsizes: [x]\nstages: {a: {stage: merge, model: b}}\n", ["size=x"], "file.yaml:2: sizes: expected"),
    ],
)  # fmt: skip
def test_which_sizes_there_are(tmp_path: Path, text: str, overrides: list[str], expected: str) -> None:
    found = problems(tmp_path, text, *overrides)
    assert expected in found
    assert "\n" not in found, "told once"


def test_too_many_sizes_are_refused(tmp_path: Path) -> None:
    many = "".join(f"  s{n}: {{}}\n" for n in range(sizes.MAX_SIZES))
    assert load(tmp_path, FILE.replace("  small: {}\n", "").replace("size: small", "size: tiny"))
    text = problems(tmp_path, FILE.replace("  small: {}\n", f"  small: {{}}\n{many}"))
    assert f"there are {sizes.MAX_SIZES + 3} sizes; the most are {sizes.MAX_SIZES}" in text


def test_what_the_stages_get_wrong_is_told_there_and_once(tmp_path: Path) -> None:
    text = problems(tmp_path, FILE.replace("steps: 30}", "stps: 30}"), "size=tiny")
    assert text == "file.yaml:13: tuned.stps: unknown setting; did you mean 'steps'?"
    swept = FILE.replace("steps: 30}", "stps: 30, sweep: {optim.lr: [1, 2]}}")
    swept = swept.replace("optim: {lr: 0.5}", "sweep: {optim.lr: [3]}")
    found = problems(tmp_path, swept, "size=tiny")
    assert found == "file.yaml:13: tuned-lr3.stps: unknown setting; did you mean 'steps'?"


def test_what_is_left_to_the_command_line_is_not_missing_in_other_sizes(tmp_path: Path) -> None:
    open_path = FILE.replace("path: DOCS, ", "")
    assert load(tmp_path, open_path, "size=tiny", "documents.path=x").name == "life-tiny"
    assert "file.yaml:12: documents.path: is required" in problems(tmp_path, open_path, "size=large")


def test_what_does_not_go_with_another_size_stops_only_that_one(tmp_path: Path) -> None:
    large = "  large: {rounds: {repeat: 4, from: {3: {tuned: {steps: 1}}}}}\nstages:\n"
    text = ROUNDS.replace("stages:\n", large, 1)
    assert len(load(tmp_path, text, "size=large").steps) == 8
    assert load(tmp_path, text, "rounds.repeat=2").name == "file"
    found = problems(tmp_path, text, "size=large", "rounds.repeat=2")
    assert found.startswith("file.yaml:6: sizes.large.rounds.from.3: would do nothing: there are 2 rounds")


def test_what_the_command_line_gets_wrong_is_not_the_size_s_fault(tmp_path: Path) -> None:
    text = problems(tmp_path, FILE, "size=tiny", "tuned.optim.lr=-1")
    assert text.startswith("on the command line: tuned.optim.lr: expected")
    assert "\n" not in text


def test_a_size_may_give_what_the_stages_leave_open(tmp_path: Path) -> None:
    text = FILE.replace("model: base, ", "").replace("{optim: {lr: 0.5}, ", "{model: small, ")
    assert settings(tmp_path, text, "size=tiny")["tuned"].model == "small"
    assert "file.yaml:13: tuned.model: is required" in problems(tmp_path, text)


def test_the_schema_knows_both_keys(tmp_path: Path) -> None:
    made = recipe.schema(make_stages())
    assert made["dependentRequired"] == {"size": ["sizes"], "sizes": ["size"]}
    settings = made["properties"]["sizes"]["additionalProperties"]["additionalProperties"]
    assert [one["type"] for one in settings["anyOf"]] == ["object", "null"]
    assert set(made["properties"]) == set(recipe.KEYS)


def test_the_command_line_plans_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[recipe.Recipe] = []
    monkeypatch.setattr("matura.commands.running.show_plan", lambda found, place: seen.append(found))
    file = tmp_path / "notes.yaml"
    stages = {"documents": {"stage": "curate", "path": str(tmp_path), "heldout": 9}}
    file.write_text(
        json.dumps(
            {
                "size": "small",
                "sizes": {"small": {}, "tiny": {"documents": {"heldout": 2}}},
                "stages": stages,
            }
        )
    )
    cli.run_recipe(file, ["size=tiny"], plan=True, workspace=tmp_path / "workspace")
    assert seen[0].name == "notes-tiny"
    assert seen[0].steps[0].config.heldout == 2  # type: ignore[attr-defined]
