"""Sweeps: several stages from one, with everything that uses them, and errors where they were written."""

from typing import Any

import pytest

from matura.core import recipe, sweep
from matura.core.errors import ConfigError
from tests.core.fake_stages import make_stages


def expanded(stages: dict[str, Any]) -> dict[str, Any]:
    wrong: list[str] = []
    made, _ = sweep.expand(stages, lambda place, message: wrong.append(f"{place}: {message}"))
    assert not wrong
    return made


def test_a_stage_becomes_one_for_each_combination() -> None:
    tuned = {"stage": "finetune", "lora": {"alpha": 16}, "sweep": {"lora.rank": [2, 8], "lr": [1e-4, 0.5]}}
    made = expanded({"tuned": tuned, "other": {"stage": "x"}})
    assert made["tuned-rank2-lr0_0001"] == {"stage": "finetune", "lora": {"alpha": 16, "rank": 2}, "lr": 1e-4}
    assert list(made) == [
        "tuned-rank2-lr0_0001",
        "tuned-rank2-lr0_5",
        "tuned-rank8-lr0_0001",
        "tuned-rank8-lr0_5",
        "other",
    ]
    assert made["other"] == {"stage": "x"}


def test_what_uses_a_swept_stage_is_swept_with_it() -> None:
    made = expanded(
        {
            "tuned": {"sweep": {"lora.rank": [2, 8]}},
            "exam": {"model": "$tuned", "deep": {"also": ["$tuned"]}},
            "merged": {"model": "$tuned", "after": "exam", "sweep": {"alpha": [0.5, 1.0]}},
            "end": {"after": ["exam", "tuned"]},
        }
    )
    assert made["exam-rank8"] == {"model": "$tuned-rank8", "deep": {"also": ["$tuned-rank8"]}}
    assert made["merged-rank2-alpha0_5"] == {"model": "$tuned-rank2", "after": "exam-rank2", "alpha": 0.5}
    assert made["merged-rank8-alpha1"] == {"model": "$tuned-rank8", "after": "exam-rank8", "alpha": 1.0}
    assert made["end"] == {"after": ["exam-rank2", "exam-rank8", "tuned-rank2", "tuned-rank8"]}
    assert len(made) == 2 + 2 + 4 + 1


def test_two_sweeps_that_meet_give_every_pair() -> None:
    made = expanded(
        {"a": {"sweep": {"n": [1, 2]}}, "b": {"sweep": {"m": ["x y", True]}}, "c": {"l": "$a", "r": "$b"}}
    )
    assert [name for name in made if name.startswith("c")] == [
        "c-n1-mx_y",
        "c-n1-mtrue",
        "c-n2-mx_y",
        "c-n2-mtrue",
    ]
    assert made["c-n2-mx_y"] == {"l": "$a-n2", "r": "$b-mx_y"}


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ({"a": {"sweep": 3}}, "expected settings with lists of values"),
        ({"a": {"sweep": {"n": 3}}}, "expected a list of values, got 3"),
        ({"a": {"sweep": {"n": []}}}, "expected a list of values"),
        ({"a": {"sweep": {"n": list(range(65))}}}, "becomes 65 stages by its sweeps; the most are 64"),
        ({"a": {"sweep": {"n": [1, 1]}}}, "two of its stages would be called a-n1"),
        ({"a": {"sweep": {"n": [1]}}, "a-n1": {}}, "two of its stages would be called a-n1"),
        ({"a": {"g": 1, "sweep": {"g.n": [1]}}}, "g is a value, not a group"),
    ],
)
def test_what_is_wrong_is_told(stages: dict[str, Any], message: str) -> None:
    wrong: list[str] = []
    sweep.expand(stages, lambda place, text: wrong.append(text))
    assert message in " ".join(wrong)


def test_stages_in_a_circle_are_left_to_the_recipe() -> None:
    made = expanded({"a": {"x": "$b", "sweep": {"n": [1, 2]}}, "b": {"x": "$a"}, "c": "no settings"})
    assert made["b-n1"] == {"x": "$a-n1"}
    assert made["c"] == "no settings"


def test_a_recipe_with_a_sweep(tmp_path: Any) -> None:
    file = tmp_path / "life.yaml"
    (tmp_path / "docs").mkdir()
    file.write_text(
        "stages:\n"
        f"  documents: {{stage: curate, path: {tmp_path / 'docs'}}}\n"
        "  tuned:\n"
        "    stage: finetune\n"
        "    model: base\n"
        "    corpus: $documents\n"
        "    sweep: {optim.lr: [1e-4, 2e-4]}\n"
        "  merged: {stage: merge, model: $tuned}\n"
    )
    steps = {step.name: step for step in recipe.load(file, make_stages()).steps}
    assert set(steps) == {
        "documents", "tuned-lr0_0001", "tuned-lr0_0002", "merged-lr0_0001", "merged-lr0_0002",
    }  # fmt: skip
    assert steps["tuned-lr0_0002"].config.optim.lr == 2e-4  # type: ignore[attr-defined]
    assert steps["merged-lr0_0002"].uses == {"model": "tuned-lr0_0002"}
    one = recipe.load(file, make_stages(), ["tuned.sweep={optim.lr: [3e-4]}"])
    assert [step.name for step in one.steps] == ["documents", "tuned-lr0_0003", "merged-lr0_0003"]
    file.write_text(file.read_text().replace("optim.lr", "optim.lrr"))
    with pytest.raises(ConfigError) as caught:
        recipe.load(file, make_stages())
    assert "life.yaml:" in str(caught.value)
    assert "tuned-lrr0_0001.optim.lrr: unknown setting; did you mean 'lr'?" in str(caught.value)
