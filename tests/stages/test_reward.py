"""Reward models: rules are recovered and chance is not, whatever the method; a killed run ends with the same bits."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import matura
from matura.align.preferred import Choice
from matura.align.ranked import Ranked, pack_ranked
from matura.align.reward_model import Judge, set_reward_head
from matura.align.reward_training import Objective, Rule
from matura.align.sequences import Prompted
from matura.core.artifact import Artifact
from matura.core.config import parse
from matura.core.errors import ConfigError, MaturaError
from matura.core.metrics import MetricsLog
from matura.core.preferences import Answer, Ranking, write_rankings
from matura.core.raw import RawInput, raw_input
from matura.model import config as c
from matura.model import store
from matura.model.transformer import Transformer
from matura.stages import merge, pull, reward
from tests import tiny_hf
from tests.killing import killed_after
from tests.stages.pictures import MARK
from tests.tiny_models import CONTEXT, METHOD_GROUPS, network, pulled, run

QUICK: dict[str, Any] = {
    "epochs": 3.0,
    "tokens_per_step": 600,
    "sequence": 96,
    "save_every": 50,
    "meter_every": 0,
    "data": {"heldout": 24},
    "optimizer": {"lr": 1e-2},
    "lora": {"rank": 2},
    "bottleneck": {"reduction": 4},
    "prefix": {"tokens": 3, "text": "the"},
}
REST = ["a", "dog", "on", "the", "mat", "in", "hat"]


def said(draw: random.Random, telling: str) -> str:
    words = [*draw.choices(REST, k=draw.randrange(1, 4)), telling]
    draw.shuffle(words)
    return " ".join(words)


def rankings(count: int = 80, answers: int = 2, *, shuffled: bool = False) -> list[Ranking]:
    """The more "z" an answer has, the better; or ranks that mean nothing."""
    draw, made = random.Random(5), []
    for n in range(count):
        ranks = list(range(1, answers + 1))
        texts = [said(draw, "z" * (answers - rank + 1) if rank < answers else "q") for rank in ranks]
        if shuffled:
            draw.shuffle(ranks)
        each = [Answer(text, rank=rank) for text, rank in zip(texts, ranks, strict=True)]
        draw.shuffle(each)
        made.append(Ranking(f"r{n}", ({"role": "user", "content": f"say {n}"},), tuple(each)))
    return made


def file(folder: Path, rows: list[Ranking], name: str = "preferences.jsonl") -> RawInput:
    write_rankings(folder / name, rows)
    return raw_input(folder / name)


def trained(folder: Path, /, **settings: Any) -> Artifact:
    method = settings.get("method", "lora")
    kept = {name: one for name, one in settings.items() if name not in METHOD_GROUPS or name == method}
    return run(reward, folder, **kept)


def log(made: Artifact) -> list[dict[str, Any]]:
    return list(MetricsLog(made.path / "metrics.jsonl").rows())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return pulled(tmp_path_factory.mktemp("model"), model=network(scale=2.0))


@pytest.mark.parametrize("method", ["lora", "full", "bottleneck", "prefix"])
def test_a_rule_is_recovered_by_every_method(method: str, model: Artifact, tmp_path: Path) -> None:
    given = file(tmp_path, rankings())
    lr = {"full": 3e-3, "prefix": 3e-2}.get(method, 1e-2)
    made = trained(
        tmp_path / "made",
        model=model,
        preferences=given,
        **QUICK | {"method": method, "optimizer": {"lr": lr}, "epochs": 5.0},
    )
    found = made.summary
    assert found["accuracy"]["value"] >= (0.8 if method == "prefix" else 0.95)
    assert found["accuracy"]["low"] <= found["accuracy"]["value"] <= found["accuracy"]["high"]
    assert found["accuracy"]["groups"] == found["data"]["heldout_rankings"]
    assert found["baselines"]["words"]["accuracy"]["value"] > 0.9
    assert found["baselines"]["longer"]["accuracy"]["value"] == pytest.approx(
        1 - found["baselines"]["shorter"]["accuracy"]["value"]
    )
    judge = Judge.load(made.path)
    head = judge.model.config.head
    assert isinstance(head, c.Classifier)
    assert (head.labels, head.pool) == (("reward",), "last")
    (scores,) = judge.scores([Ranking("new", ({"role": "user", "content": "say 7"},))], [["a z", "a q"]])
    assert scores[0] > scores[1]


def test_ranks_by_chance_teach_nothing(model: Artifact, tmp_path: Path) -> None:
    """The control: what is held out is no better than a coin, far below what the rule gives."""
    given = file(tmp_path, rankings(shuffled=True))
    made = trained(tmp_path / "made", model=model, preferences=given, **QUICK)
    assert made.summary["accuracy"]["value"] < 0.8
    assert made.summary["accuracy"]["low"] < 0.5


@pytest.mark.parametrize("loss", ["bradley-terry", "plackett-luce"])
def test_rankings_of_several(loss: str, model: Artifact, tmp_path: Path) -> None:
    given = file(tmp_path, rankings(40, 4))
    settings = QUICK | {"loss": loss, "data": {"heldout": 12}, "epochs": 4.0}
    made = trained(tmp_path / "made", model=model, preferences=given, **settings)
    assert made.summary["accuracy"]["value"] > 0.8
    assert made.summary["accuracy"]["pairs"] == 6 * made.summary["data"]["heldout_rankings"]
    assert made.summary["pairs"] == 6 * made.summary["examples"]
    assert made.summary["accuracy"]["groups"] == made.summary["data"]["heldout_rankings"]


def test_an_encoder_becomes_a_reward_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = tiny_hf.bert(tmp_path / "bert")
    encoder = run(pull, tmp_path / "model", reference="bert", files=raw_input(source))
    rows = []
    for n in range(90):
        draw = random.Random(n)
        texts = [said(draw, "cat"), said(draw, "house")]
        rows.append({"prompt": f"the {REST[n % 7]} {REST[n % 5]}", "chosen": texts[0], "rejected": texts[1]})
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = QUICK | {
        "method": "full",
        "sequence": 24,
        "epochs": 5.0,
        "tokens_per_step": 200,
        "data": {"heldout": 24},
    }
    given = raw_input(tmp_path / "rows.jsonl")
    made = trained(tmp_path / "made", model=encoder, preferences=given, **settings)
    assert made.summary["accuracy"]["value"] > 0.9
    head = store.load(made.path).config.head
    assert isinstance(head, c.Classifier)
    assert head.pool == "mean"


@pytest.mark.usefixtures("drawn")
def test_what_is_logged(model: Artifact, tmp_path: Path) -> None:
    made = trained(
        tmp_path / "made", model=model, preferences=file(tmp_path, rankings()), **QUICK | {"meter_every": 10}
    )
    rows = log(made)
    first = rows[0]
    assert first["step"] == 0
    names = ("loss", "accuracy", "margin", "reward_min", "reward_mean", "reward_max")
    assert {f"heldout_{name}" for name in names} <= first.keys()
    updates = [row for row in rows if row["step"]]
    assert all(set(names) <= row.keys() for row in updates)
    assert all(row["reward_min"] <= row["reward_mean"] <= row["reward_max"] for row in updates)
    assert rows[-1]["heldout_accuracy"] == pytest.approx(made.summary["accuracy"]["value"])
    assert rows[-1]["heldout_loss"] < first["heldout_loss"] - 0.1
    bins = made.summary["calibration"]["bins"]
    assert sum(one["pairs"] for one in bins) == made.summary["accuracy"]["pairs"]
    assert 0 <= made.summary["calibration"]["error"] <= 1
    page = made.file("report.html").read_text()
    assert MARK in page
    assert "Reward model" in page
    assert "Rewards" in page
    assert "held-out pairs in order" in made.summary["line"]
    assert "forgetting" not in made.summary


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_killed_run_ends_with_the_same_bits(method: str, model: Artifact, tmp_path: Path) -> None:
    """T37."""
    given = file(tmp_path, rankings(30))
    settings = QUICK | {
        "epochs": 2.0,
        "method": method,
        "data": {"heldout": 6},
        "save_every": 3,
        "meter_every": 5,
    }
    whole = trained(tmp_path / "whole", model=model, preferences=given, **settings)
    with killed_after(3):
        trained(tmp_path / "again", model=model, preferences=given, **settings)
    again = trained(tmp_path / "again", model=model, preferences=given, **settings)
    weights = store.WEIGHTS if method == "full" else store.ADAPTER_WEIGHTS
    assert again.file(weights).read_bytes() == whole.file(weights).read_bytes()
    assert again.summary == whole.summary
    assert log(again) == log(whole)


def test_dropout_is_off() -> None:
    """T13: a model whose own settings have dropout learns as one without."""
    plain = network(scale=2.0)
    assert plain.config.decoder is not None
    stack = plain.config.decoder.model_copy(update={"dropout": 0.3})
    dropping = Transformer(plain.config.model_copy(update={"decoder": stack}))
    dropping.load_state_dict(plain.state_dict())
    text = Prompted((5, 6, 7), ((8, 9), (10, 11)))
    batch = pack_ranked([Ranked(text, (Choice(0, 1),), (1, 2))])
    losses = [
        Objective(Rule())(set_reward_head(one).train(), batch).item() for one in (plain, dropping, dropping)
    ]
    assert losses == [losses[0]] * 3
    with pytest.raises(ConfigError, match="learns without dropout"):
        parse(reward.Config, {"model": "m", "preferences": "p", "lora": {"dropout": 0.1}}, "test")


def test_pairs_that_are_too_long_are_dropped_and_counted(model: Artifact, tmp_path: Path) -> None:
    """T11."""
    rows = rankings(60)
    long = Answer("z " * 200, rank=1)
    rows[3] = Ranking("long", rows[3].messages, (long, Answer("q", rank=2)))
    rows[4] = Ranking("some", rows[4].messages, (long, Answer("z", rank=2), Answer("q", rank=3)))
    given = file(tmp_path, rows)
    made = trained(
        tmp_path / "made", model=model, preferences=given, **QUICK | {"data": {"heldout": 0}, "epochs": 1.0}
    )
    assert made.summary["dropped"] == {"too long": 3}
    assert (made.summary["examples"], made.summary["pairs"]) == (59, 59)
    assert "nothing was held out" in made.summary["line"]
    with pytest.raises(MaturaError, match=r"nothing to learn from.*answer cut away"):
        trained(tmp_path / "none", model=model, preferences=given, **QUICK | {"sequence": 8})


@pytest.mark.parametrize("answers", [(Answer("a", rank=1), Answer("b", rank=1)), (Answer("a", liked=True),)])
def test_ties_and_thumbs_alone_are_no_pairs_and_that_is_said(
    model: Artifact, tmp_path: Path, answers: tuple[Answer, ...]
) -> None:
    given = file(tmp_path, [replace(row, answers=answers) for row in rankings(3)])
    with pytest.raises(MaturaError, match=r"learn from: 3 rankings without a pair\. A pair is two answers"):
        trained(tmp_path / "none", model=model, preferences=given, **QUICK | {"data": {"heldout": 0}})


def test_a_reward_model_is_refreshed_with_new_preferences(model: Artifact, tmp_path: Path) -> None:
    given = file(tmp_path, rankings(30))
    settings = QUICK | {"meter_every": 100, "epochs": 1.0}
    made = trained(tmp_path / "made", model=model, preferences=given, **settings)
    with pytest.raises(ConfigError, match="merge it first"):
        trained(tmp_path / "no", model=made, preferences=given, **settings)
    whole = run(merge, tmp_path / "whole", model=made)
    again = trained(tmp_path / "again", model=whole, preferences=given, **settings | {"epochs": 0.01})
    assert log(again)[0]["heldout_accuracy"] == log(made)[-1]["heldout_accuracy"]


def test_settings_that_would_do_nothing_are_refused() -> None:
    given = {"model": "m", "preferences": "p"}
    for more, message in (
        ({"loss": "plackett-luce", "margin": 1.0}, "margin is for loss=bradley-terry"),
        ({"meter_every": 0, "meter_tokens": 100}, "meter_tokens would do nothing"),
        ({"data": {"facts": ["gold"]}}, "data.facts would do nothing"),
        ({"losss": "x"}, "did you mean 'loss'"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse(reward.Config, given | more, "test")


def test_margins_without_scores_to_take_them_from_are_refused(model: Artifact, tmp_path: Path) -> None:
    settings = QUICK | {"margin": 0.5, "epochs": 0.1, "data": {"heldout": 0}}
    ranked = file(tmp_path, rankings(12))
    with pytest.raises(MaturaError, match="would do nothing: no pair has scores"):
        trained(tmp_path / "no", model=model, preferences=ranked, **settings)
    rows = [
        replace(row, answers=tuple(replace(one, score=-float(one.rank or 0)) for one in row.answers))
        for row in rankings(12)
    ]
    trained(tmp_path / "made", model=model, preferences=file(tmp_path, rows, "scored.jsonl"), **settings)


def test_more_tokens_than_the_model_reads_are_refused_and_the_default_is_cut(
    model: Artifact, tmp_path: Path
) -> None:
    given = {"model": model, "preferences": file(tmp_path, rankings(12))}
    settings = QUICK | {"epochs": 0.1, "data": {"heldout": 0}}
    with pytest.raises(ConfigError, match=f"sequence=300: the model reads at most {CONTEXT} tokens at once"):
        trained(tmp_path / "no", **given, **settings | {"sequence": 300})
    del settings["sequence"]
    trained(tmp_path / "made", **given, **settings)


def test_answers_are_rewarded_in_python(model: Artifact, tmp_path: Path) -> None:
    given = file(tmp_path, rankings(60))
    made = trained(tmp_path / "made", model=model, preferences=given, **QUICK | {"data": {"heldout": 0}})
    asked = [{"role": "user", "content": "say 7"}]
    judge = matura.load(made.path)
    several = judge.reward(asked, ["a z", "a q", ""])
    assert several[0] > several[1]
    assert judge.reward(asked, "a q") == pytest.approx(several[1], abs=1e-5)
    (scores,) = Judge.load(made.path).scores([Ranking("r", tuple(asked))], [["a z", "a q", ""]])
    assert several == pytest.approx(scores, abs=1e-5)
    with pytest.raises(ConfigError, match="the answers stand by themselves"):
        judge.reward([*asked, {"role": "assistant", "content": "a"}], "b")
    with pytest.raises(MaturaError, match="no reward model"):
        matura.load(model.path).reward(asked, "a")


def test_the_plan_knows_what_it_costs(model: Artifact, tmp_path: Path) -> None:
    given = file(tmp_path, rankings())
    config = parse(reward.Config, {"model": "m", "preferences": "p", "epochs": 2}, "test")
    one = reward.estimate(config, {"model": model, "preferences": given})
    twice = reward.estimate(
        parse(reward.Config, {"model": "m", "preferences": "p", "epochs": 4}, "test"),
        {"model": model, "preferences": given},
    )
    assert 0 < one.seconds < twice.seconds
    assert reward.estimate(config, {}).seconds > 0
