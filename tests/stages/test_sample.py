"""Sampling: K answers by the model's own template, sides that stay apart, and the same bits after a kill."""

from pathlib import Path
from typing import Any

import pytest

from matura.align import rollouts
from matura.core.artifact import Artifact
from matura.core.config import parse
from matura.core.errors import ConfigError, MaturaError
from matura.core.preferences import HELDOUT, SAMPLES, Ranking, read_rankings
from matura.core.raw import raw_input
from matura.core.settings import Draw
from matura.model import store
from matura.stages import sample
from matura.tokenizer import conversation
from tests.tiny_models import conversations, network, pulled, run, talk

QUICK: dict[str, Any] = {"k": 3, "draw": {"max_new_tokens": 8}, "batch": 6}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    place = tmp_path_factory.mktemp("world")
    talks = conversations(place / "talks", [*map(talk, range(10))], [talk(n) for n in range(20, 24)])
    return {"model": pulled(place, model=network(scale=2.0)), "prompts": talks}


def rows(made: Artifact, name: str = SAMPLES) -> list[Ranking]:
    return list(read_rankings(made.path / name))


def test_answers_are_those_of_the_one_engine_by_seed_and_prompt(
    world: dict[str, Any], tmp_path: Path
) -> None:
    made = run(sample, tmp_path / "a", **world, **QUICK, seed=3)
    asked = rows(made)
    assert [row.id for row in asked] == [f"c{n}" for n in range(10)]
    assert asked[4].messages == ({"role": "user", "content": "say 4"},)
    assert asked[4].facts == {"gold": "hello hello 4"}
    path = world["model"].path
    alone = rollouts.roll(
        store.load_for_inference(path),
        conversation.load(path),
        [asked[4]],
        k=3,
        draw=Draw(max_new_tokens=8),
        seed=3,
    )
    assert [(one.text, one.end) for one in asked[4].answers] == [(one.text, one.end) for one in alone]
    told = made.summary["train"]
    assert (told["prompts"], told["answers"]) == (10, 30)
    ends = [one.end for row in asked for one in row.answers]
    assert told["stopped"] == pytest.approx(ends.count("stop") / 30, abs=1e-4)
    assert 0 < told["distinct_2"] <= 1
    assert [row.id for row in rows(made, HELDOUT)] == ["c20", "c21", "c22", "c23"]


def test_another_seed_asks_other_prompts_and_the_held_out_ones_stay(
    world: dict[str, Any], tmp_path: Path
) -> None:
    some = {"count": 4, "heldout": 2}
    first, second = (run(sample, tmp_path / str(n), **world, **QUICK, **some, seed=n) for n in (1, 2))
    names = [{row.id for row in rows(one)} for one in (first, second)]
    assert len(names[0]) == len(names[1]) == 4
    assert names[0] != names[1]
    held = [[row.id for row in rows(one, HELDOUT)] for one in (first, second)]
    assert held[0] == held[1]
    assert len(held[0]) == 2
    texts = [[one.text for row in rows(made, HELDOUT) for one in row.answers] for made in (first, second)]
    assert texts[0] != texts[1]


def test_only_held_out_prompts(world: dict[str, Any], tmp_path: Path) -> None:
    made = run(sample, tmp_path / "a", **world, **QUICK, count=0, heldout=3)
    assert rows(made) == []
    assert len(rows(made, HELDOUT)) == 3
    assert "to each of 3 held-out prompts" in made.summary["line"]


def test_samples_of_samples_ask_the_same_prompts(world: dict[str, Any], tmp_path: Path) -> None:
    first = run(sample, tmp_path / "a", **world, **QUICK)
    again = run(sample, tmp_path / "b", model=world["model"], prompts=first, **QUICK, seed=9)
    for name in (SAMPLES, HELDOUT):
        assert [row.messages for row in rows(first, name)] == [row.messages for row in rows(again, name)]
    assert rows(first) != rows(again)


def test_held_out_samples_alone_can_be_asked_again(world: dict[str, Any], tmp_path: Path) -> None:
    """So that every round is judged on the same questions."""
    start = run(sample, tmp_path / "start", **world, **QUICK, count=0)
    again = run(sample, tmp_path / "again", model=world["model"], prompts=start, **QUICK, seed=1)
    assert rows(again) == []
    assert [row.id for row in rows(again, HELDOUT)] == ["c20", "c21", "c22", "c23"]


def test_files_of_prompts_are_read(world: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(f'{{"prompt": "say {n} please"}}\n' for n in range(9)))
    made = run(
        sample, tmp_path / "a", model=world["model"], prompts=raw_input(file), **QUICK, data={"heldout": 3}
    )
    assert (len(rows(made)), len(rows(made, HELDOUT))) == (6, 3)


def test_killed_between_any_two_groups_it_ends_in_the_same_bits(
    world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(sample, tmp_path / "whole", **world, **QUICK)
    roll = rollouts.roll
    for stop in (1, 4, 6):
        calls: list[int] = []

        def dying(*given: Any, stop: int = stop, calls: list[int] = calls, **more: Any) -> Any:
            calls.append(1)
            if len(calls) == stop:
                raise KeyboardInterrupt
            return roll(*given, **more)

        monkeypatch.setattr(rollouts, "roll", dying)
        with pytest.raises(KeyboardInterrupt):
            run(sample, tmp_path / f"killed-{stop}", **world, **QUICK)
        made = run(sample, tmp_path / f"killed-{stop}", **world, **QUICK)
        assert made.id == whole.id
        assert len(calls) == 7 + 1  # 5 groups of prompts, 2 held out; none that was finished is asked again


def test_prompts_that_leave_no_room_are_counted(world: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "long.jsonl"
    file.write_text(
        '{"prompt": "' + "x" * 400 + '"}\n' + "".join(f'{{"prompt": "p {n}"}}\n' for n in range(4))
    )
    asked = {"model": world["model"], "prompts": raw_input(file), "data": {"heldout": 0}}
    made = run(sample, tmp_path / "a", **asked, **QUICK)
    assert (made.summary["train"]["no_room"], made.summary["train"]["prompts"]) == (1, 4)
    with pytest.raises(MaturaError, match="none of 5 prompts leaves room"):
        run(sample, tmp_path / "b", **asked, **QUICK | {"draw": {"max_new_tokens": 250}})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0, "heldout": 0}, "nothing to ask"),
        ({"draw": {"temperature": 0}}, "the same answer every time"),
        ({"k": 0}, "k: "),
        ({"kk": 2}, "did you mean 'k'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(sample.Config, {"model": "m", "prompts": "p"} | settings, "test")
