"""Fine-tuning without losing the rest: the meter, anchors, and a stop that a killed run makes at the same step."""

from pathlib import Path
from typing import Any

import pytest
import torch

from matura.core.artifact import Artifact
from matura.core.config import check, parse
from matura.core.errors import MaturaError
from matura.core.metrics import MetricsLog
from matura.core.peft_settings import BaseConfig
from matura.core.raw import raw_input
from matura.core.records import Conversation
from matura.core.settings import OptimizerConfig
from matura.core.wheels import EXAMS
from matura.model import store
from matura.model.transformer import Transformer
from matura.stages import finetune
from matura.train import examples
from matura.train.batches import PackedBatches, Rows
from matura.train.loop import train
from matura.train.meter import Meter, Text
from matura.train.objectives import next_token
from matura.train.optim import build_optimizer, build_schedule
from tests.evaluate.exam_wheel import write_wheel
from tests.killing import killed_after
from tests.stages.pictures import MARK
from tests.tiny_models import chatml, conversations, corpus, network, pulled, run

QUICK: dict[str, Any] = {
    "tokens": 3000,
    "tokens_per_step": 256,
    "sequence": 64,
    "save_every": 3,
    "meter_every": 2,
    "meter_tokens": 256,
    "lora": {"rank": 2},
    "optimizer": {"lr": 3e-3, "schedule": "constant", "warmup": 0},
}
HASTY = QUICK | {"method": "full", "replay_share": 0, "optimizer": {"lr": 1e-2, "warmup": 1}}
"""Full tuning at a rate that rises far too high, without replay."""


def general(number: int) -> Conversation:
    """A plain text of the kind that the parent knows."""
    words = ("river", "mountain", "garden", "harbour")[number % 4], ("old", "quiet", "green")[number % 3]
    return Conversation(f"g{number}", (), f"Once the {words[1]} {words[0]} was far away from us.")


def taught() -> Transformer:
    """A parent that has learned the general texts, so that it has something to forget."""
    model, format = network(scale=2.0), chatml()
    made = examples.from_conversations(map(general, range(12)), format, 64)[0]
    config = OptimizerConfig(lr=1e-2, schedule="linear", warmup=0.0)
    batches = PackedBatches([Rows(made, tokens=256, seed=0)])
    steps, optimizer = 40, build_optimizer(model, config)
    list(train(model, batches, next_token, optimizer, build_schedule(config, steps), steps=steps))
    return model.eval()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """A model that knows something, documents about something else, and replay."""
    place = tmp_path_factory.mktemp("world")
    replay = conversations(place / "replay", [*map(general, range(8))], [*map(general, range(8, 12))])
    return {"model": pulled(place, model=taught()), "corpus": corpus(place / "corpus"), "replay": replay}


def rows(made: Artifact) -> list[dict[str, Any]]:
    return MetricsLog(made.path / "metrics.jsonl").rows()


def looks(made: Artifact, name: str) -> dict[int, float]:
    return {row["step"]: row[name] for row in rows(made) if name in row}


@pytest.mark.usefixtures("drawn")
def test_the_meter_is_on_and_starts_at_the_parent(world: dict[str, Artifact], tmp_path: Path) -> None:
    made = run(finetune, tmp_path / "made", **world, **QUICK)
    bits, kl = looks(made, "general_bpb"), looks(made, "general_kl")
    assert list(bits) == list(kl) == list(looks(made, "heldout_loss"))
    assert kl[0] == pytest.approx(0, abs=1e-7)
    assert kl[made.summary["steps"]] > 1e-4
    told = made.summary["forgetting"]
    assert told["parent_bpb"] == pytest.approx(bits[0], rel=1e-6)
    assert told["bpb"] == bits[made.summary["steps"]]
    assert told["change"] == pytest.approx(told["bpb"] / told["parent_bpb"] - 1)
    assert told["weights_of_step"] == made.summary["steps"]
    assert not told["stopped"]
    assert "general text" in made.summary["line"]
    page = made.file("report.html").read_text()
    assert MARK in page
    assert "General text" in page
    assert "Divergence from the parent" in page


