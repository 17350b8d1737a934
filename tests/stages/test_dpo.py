"""Learning from preferences: what is learned, the same bits after any kill, and a reference that is read once."""

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from matura.align import reference
from matura.align.sequences import Prompted
from matura.commands import auditing
from matura.core.artifact import Artifact
from matura.core.config import parse
from matura.core.errors import ConfigError, MaturaError
from matura.core.metrics import MetricsLog
from matura.core.preferences import Answer, Ranking, write_rankings
from matura.core.raw import raw_input
from matura.model import store
from matura.stages import dpo
from matura.train import finetuning
from tests.align.preferences import pair, preferences, question, ranked, thumb
from tests.killing import killed_after
from tests.stages.pictures import MARK
from tests.tiny_models import CONTEXT, network, pulled, run

QUICK: dict[str, Any] = {
    "epochs": 2,
    "tokens_per_batch": 200,
    "sequence": 120,
    "save_every": 1,
    "meter_every": 2,
    "heldout_tokens": 400,
    "forgetting": {"text": None},
    "lora": {"rank": 2},
    "optimizer": {"lr": 1e-2},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """A model and preferences with several pairs of a prompt."""
    place = tmp_path_factory.mktemp("world")
    rows = [(ranked if n % 4 == 0 else pair)(n) for n in range(16)]
    held = [pair(n) for n in range(50, 56)]
    return {
        "model": pulled(place, model=network(scale=1.5)),
        "preferences": preferences(place / "preferences", rows, held),
    }


def rows(made: Artifact) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in row.items() if k not in ("time", "seconds", "t")}
        for row in MetricsLog(made.path / "metrics.jsonl").rows()
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"loss": {"kind": "kto"}, "accumulate": 2},
        {"method": "full", "loss": {"kind": "ipo", "nll": 0.1}, "optimizer": {"lr": 1e-3}},
    ],
    ids=["sigmoid", "kto", "full"],
)
def test_killed_at_any_checkpoint_it_ends_in_the_same_bits(
    settings: dict[str, Any], world: dict[str, Artifact], tmp_path: Path
) -> None:
    """T37: weights, log and record."""
    given = {k: v for k, v in QUICK.items() if k != "lora" or settings.get("method") != "full"} | settings
    whole = run(dpo, tmp_path / "whole" / "dpo", **world, **given)
    steps = whole.summary["steps"]
    assert steps >= 4
    for stop in (1, steps - 1) if not settings else (2,):
        place = tmp_path / f"killed-{stop}" / "dpo"
        with killed_after(stop):
            run(dpo, place, **world, **given)
        torch.manual_seed(stop)
        made = run(dpo, place, **world, **given)
        assert made.id == whole.id
        assert rows(made) == rows(whole)


