"""The branches of the benchmark `life` fit recipes/life.yaml, in every size; its slow part is the benchmark itself."""

import json
from pathlib import Path

import pytest

from benchmarks import life, life_branches, life_controls, staging
from matura import cli
from matura.core import recipe, yamlfile
from matura.core.errors import MaturaError
from matura.core.preferences import Answer, Ranking
from matura.core.records import Conversation, Document

SIZES = tuple(size for size in yamlfile.read(life.RECIPE).values["sizes"] if size != "large")


@pytest.mark.parametrize("size", SIZES)
def test_every_branch_is_a_recipe_with_the_life_in_it(size: str, tmp_path: Path) -> None:
    modules = cli._Modules()
    name, stages = staging.as_run(life.RECIPE, (f"size={size}",))
    whole = recipe.load(life.RECIPE, modules, (f"size={size}",))
    branches = life_branches.branches(stages, tmp_path, ("s3/mb.rst",))
    own = {key: one for branch in branches for key, one in life_branches.again(stages, branch).items()}
    asked = {one.name: (one.model, one.beside) for one in branches}
    file = tmp_path / "life.yaml"
    file.write_text(json.dumps({"name": name, "stages": {**stages, **own, **life._exams(stages, asked)}}))
    made = recipe.load(file, modules)
    assert made.name == whole.name
    steps = {step.name: step for step in made.steps}
    assert all(steps[one.name] == one for one in whole.steps)  # so that a finished life is reused
    assert {one.model for one in branches} <= set(steps)
    assert steps["judged_aligned_no_sft"].config.previous is None  # nothing stops: its verdict is only told


def test_a_size_of_several_sources_is_refused(tmp_path: Path) -> None:
    _, stages = staging.as_run(life.RECIPE, ("size=large",))
    with pytest.raises(MaturaError, match="several sources"):
        life_branches.branches(stages, tmp_path, ())


def test_only_what_depends_on_the_change_is_made_again() -> None:
    _, stages = staging.as_run(life.RECIPE, ())
    made = {
        one.name: set(life_branches.again(stages, one))
        for one in life_branches.branches(stages, Path("x"), ())
    }
    assert made["no_alignment"] == set()
    assert made["no_pretraining"] == {"taught_no_pretraining"}
    assert made["no_sft"] == {"aligned_no_sft"}
    assert made["mixed_text"] == {"corpus_mixed_text", "tokens_mixed_text", "base_mixed_text"}
    assert {"tokenizer_no_dedup", "base_no_dedup", "preferred_no_dedup", "aligned_no_dedup"} <= made[
        "no_dedup"
    ]


def test_a_recipe_where_a_branch_would_change_nothing_is_an_error() -> None:
    branch = life_branches.Branch("no_sft", "aligned", "aligned", swaps={"aligned": {"$taught": "$base"}})
    with pytest.raises(MaturaError, match=r"no stage aligned that reads \$taught"):
        life_branches.again({"base": {}, "aligned": {"model": "$base"}}, branch)


def test_controls_deal_what_is_there_by_lot() -> None:
    document = Document("1", "one two  three\nfour five six seven", "a.txt")
    mixed = life_controls.mixed_text(document, 0)
    assert sorted(mixed.text.split()) == sorted(document.text.split())
    assert mixed.text.split() != document.text.split()
    assert mixed == life_controls.mixed_text(document, 0)
    rows = [
        Conversation(
            str(n), ({"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"})
        )
        for n in range(9)
    ]
    dealt = life_controls.mixed_lessons(rows, 0)
    assert sorted(one.messages[1]["content"] for one in dealt) == [f"a{n}" for n in range(9)]
    assert all(
        a.messages[0] == b.messages[0] and a.messages[1] != b.messages[1]
        for a, b in zip(rows, dealt, strict=True)
    )
    ranking = Ranking("r", (), tuple(Answer(str(n), rank=1 + n // 2, score=-float(n // 2)) for n in range(8)))
    drawn = life_controls.by_lot(ranking, 0)
    assert [one.text for one in drawn.answers] == [one.text for one in ranking.answers]
    marks = [[(one.rank, one.score) for one in row.answers] for row in (ranking, drawn)]
    assert sorted(marks[0]) == sorted(marks[1])
    assert marks[0] != marks[1]