@pytest.mark.parametrize("method", ["lora", "bottleneck", "prefix"])
def test_an_adapter_on_4_bits_is_measured_against_what_they_stand_for(
    method: str, world: dict[str, Artifact], tmp_path: Path
) -> None:
    """Not against the float weights: what the 4 bits cost is no forgetting."""
    base = {"format": "int4", "group": 32}
    settings = QUICK | {"tokens": 600, "method": method, "base": base, "bottleneck": {"reduction": 4}}
    made = run(finetune, tmp_path / "made", **world, **settings)
    told = made.summary["forgetting"]
    texts = examples.from_conversations(map(general, range(8, 12)), chatml(), 64).examples
    text = Text.of(texts, chatml().tokenizer)
    held = [store.load(world["model"].path, base=BaseConfig(**base)), store.load(world["model"].path)]
    packed, floating = (Meter(text, one).parent.bpb for one in held)
    assert told["tokens"] == text.tokens
    assert told["parent_bpb"] == pytest.approx(packed, rel=1e-5)
    assert told["parent_bpb"] != pytest.approx(floating, rel=1e-4)
    if method != "prefix":  # which starts elsewhere
        assert looks(made, "general_kl")[0] == pytest.approx(0, abs=1e-6)
    there = Meter(text, held[0]).read(store.load(made.path))
    assert there.kl == pytest.approx(told["kl"], rel=1e-3)


@pytest.mark.parametrize(
    "method",
    [
        {"method": "prefix", "optimizer": {"lr": 3e-2}},
        {"method": "bottleneck", "optimizer": {"lr": 3e-2}},
        {"method": "lora", "base": {"format": "int4", "group": 32}},
    ],
)
def test_an_anchor_holds_every_method(
    method: dict[str, Any], world: dict[str, Artifact], tmp_path: Path
) -> None:
    more = {"prefix": {"text": "Once the"}, "bottleneck": {"reduction": 4}}
    settings = QUICK | more | method
    free = run(finetune, tmp_path / "free", **world, **settings)
    held = run(finetune, tmp_path / "held", **world, **settings, forgetting={"kl": 5, "kl_on": "both"})
    assert held.summary["forgetting"]["kl"] < 0.7 * free.summary["forgetting"]["kl"]


def test_without_replay_the_meter_reads_the_exams_control_texts(
    world: dict[str, Artifact], tmp_path: Path
) -> None:
    wheel = raw_input(write_wheel(tmp_path))
    settings = QUICK | {"tokens": 256, "forgetting": {"text": str(wheel.path)}}
    values = settings | {"model": str(world["model"].path), "corpus": str(world["corpus"].path)}
    from matura.core import artifact

    inputs: dict[str, Any] = {"model": world["model"], "corpus": world["corpus"], "forgetting.text": wheel}
    config = parse(finetune.Config, values, "test")
    draft = artifact.begin(
        tmp_path / "made", kind="model", stage="finetune", version=4, config=config, inputs=inputs
    )
    made = finetune.run(config, inputs, draft)
    assert made.summary["forgetting"]["tokens"] > 100
    assert finetune.raw_input(config, "forgetting.text") == wheel.path


def test_the_default_text_is_named_only_where_it_is_read() -> None:
    def text(**settings: Any) -> str | None:
        values = {"model": "m", "corpus": "c", **settings}
        return parse(finetune.Config, values, "test").forgetting.text

    assert text() == EXAMS
    assert text(forgetting={"kl": 0.1, "kl_on": "new"}) == EXAMS
    assert text(replay="r") is None
    assert text(replay="r", forgetting={"kl": 0.1}) is None
    assert text(meter_every=0) is None
    assert text(forgetting={"text": None}) is None
    assert text(replay="r", forgetting={"text": "mine.whl"}) == "mine.whl"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"forgetting": {"kl": 0.1}}, "kl_on=replay needs replay; without it, take kl_on=new"),
        ({"forgetting": {"kl": 0.1}, "replay": "r", "replay_share": 0}, "kl_on=replay needs replay"),
        (
            {"forgetting": {"l2": 0.1}, "method": "prefix"},
            "method=prefix trains weights that it does not have",
        ),
        ({"forgetting": {"limit": 2}, "meter_every": 0}, "limit needs the meter"),
        ({"forgetting": {"limit": 2, "text": None}}, "limit needs the meter"),
        ({"forgetting": {"limit": -1}}, "greater than 0"),
        ({"forgetting": {"klon": 1}}, "did you mean 'kl_on'"),
        ({"prefix": {"text": "Answer."}}, "prefix is for method=prefix, and this is method=lora"),
        ({"method": "full", "lora": {"rank": 4}}, "lora is for method=lora, and this is method=full"),
        ({"base": {"group": 64}}, "group is for format=int4"),
        ({"optimizer": {"average": 0.9}}, "average is for pre-training"),
        ({"replay_share": 0.5}, "replay_share would do nothing without replay"),
        ({"meter_every": 0, "meter_tokens": 2048}, "meter_tokens would do nothing with meter_every=0"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], message: str) -> None:
    _, problems = check(finetune.Config, {"model": "m", "corpus": "c", **settings})
    assert message in " ".join(map(str, problems))


