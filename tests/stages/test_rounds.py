"""The loop of RAFT as a recipe on a tiny model: the same end after any kill, more rounds, new feedback."""

from pathlib import Path
from typing import Any

import pytest

from matura import cli
from matura.align import rollouts
from matura.core import recipe
from matura.core.artifact import Artifact
from matura.core.errors import MaturaError, ModelNotFound
from matura.core.preferences import Answer, Ranking, read_rankings, write_rankings
from matura.core.run import run
from matura.core.workspace import Workspace
from tests.killing import killed_after
from tests.tiny_models import conversations, network, pulled, talk

RECIPE = """\
name: raft
stages:
  rounds:
    repeat: 2
    first: {tuned: MODEL}
    stages:
      sampled:
        stage: sample
        model: $previous.tuned
        prompts: TALKS
        k: 3
        draw: {max_new_tokens: 8}
        batch: 12
        seed: $round
      ranked:
        stage: rank
        samples: $sampled
        rewards: {length: {weight: 1, free: 1, most: 20}, pattern: {weight: 1, pattern: "[a-m]"}}
      tuned:
        stage: finetune
        model: $previous.tuned
        conversations: $ranked
        method: full
        optimizer: {lr: 1e-3}
        tokens: 300
        tokens_per_step: 100
        sequence: 64
        save_every: 1
        meter_every: 0
  again: {stage: sample, model: $rounds.tuned, prompts: TALKS, k: 2, count: 2, heldout: 0, draw: {max_new_tokens: 4}}
"""


class World:
    """A tiny model, prompts, and a workspace for each run of the recipe."""

    def __init__(self, place: Path) -> None:
        self.place = place
        model = pulled(place, model=network(scale=2.0))
        talks = conversations(place / "talks", [*map(talk, range(8))], [talk(20), talk(21)])
        self.text = RECIPE.replace("MODEL", str(model.path)).replace("TALKS", str(talks.path))
        (place / "raft.yaml").write_text(self.text)

    def run(self, name: str, *overrides: str, text: str = "") -> dict[str, Artifact]:
        file = self.place / "raft.yaml"
        file.write_text(text or self.text)
        loaded = recipe.load(file, cli._Modules(), overrides)
        self.events: dict[str, str] = {}
        return run(loaded, Workspace(self.place / name), _no_pull, show=self._note)

    def _note(self, event: Any) -> None:
        self.events[event.stage] = event.status


def _no_pull(reference: str, workspace: Workspace) -> Artifact:
    raise ModelNotFound(reference)


def ids(made: dict[str, Artifact]) -> dict[str, str]:
    return {name: one.id for name, one in made.items()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("rounds"))


@pytest.fixture(scope="module")
def whole(world: World) -> dict[str, str]:
    """The ids of an uninterrupted run."""
    return ids(world.run("whole"))


def test_killed_in_any_stage_of_a_round_it_ends_in_the_same_bits(
    world: World, whole: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert whole["rounds-2-tuned"] != whole["rounds-1-tuned"]
    roll, calls = rollouts.roll, 0

    def dying(*given: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:  # each round asks three groups: the second round dies in its second
            raise KeyboardInterrupt
        return roll(*given, **more)

    monkeypatch.setattr(rollouts, "roll", dying)
    with killed_after(2):
        world.run("killed")
    with pytest.raises(KeyboardInterrupt):
        world.run("killed")
    assert world.events == {
        "rounds-1-sampled": "reused",
        "rounds-1-ranked": "reused",
        "rounds-1-tuned": "made",
        "rounds-2-sampled": "running",
    }
    with killed_after(1):
        world.run("killed")
    assert ids(world.run("killed")) == whole


def test_more_rounds_go_on_from_the_last_and_new_feedback_only_changes_what_follows(
    world: World, whole: dict[str, str]
) -> None:
    more = ids(world.run("whole", "rounds.repeat=3"))
    kept = [f"rounds-{n}-{short}" for n in (1, 2) for short in ("sampled", "ranked", "tuned")]
    assert {name: more[name] for name in kept} == {name: whole[name] for name in kept}
    assert all(world.events[name] == "reused" for name in kept)
    other = "rounds.from={3: {ranked: {rewards: {pattern: {pattern: '[n-z]'}}}}}"
    changed = ids(world.run("whole", "rounds.repeat=3", other))
    assert {name: changed[name] for name in kept} == {name: whole[name] for name in kept}
    assert changed["rounds-3-sampled"] == more["rounds-3-sampled"]
    assert changed["rounds-3-ranked"] != more["rounds-3-ranked"]


def test_people_rank_between_the_rounds(world: World) -> None:
    """Each round waits for its ranks: sample, stop, rank, go on."""
    text = world.text.replace(
        'rewards: {length: {weight: 1, free: 1, most: 20}, pattern: {weight: 1, pattern: "[a-m]"}}',
        f"ranks: {world.place}/ranks-$round.jsonl",
    )
    for number in (1, 2):
        with pytest.raises(MaturaError, match="nobody has ranked these answers yet"):
            world.run("people", text=text)
        assert world.events[f"rounds-{number}-sampled"] == "made"
        rows = [
            Ranking(
                row.id,
                row.messages,
                tuple(Answer(one.text, rank=place) for place, one in enumerate(reversed(row.answers), 1)),
                annotator="eva",
            )
            for name in ("samples.jsonl", "heldout.jsonl")
            for row in read_rankings(_sampled(world, number).file(name))
        ]
        write_rankings(world.place / f"ranks-{number}.jsonl", rows)
    made = world.run("people", text=text)
    assert made["rounds-2-ranked"].summary["people"]["annotators"] == ["eva"]
    assert made["rounds-2-tuned"].summary["steps"] > 0


def _sampled(world: World, number: int) -> Artifact:
    return Workspace(world.place / "people").find(f"raft/rounds-{number}-sampled")
