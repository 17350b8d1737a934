"""Stages that a size or the command line leaves out: the rest is as it was, and what is still needed is told."""

from pathlib import Path

import pytest

from matura.core import left_out
from tests.core.test_sizes import load, problems, settings

FILE = """\
size: small
sizes:
  small: {exam: null}
  own: {documents: null, written: null, tuned: {model: other, corpus: mine, replay: null}}
stages:
  documents: {stage: curate, path: DOCS}
  written: {stage: synthesize, model: base}
  tuned: {stage: finetune, model: base, corpus: $documents, replay: $written}
  exam: {stage: evaluate, model: $tuned}
"""
NAME = "name something else there, or leave that out too"
IN = "rounds.stages."


def test_a_size_leaves_stages_out(tmp_path: Path) -> None:
    assert list(settings(tmp_path, FILE)) == ["documents", "written", "tuned"]
    own = settings(tmp_path, FILE, "size=own")
    assert list(own) == ["tuned", "exam"]
    assert (own["tuned"].corpus, own["tuned"].replay) == ("mine", None)


def test_the_stages_that_stay_are_what_they_are_without_sizes(tmp_path: Path) -> None:
    alone = FILE[FILE.index("stages:") : FILE.index("  exam: {stage")]
    plain = load(tmp_path, alone)
    for mine, theirs in zip(load(tmp_path, FILE).steps, plain.steps, strict=True):
        assert (mine.name, mine.config, mine.needs) == (theirs.name, theirs.config, theirs.needs)


@pytest.mark.parametrize("size", ["small", "own"])
def test_what_is_still_needed_is_told_once_where_the_size_says_so(tmp_path: Path, size: str) -> None:
    text = FILE.replace(", replay: null", "").replace("model: $tuned", "model: $tuned, after: [documents]")
    assert problems(tmp_path, text, f"size={size}").splitlines()[1:] == [
        f"  file.yaml:4: sizes.own.documents: is left out, but needed by exam.after: {NAME}",
        f"  file.yaml:4: sizes.own.written: is left out, but needed by tuned.replay: {NAME}",
    ]


def test_all_that_need_it_are_named(tmp_path: Path) -> None:
    text = FILE.replace("{exam: null}", "{documents: null}")
    text = text.replace("model: $tuned", "model: $tuned, parent: $documents")
    start = "file.yaml:3: sizes.small.documents: is left out, but needed by tuned.corpus and exam.parent:"
    assert start in problems(tmp_path, text)


def test_what_is_left_out_needs_nothing(tmp_path: Path) -> None:
    text = FILE.replace("{exam: null}", "{written: null, tuned: null, exam: null}")
    assert list(settings(tmp_path, text)) == ["documents"]


def test_something_must_be_left(tmp_path: Path) -> None:
    text = FILE.replace("{exam: null}", "{documents: null, written: null, tuned: null, exam: null}")
    assert problems(tmp_path, text) == "file.yaml:3: sizes.small: all are left out; keep at least one"


def test_the_command_line_leaves_stages_out_too(tmp_path: Path) -> None:
    assert list(settings(tmp_path, FILE, "written=null", "tuned.replay=null")) == ["documents", "tuned"]
    found = problems(tmp_path, FILE, "documents=null")
    assert found == f"on the command line: documents: is left out, but needed by tuned.corpus: {NAME}"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("exam.passes=false", "'exam.passes=false' would do nothing: that stage is left out here"),
        ("exam=null", "'exam=null' would do nothing: that stage is left out here"),
        ("tuned=no", "'tuned=no': expected stage.key=value, for example documents.key=value, or documents=null"),
        ("tuned=", "'tuned=': expected stage.key=value"),
        ("tund=null", "'tund=null': unknown stage 'tund'; did you mean 'tuned'?"),
        ("size=own tuned.replay=$written", "file.yaml:4: sizes.own.written: is left out, but needed by tuned.replay"),
    ],
)  # fmt: skip
def test_wrong_overrides(tmp_path: Path, overrides: str, expected: str) -> None:
    found = problems(tmp_path, FILE, *overrides.split())
    assert found.startswith(expected)
    assert "\n" not in found, "told once"