@pytest.mark.usefixtures("drawn")
def test_it_begins_at_log_2_and_learns_what_is_preferred(world: dict[str, Artifact], tmp_path: Path) -> None:
    made = run(dpo, tmp_path / "dpo", **world, **QUICK | {"epochs": 6})
    log = rows(made)
    assert log[0]["heldout_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert log[0]["heldout_accuracy"] == 0.5
    assert log[0]["heldout_kl"] == pytest.approx(0, abs=1e-6)
    assert log[1]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert log[1]["margin"] == pytest.approx(0, abs=1e-4)
    for name in ("reward_chosen", "reward_rejected", "accuracy", "logprob_chosen", "chosen_change"):
        assert name in log[-1]
    assert made.summary["heldout_accuracy"] == 1.0
    assert made.summary["heldout_margin"] > 0.5
    assert made.summary["heldout_kl"] > 1e-3
    assert made.summary["learned"] == 4 * 3 + 12
    assert made.summary["prompts"] == 16
    assert "held-out preferences are right" in made.summary["line"]
    assert MARK in made.file("report.html").read_text()
    model = store.load(made.path)
    assert any("lora" in name or name.endswith(".a") for name, _ in model.named_parameters())


def test_the_bar_ends_where_it_was_told_it_would(
    world: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, float] = {}

    @contextlib.contextmanager
    def progress(description: str, total: float, start: float = 0) -> Iterator[SimpleNamespace]:
        told.update(total=total, done=start)
        yield SimpleNamespace(advance=lambda amount, **shown: told.update(done=told["done"] + amount))

    monkeypatch.setattr(finetuning, "progress", progress)
    run(dpo, tmp_path / "dpo", **world, **QUICK | {"accumulate": 2})
    assert told["done"] == pytest.approx(told["total"], rel=0.2)


def test_alarms_stand_in_the_summary_and_on_top_of_the_report(
    world: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def page(name: str, found: list[str]) -> str:
        monkeypatch.setattr("matura.align.doctor.alarms", lambda rows: found)
        made = run(dpo, tmp_path / name, **world, **QUICK)
        assert made.summary["alarms"] == found
        return made.file("report.html").read_text()

    assert "What looks wrong" not in page("calm", [])
    odd = page("odd", ["everything is odd"])
    assert "What looks wrong" in odd
    assert "<li>everything is odd</li>" in odd


def test_what_is_preferred_the_other_way_round_is_learned_the_other_way_round(
    world: dict[str, Artifact], tmp_path: Path
) -> None:
    swapped = preferences(
        tmp_path / "swapped", [pair(n, swapped=True) for n in range(16)], [pair(50), pair(51)]
    )
    made = run(dpo, tmp_path / "dpo", model=world["model"], preferences=swapped, **QUICK | {"epochs": 6})
    assert made.summary["heldout_accuracy"] == 0.0


def test_the_reference_is_read_once_for_all_runs_on_the_same_data(
    world: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    true = reference.sequence_logprobs

    def counting(model: Any, batch: Any) -> Any:
        read.append(len(batch.counts))
        return true(model, batch)

    monkeypatch.setattr(reference, "sequence_logprobs", counting)
    first = run(dpo, tmp_path / "dpo-1", **world, **QUICK)
    assert sum(read) == 4 * 3 + 12 * 2 + 6 * 2
    read.clear()
    second = run(dpo, tmp_path / "dpo-2", **world, **QUICK | {"loss": {"beta": 0.5}})
    assert not read
    names = [path.name for path in sorted(first.path.glob("reference-*"))]
    assert names == [path.name for path in sorted(second.path.glob("reference-*"))]
    other = preferences(tmp_path / "other", [pair(n) for n in range(40, 48)], [pair(50)])
    run(dpo, tmp_path / "dpo-3", model=world["model"], preferences=other, **QUICK)
    assert read  # other data has other numbers
    read.clear()
    for path in tmp_path.glob("*/reference-*"):
        path.write_bytes(b"broken")
    again = run(dpo, tmp_path / "dpo-4", **world, **QUICK)
    assert read
    assert again.id == first.id


def test_a_kill_while_the_reference_reads_costs_only_what_was_not_saved(
    world: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "ROW", 150)
    monkeypatch.setattr(reference, "SAVE_EVERY", 1)
    whole = run(dpo, tmp_path / "whole" / "dpo", **world, **QUICK)
    true, read = reference.sequence_logprobs, []

    def dying(model: Any, batch: Any) -> Any:
        if len(read) == 3:
            raise KeyboardInterrupt
        read.append(batch)
        return true(model, batch)

    monkeypatch.setattr(reference, "sequence_logprobs", dying)
    with pytest.raises(KeyboardInterrupt):
        run(dpo, tmp_path / "killed" / "dpo", **world, **QUICK)
    before = len(read)
    read.append(None)
    made = run(dpo, tmp_path / "killed" / "dpo", **world, **QUICK)
    rest = len(read) - before - 1
    monkeypatch.setattr(reference, "sequence_logprobs", true)
    assert rest < before + rest
    assert made.id == whole.id


def test_a_reference_that_is_no_number_is_named(tmp_path: Path) -> None:
    broken = network()
    with torch.no_grad():
        broken.embed.weight[5] = float("nan")
    asked = [Prompted((1, 5), ((2, 3),))]
    with pytest.raises(MaturaError, match="no number"):
        reference.logprobs(broken, asked, "broken", tmp_path / "dpo")


@pytest.mark.parametrize("kind", ["orpo", "simpo"])
def test_losses_without_a_reference_read_none(kind: str, world: dict[str, Artifact], tmp_path: Path) -> None:
    made = run(dpo, tmp_path / "dpo", **world, **QUICK | {"loss": {"kind": kind}})
    assert not list(made.path.glob("reference-*"))
    assert made.summary["heldout_accuracy"] == 1.0
    assert "heldout_chosen_change" not in made.summary


def test_thumbs_are_for_kto(world: dict[str, Artifact], tmp_path: Path) -> None:
    path = tmp_path / "thumbs.jsonl"
    write_rankings(path, [thumb(n) for n in range(24)])
    given: dict[str, Any] = {
        "model": world["model"],
        "preferences": raw_input(path),
        "data": {"heldout": 4},
    }
    with pytest.raises(MaturaError, match=r"nothing to learn from: .* no pair.*loss.kind=kto"):
        run(dpo, tmp_path / "pairs", **given, **QUICK)
    pairs, thumbs = (
        parse(dpo.Config, {"model": "m", "preferences": "p", "data": given["data"], **QUICK} | more, "test")
        for more in ({}, {"loss": {"kind": "kto"}})
    )
    with pytest.raises(MaturaError, match=r"--audit shows pairs.*loss.kind=kto"):
        dpo.audit(pairs, given, 4)
    seen = dpo.audit(thumbs, given, 8)
    assert {one.name.split()[-1] for one in seen.shown} == {"liked", "disliked"}
    made = run(dpo, tmp_path / "kto", **given, **QUICK | {"loss": {"kind": "kto"}, "epochs": 4})
    assert made.summary["heldout_accuracy"] == 1.0
    assert "z" in rows(made)[-1]
    assert rows(made)[-1]["z"] >= 0


def test_pairs_that_do_not_fit_are_dropped_and_counted(world: dict[str, Artifact], tmp_path: Path) -> None:
    for length, message in [(20, "24 answer cut away. sequence=20 is"), (44, "truncation=cut")]:
        with pytest.raises(MaturaError, match=f"nothing to learn from: .*{message}"):
            run(dpo, tmp_path / f"dpo-{length}", **world, **QUICK | {"sequence": length})


def test_no_pair_is_longer_than_what_the_model_reads(world: dict[str, Artifact], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"sequence=300: the model reads at most {CONTEXT} tokens at once"):
        run(dpo, tmp_path / "no", **world, **QUICK | {"sequence": 300})
    long = Ranking("long", question(99), (Answer("x" * 300, 1), Answer("no", 2)))
    given = preferences(tmp_path / "given", [*map(pair, range(8)), long], [pair(50)])
    default = {name: one for name, one in QUICK.items() if name != "sequence"} | {"epochs": 0.1}
    made = run(dpo, tmp_path / "dpo", model=world["model"], preferences=given, **default)
    assert made.summary["dropped_pairs"] == {"too long": 1}


def test_what_would_do_nothing_is_refused() -> None:
    for settings, message in [
        ({"lora": {"dropout": 0.1}}, "without dropout"),
        ({"forgetting": {"kl": 0.1, "kl_on": "new"}}, "anchors of fine-tuning"),
        ({"meter_every": 0, "heldout_tokens": 100}, "heldout_tokens would do nothing"),
        ({"loss": {"kind": "robust"}}, "needs smoothing"),
        ({"data": {"facts": ["gold"]}}, "data.facts would do nothing"),
    ]:
        with pytest.raises(ConfigError, match=message):
            parse(dpo.Config, {"model": "m", "preferences": "p", **settings}, "test")


def test_rates_are_those_of_preferences_and_scale_with_the_method() -> None:
    """T40: a default that moves a small model, ten times as high where few weights are trained."""
    config = parse(dpo.Config, {"model": "m", "preferences": "p"}, "test")
    rates = {method: config.optimizer.of(method).lr for method in ("lora", "full")}
    assert rates["lora"] >= 10 * rates["full"] > 1e-6


def test_the_plan_and_the_audit(world: dict[str, Artifact]) -> None:
    config = parse(dpo.Config, {"model": "m", "preferences": "p", **QUICK}, "test")
    told = dpo.estimate(config, dict(world))
    assert told.seconds > 0
    assert told.memory_bytes > 0
    free = parse(dpo.Config, {"model": "m", "preferences": "p", **QUICK, "loss": {"kind": "orpo"}}, "test")
    assert dpo.estimate(free, dict(world)).seconds < told.seconds
    large = dpo.estimate(
        config, {"preferences": world["preferences"], "model": None}
    )  # taken for one of 135M
    assert large.seconds > 10 * told.seconds
    seen = dpo.audit(config, dict(world), 4)
    assert len(seen.shown) == 4
    assert {one.name.split()[-1] for one in seen.shown} <= {"chosen", "rejected"}
    assert all(one.stops for one in seen.shown)
    assert json.dumps(seen.dropped) == "{}"
    assert "30 pairs; 0 rankings make none" in auditing.counts(seen)