def test_a_limit_on_nothing_is_told(world: dict[str, Artifact], tmp_path: Path) -> None:
    empty = conversations(tmp_path / "talks", [*map(general, range(8))], [])
    with pytest.raises(MaturaError, match="the held-out part of replay is empty"):
        run(finetune, tmp_path / "made", **world | {"replay": empty}, **QUICK, forgetting={"limit": 2})


@pytest.mark.parametrize("method", ["full", "lora"])
def test_no_strength_is_no_anchor_bit_for_bit(
    method: str, world: dict[str, Artifact], tmp_path: Path
) -> None:
    short = QUICK | {"tokens": 640, "method": method}
    plain = run(finetune, tmp_path / "plain", **world, **short)
    none = run(finetune, tmp_path / "none", **world, **short, forgetting={"kl": 0, "l2": 0})
    file = store.WEIGHTS if method == "full" else store.ADAPTER_WEIGHTS
    assert plain.file(file).read_bytes() == none.file(file).read_bytes()
    held = run(finetune, tmp_path / "held", **world, **short, forgetting={"kl": 1, "l2": 0.1})
    assert plain.file(file).read_bytes() != held.file(file).read_bytes()


@pytest.mark.parametrize("anchor", [{"kl": 5}, {"l2": 1}])
def test_an_anchored_run_forgets_less(
    anchor: dict[str, Any], world: dict[str, Artifact], tmp_path: Path
) -> None:
    settings = QUICK | {"method": "full"}
    free = run(finetune, tmp_path / "free", **world, **settings)
    held = run(finetune, tmp_path / "held", **world, **settings, forgetting=anchor)
    assert held.summary["forgetting"]["kl"] < 0.7 * free.summary["forgetting"]["kl"]
    start = looks(held, "heldout_loss")[0]
    assert held.summary["heldout_loss"] < start - 0.5 * (start - free.summary["heldout_loss"])


def test_a_run_that_forgets_is_stopped_with_the_best_weights_and_one_that_does_not_is_not(
    world: dict[str, Artifact], tmp_path: Path
) -> None:
    limit = {"limit": 60, "patience": 2}
    free = run(finetune, tmp_path / "free", **world, **HASTY)
    assert free.summary["forgetting"]["change"] > 1
    made = run(finetune, tmp_path / "made", **world, **HASTY, forgetting=limit)
    told = made.summary["forgetting"]
    assert told["stopped"]
    assert made.summary["steps"] < free.summary["steps"]
    assert told["change"] <= 0.6
    assert 0 < told["weights_of_step"] < made.summary["steps"]
    bits = looks(made, "general_bpb")
    assert told["bpb"] == pytest.approx(bits[told["weights_of_step"]], rel=1e-6)
    assert f"stopped, weights of step {told['weights_of_step']} kept" in made.summary["line"]
    last = run(finetune, tmp_path / "last", **world, **HASTY, forgetting=limit | {"keep": "last"})
    assert last.summary["steps"] == made.summary["steps"]
    assert last.summary["forgetting"]["change"] > 0.6
    sane = run(finetune, tmp_path / "sane", **world, **QUICK, forgetting={"limit": 60})
    assert not sane.summary["forgetting"]["stopped"]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_killed_anywhere_it_stops_at_the_same_step_with_the_same_bits(
    method: str, world: dict[str, Artifact], tmp_path: Path
) -> None:
    settings = HASTY | {
        "method": method,
        "forgetting": {"limit": 60, "patience": 3, "kl": 0.01, "kl_on": "new"},
    }
    whole = run(finetune, tmp_path / "whole", **world, **settings)
    steps = range(3, whole.summary["steps"], 3)
    assert len(steps) > 1
    for stop in steps:
        place = tmp_path / f"killed-{stop}"
        with killed_after(stop):
            run(finetune, place, **world, **settings)
        torch.manual_seed(stop)
        made = run(finetune, place, **world, **settings)
        assert made.id == whole.id
        assert made.summary == whole.summary