def test_a_stage_that_is_empty_in_the_recipe_itself_is_an_error(tmp_path: Path) -> None:
    text = FILE.replace("written: null, ", "").replace("{stage: synthesize, model: base}", "")
    assert "file.yaml:7: written: expected settings, {stage: KIND, ...}, got None" in problems(tmp_path, text)


ROUNDS = """\
size: small
sizes:
  small: {rounds: {stages: {merged: null, exam: null}}}
  large:
    rounds:
      while: exam
      first: {tuned: null, merged: base}
      stages: {written: {model: $previous.merged}, tuned: {model: $previous.merged}}
    last: {model: $rounds.merged}
stages:
  rounds:
    repeat: 2
    first: {tuned: base}
    from: {2: {tuned: {steps: 9}, exam: {passes: false}}}
    stages:
      written: {stage: synthesize, model: $previous.tuned}
      tuned: {stage: finetune, model: $previous.tuned, corpus: $written}
      merged: {stage: merge, model: $tuned}
      exam: {stage: evaluate, model: $merged}
  last: {stage: merge, model: $rounds.tuned}
"""


def test_a_size_leaves_stages_of_rounds_out(tmp_path: Path) -> None:
    made = settings(tmp_path, ROUNDS)
    assert list(made) == [f"rounds-{n}-{one}" for n in (1, 2) for one in ("written", "tuned")] + ["last"]
    assert (made["rounds-1-tuned"].steps, made["rounds-2-tuned"].steps) == (4, 9)


def test_a_size_with_other_stages_of_rounds_starts_from_others(tmp_path: Path) -> None:
    steps = {step.name: step for step in load(tmp_path, ROUNDS, "size=large").steps}
    assert len(steps) == 9
    assert steps["rounds-1-tuned"].outside == {"model": "base"}
    assert steps["rounds-2-written"].uses == {"model": "rounds-1-merged"}
    rest = load(tmp_path, ROUNDS, "size=large", "rounds.stages.exam=null", "rounds.while=null")
    assert len(rest.steps) == 7


@pytest.mark.parametrize(
    ("old", "new", "where", "needing"),
    [
        ("merged: null", "tuned: null", f"{IN}tuned", f"{IN}written.model and {IN}merged.model and last.model"),
        (", exam: null", "", "rounds.stages.merged", f"{IN}exam.model"),
        ("{stages: {merged: null, exam: null}}", "null", "rounds", "last.model"),
    ],
)  # fmt: skip
def test_what_of_rounds_is_still_needed(tmp_path: Path, old: str, new: str, where: str, needing: str) -> None:
    assert old in ROUNDS
    found = problems(tmp_path, ROUNDS.replace(old, new, 1))
    assert found == f"file.yaml:3: sizes.small.{where}: is left out, but needed by {needing}: {NAME}"


def test_gates_and_changes_of_rounds_need_stages(tmp_path: Path) -> None:
    found = problems(tmp_path, ROUNDS, "size=large", "rounds.stages.exam=null")
    assert (
        found == f"on the command line: rounds.stages.exam: is left out, but needed by rounds.while: {NAME}"
    )
    later = ROUNDS.replace("{steps: 9}", "{steps: 9, replay: $written}")
    later = later.replace("exam: null}", "exam: null, written: null, tuned: {corpus: mine}}")
    assert "but needed by rounds.from.2.tuned.replay: name" in problems(tmp_path, later)


def test_settings_that_are_null_stay_settings() -> None:
    stages = {"tuned": {"stage": "finetune", "replay": None, "forgetting": {"text": None}}, "empty": None}

    def never(place: object, message: str) -> None:
        raise AssertionError(message)

    assert left_out.without(stages, stages, never) == stages
