"""Judging samples: rewards, people, both; what is kept; gates between rounds; and learning from the best."""

from pathlib import Path
from typing import Any

import pytest

from matura.core import artifact
from matura.core.artifact import Artifact
from matura.core.config import parse, schema
from matura.core.conversation_settings import ConversationData
from matura.core.errors import ConfigError, MaturaError
from matura.core.preferences import HELDOUT, SAMPLES, TRAIN, Answer, Ranking, read_rankings, write_rankings
from matura.core.raw import raw_input
from matura.core.records import CUT
from matura.stages import finetune, rank
from matura.train import material
from tests.tiny_models import pulled, run

GOOD = {"pattern": {"weight": 1.0, "pattern": "good"}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return pulled(tmp_path_factory.mktemp("model"))


def row(name: str, *texts: str, **more: Any) -> Ranking:
    asked = ({"role": "user", "content": name},)
    return Ranking(name, asked, tuple(Answer(text, source="model") for text in texts), **more)


def samples(place: Path, model: Artifact, rows: list[Ranking], heldout: list[Ranking]) -> Artifact:
    """What `sample` would have made of these answers."""
    draft = artifact.begin(
        place, kind="samples", stage="sample", version=1, config={}, inputs={"model": model}
    )
    write_rankings(draft.path / SAMPLES, rows)
    write_rankings(draft.path / HELDOUT, heldout)
    return draft.commit({})


def mixed(prefix: str, count: int, good: int) -> list[Ranking]:
    """Prompts with four answers each, of which so many are good; never the first."""
    texts = ["bad", *["good"] * good, *["bad"] * (3 - good)]
    return [row(f"{prefix}{n}", *(f"{text} {i}" for i, text in enumerate(texts))) for n in range(count)]


def read(made: Artifact, name: str = TRAIN) -> list[Ranking]:
    return list(read_rankings(made.path / name))


def test_rewards_score_and_rank_every_answer(model: Artifact, tmp_path: Path) -> None:
    given = samples(tmp_path / "s", model, mixed("p", 5, 2), mixed("h", 3, 1))
    made = run(rank, tmp_path / "r", samples=given, rewards=GOOD)
    assert [one.id for one in read(made)] == [f"p{n}" for n in range(5)]
    assert [(one.score, one.rank) for one in read(made)[0].answers] == [(0, 3), (1, 1), (1, 1), (0, 3)]
    assert [one.id for one in read(made, HELDOUT)] == ["h0", "h1", "h2"]
    told = made.summary
    assert (told["train"]["mean"], told["train"]["best"], told["train"]["worst"]) == (0.5, 1, 0)
    assert (told["train"]["ties"], told["heldout"]["ties"], told["heldout"]["mean"]) == (5, 0, 0.25)
    assert told["train"]["reward.pattern"] == 0.5
    assert told["heldout"]["reward.pattern"] == 0.25
    assert "gate" not in told
    assert run(rank, tmp_path / "again", samples=given, rewards=GOOD).id == made.id


def test_lengths_are_counted_as_the_writer_counts_them(model: Artifact, tmp_path: Path) -> None:
    given = samples(tmp_path / "s", model, [row("p", "aaaa", "a" * 40)], [])
    made = run(rank, tmp_path / "r", samples=given, rewards={"length": {"weight": 1, "free": 5, "most": 25}})
    assert [one.score for one in read(made)[0].answers] == [0.0, -1.0]  # 4 bytes and the stop token: 5 tokens


def test_what_people_ranked_counts_and_rewards_judge_the_rest(model: Artifact, tmp_path: Path) -> None:
    given = samples(tmp_path / "s", model, mixed("p", 3, 1), mixed("h", 1, 1))
    people = [row("p1", "bad 0", "good 1", "bad 2", "bad 3"), row("h0", "bad 3", "good 1")]
    ranked = [
        Ranking(
            one.id,
            one.messages,
            tuple(Answer(a.text, rank=n) for n, a in enumerate(one.answers, 1)),
            annotator="eva",
        )
        for one in people
    ]
    unknown = [row("x", "a", "b")]
    judged = [*ranked, Ranking("x", unknown[0].messages, (Answer("a", rank=1), Answer("b", rank=2)))]
    write_rankings(tmp_path / "people.jsonl", judged)
    ranks = raw_input(tmp_path / "people.jsonl")
    made = run(rank, tmp_path / "r", samples=given, rewards=GOOD, ranks=ranks)
    assert [[one.rank for one in one_row.answers] for one_row in read(made)] == [
        [2, 1, 2, 2],
        [1, 2, 3, 4],
        [2, 1, 2, 2],
    ]
    assert [one.score for one in read(made)[1].answers] == [0, 1, 0, 0]
    assert [one.rank for one in read(made, HELDOUT)[0].answers] == [None, 2, None, 1]
    told = made.summary["people"]
    assert (told["ranked_prompts"], told["unknown_prompts"], told["unknown_prompts_shown"]) == (2, 1, ["x"])
    assert told["annotators"] == ["eva"]
    alone = run(rank, tmp_path / "alone", samples=given, ranks=ranks)
    assert [one.id for one in read(alone)] == ["p1"]
    assert alone.summary["train"]["dropped"] == {"not judged": 2}
    assert read(alone)[0].annotator == "eva"


def test_before_anybody_ranked_it_says_how_and_afterwards_it_goes_on(model: Artifact, tmp_path: Path) -> None:
    given = samples(tmp_path / "s", model, mixed("p", 2, 1), [])
    file = tmp_path / "ranks.jsonl"
    config = parse(rank.Config, {"samples": str(given.path), "ranks": str(file)}, "test")
    missing = rank.raw_input(config, "ranks")
    assert not isinstance(missing, Path)
    with pytest.raises(MaturaError) as caught:
        run(rank, tmp_path / "r", samples=given, ranks=missing)
    assert f"matura rank {given.path} --out {file}" in str(caught.value)
    write_rankings(file, [row("elsewhere", "a", "b")])
    with pytest.raises(MaturaError, match="there are no rows to learn from"):
        run(rank, tmp_path / "r2", samples=given, ranks=raw_input(file))
    rest = Ranking("e", ({"role": "user", "content": "e"},), (Answer("a", rank=1), Answer("b", rank=2)))
    write_rankings(file, [rest])
    with pytest.raises(MaturaError, match="ranks none of these answers: 1 prompts and 0 answers are others"):
        run(rank, tmp_path / "r3", samples=given, ranks=raw_input(file))
    assert rank.raw_input(config, "ranks") == file


def test_what_is_not_good_enough_is_not_learned_but_stays_held_out(model: Artifact, tmp_path: Path) -> None:
    given = samples(tmp_path / "s", model, [*mixed("p", 3, 1), *mixed("q", 2, 0)], mixed("h", 2, 0))
    made = run(rank, tmp_path / "r", samples=given, rewards=GOOD, keep={"least": 1.0})
    assert [one.id for one in read(made)] == ["p0", "p1", "p2"]
    assert made.summary["train"]["dropped"] == {"best too low": 2}
    assert made.summary["train"]["chosen"] == 0.6
    assert made.summary["kept"]["chosen"] == 1.0
    assert len(read(made, HELDOUT)) == 2
    close = run(rank, tmp_path / "m", samples=given, rewards=GOOD, keep={"margin": 0.5})
    assert close.summary["train"]["dropped"] == {"best too close to worst": 2}
    with pytest.raises(MaturaError, match="only 3 prompts are left to learn from: 2 best too low"):
        run(rank, tmp_path / "f", samples=given, rewards=GOOD, keep={"least": 1.0, "fewest": 4})
    with pytest.raises(MaturaError, match="nothing is left to learn from: 5 best too low"):
        run(rank, tmp_path / "n", samples=given, rewards=GOOD, keep={"least": 2.0})


def test_the_best_must_beat_the_mean_of_the_round_before(model: Artifact, tmp_path: Path) -> None:
    length = {"length": {"weight": 1.0, "free": 1, "most": 11}}
    before = samples(
        tmp_path / "s1", model, [row("a", "xxxx", "xxxxxx")], []
    )  # -.4 and -.6 with the stop token
    previous = run(rank, tmp_path / "r1", samples=before, rewards=length)
    now = samples(tmp_path / "s2", model, [row("a", "xxxxx", "xxxxxxx"), row("b", "xxxx", "xxxxxxx")], [])
    keep = {"above_previous": True}
    made = run(rank, tmp_path / "r2", samples=now, rewards=length, previous=previous, keep=keep)
    assert [one.id for one in read(made)] == ["b"]


def test_the_gate_compares_held_out_prompts_by_todays_judge(model: Artifact, tmp_path: Path) -> None:
    before = samples(tmp_path / "s1", model, mixed("p", 2, 1), mixed("h", 12, 1))
    previous = run(
        rank, tmp_path / "r1", samples=before, rewards={"pattern": {"weight": 9.0, "pattern": "bad"}}
    )
    now = samples(tmp_path / "s2", model, mixed("p", 2, 1), mixed("h", 12, 2))
    gate = {"fail_on": "not improved"}
    made = run(rank, tmp_path / "r2", samples=now, rewards=GOOD, previous=previous, gate=gate)
    assert made.summary["gate"] == {"passed": True, "reasons": []}
    one = made.summary["score"]
    assert (one["parent"], one["child"], one["items"], one["verdict"]) == (0.25, 0.5, 12, "improved")
    told = run(rank, tmp_path / "r2b", samples=now, rewards=GOOD, previous=previous, gate=None)
    assert told.summary["score"]["verdict"] == "improved"
    assert "gate" not in told.summary
    assert "; improved (+0.250" in told.summary["line"]
    same = run(rank, tmp_path / "r3", samples=before, rewards=GOOD, previous=previous, gate=gate)
    assert same.summary["gate"]["passed"] is False
    assert (
        "score: not measurable (too few items: 12, at least 60 are needed)"
        in same.summary["gate"]["reasons"][0]
    )
    halves = {"pattern": {"weight": 0.5, "pattern": "good"}}
    same = run(rank, tmp_path / "r3b", samples=before, rewards=halves, previous=previous, gate=gate)
    assert "score: unchanged" in same.summary["gate"]["reasons"][0]
    worse = {"pattern": {"weight": 1.0, "pattern": "bad"}}
    fell = run(
        rank, tmp_path / "r4", samples=now, rewards=worse, previous=previous, gate={"fail_on": "regressed"}
    )
    assert "score: regressed" in fell.summary["gate"]["reasons"][0]
    other = samples(tmp_path / "s5", model, mixed("p", 2, 1), mixed("k", 12, 2))
    with pytest.raises(MaturaError, match="nothing to compare"):
        run(rank, tmp_path / "r5", samples=other, rewards=GOOD, previous=previous, gate=gate)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "nobody judges"),
        ({"rewards": GOOD, "gate": {"fail_on": "regressed"}}, "give `previous`"),
        ({"ranks": "r", "previous": "p"}, "need `rewards`"),
        ({"ranks": "r", "keep": {"least": 1}}, "need `rewards`"),
        ({"rewards": GOOD, "data": {"form": "hh"}}, "`data` is for files of people"),
        ({"ranks": "r", "data": {"facts": ["gold"]}}, "data.facts would do nothing"),
        ({"rewards": GOOD, "gate": {"margin": 1}}, "gate.margin would do nothing"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(rank.Config, {"samples": "s"} | settings, "test")


def test_null_takes_back_what_a_recipe_says() -> None:
    recipe = {"samples": "s", "previous": "p", "rewards": GOOD, "gate": {"fail_on": "regressed"}}
    told = parse(rank.Config, recipe | {"gate": None}, "test")
    assert told.gate == rank.Gate()
    assert told.compared
    people = parse(rank.Config, {"samples": "s", "ranks": "r", "rewards": None}, "test")
    assert people.rewards.weights == {}
    for name in ("rewards", "gate"):
        assert {"type": "null"} in schema(rank.Config)["properties"][name]["anyOf"]
    with pytest.raises(ConfigError, match="nobody judges"):
        parse(rank.Config, {"samples": "s", "rewards": None}, "test")


def test_finetune_learns_the_best_answer_to_each_prompt(model: Artifact, tmp_path: Path) -> None:
    cut = Ranking(
        "c", ({"role": "user", "content": "c"},), (Answer("good, but", end="length"), Answer("bad"))
    )
    given = samples(tmp_path / "s", model, [*mixed("p", 6, 2), cut], mixed("h", 2, 1))
    made = run(rank, tmp_path / "r", samples=given, rewards=GOOD)
    found = material.read(made, ConversationData())
    said = [one.messages[-1] for one in found.train]  # type: ignore[union-attr]
    assert said == [{"role": "assistant", "content": "good 1"}] * 6 + [
        {"role": "assistant", "content": "good, but"} | CUT
    ]
    assert [one.messages[-1]["content"] for one in found.heldout] == ["good 1"] * 2  # type: ignore[union-attr]
    tuned = run(
        finetune,
        tmp_path / "t",
        model=model,
        conversations=made,
        tokens=256,
        tokens_per_step=128,
        sequence=64,
        method="full",
        forgetting={"text": None},
    )
    assert tuned.summary["examples"] == 7
    assert tuned.summary["unjudged_prompts"] == 0
