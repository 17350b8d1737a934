"""Pre-training as a stage: it learns, resumes bit for bit, survives spikes, and says what is wrong."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from matura.core import artifact
from matura.core.artifact import Artifact
from matura.core.config import parse
from matura.core.errors import ArtifactError, ConfigError, FormatError, MaturaError
from matura.core.metrics import MetricsLog
from matura.core.records import Conversation
from matura.data import shards
from matura.model import store
from matura.stages import encode, pretrain
from matura.tokenizer import conversation
from matura.tokenizer.conversation import Format
from matura.tokenizer.tokenizer import Roles, Tokenizer
from matura.train import training
from matura.train.loop import Diverged
from tests.killing import killed_after, killed_before_the_first_update
from tests.stages.pictures import DRAWN, MARK, pictures
from tests.stages.test_encode import tokenizer
from tests.tiny_models import chatml, conversations, corpus, run

SMALL: dict[str, Any] = {
    "shape": {"layers": 1, "width": 32},
    "sizes": {"tokens": "12K", "step": 512, "rows": 8, "sequence": 32},
    "watch": {"every": 16, "sample_tokens": 8},
    "save_every": 4,
}

TRANSLATE: dict[str, Any] = {
    "shape": {"kind": "encoder-decoder"},
    "objectives": {"translate": 1},
    "pairs": "x",
}


def with_roles() -> Format:
    """A tokenizer with what every objective needs: begin, end, mask and padding tokens, and sentinels."""
    plain = chatml()
    backend = plain.tokenizer.backend
    backend.add_special_tokens(["[MASK]", "<pad>", *(f"<extra_id_{n}>" for n in range(8))])
    roles = Roles(bos=plain.tokenizer.roles.bos, eos=plain.tokenizer.roles.eos, mask="[MASK]", pad="<pad>")
    return Format(Tokenizer(backend, roles), plain.template, plain.stop_ids, plain.generation)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    place = tmp_path_factory.mktemp("world")
    texts = corpus(place / "corpus", documents=120, heldout=20)
    made = run(encode, place / "tokens", corpus=texts, tokenizer=tokenizer(place / "tok", with_roles()))
    return {"tokens": made}


def numbers(made: Artifact) -> list[dict[str, Any]]:
    return MetricsLog(made.path / "metrics.jsonl").rows()


def files(made: Artifact) -> dict[str, str]:
    return {name: one["sha256"] for name, one in made.record["files"].items() if not one["log"]}


@pytest.fixture(scope="module")
def trained(world: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    with pictures(DRAWN):
        return run(pretrain, tmp_path_factory.mktemp("run") / "model", **world, **SMALL)


def test_it_learns_and_the_model_needs_nothing_else(trained: Artifact) -> None:
    rows = numbers(trained)
    assert trained.summary["heldout"]["heldout_bpb"] < 1.6  # eight bits would be to know nothing
    assert rows[-1]["loss"] < 0.5 * rows[1]["loss"]
    assert {"tokens_per_s", "mfu", "grad_norm", "lr", "memory", "rms.decoder.0"} <= rows[-1].keys()
    assert store.load(trained.path).config.vocabulary == conversation.load(trained.path).tokenizer.vocab_size
    assert "Note" in (trained.path / "samples.jsonl").read_text()
    page = (trained.path / "report.html").read_text()
    assert MARK in page
    assert "src=" not in page


def test_without_learning_it_knows_nothing(
    world: dict[str, Artifact], trained: Artifact, tmp_path: Path
) -> None:
    """The control: the same run with a learning rate of next to nothing."""
    made = run(pretrain, tmp_path / "model", **world, **SMALL, optimizer={"lr": 1e-9})
    assert made.summary["heldout"]["heldout_bpb"] > 2 * trained.summary["heldout"]["heldout_bpb"]


def test_no_tokens_leave_the_first_weights_as_a_parent_for_exams(
    world: dict[str, Artifact], tmp_path: Path
) -> None:
    settings = {**SMALL, "sizes": {**SMALL["sizes"], "tokens": "0"}}
    made = run(pretrain, tmp_path / "model", **world, **settings)
    vocabulary = store.load(made.path).config.vocabulary
    tokens = world["tokens"].summary["heldout"]
    uniform = math.log2(vocabulary) * (tokens["tokens"] - tokens["documents"]) / tokens["bytes"]
    assert made.summary["heldout"]["heldout_bpb"] == pytest.approx(uniform, rel=0.02)
    known = pretrain.estimate(parse(pretrain.Config, {"tokens": "t", **settings}, "test"), dict(world))
    assert known.note == "first weights alone"


@pytest.mark.parametrize(("average", "stops"), [(0.0, (0, 20)), (0.9, (8,))])
def test_killed_at_any_checkpoint_it_ends_in_the_same_bits(
    average: float, stops: tuple[int, ...], world: dict[str, Artifact], tmp_path: Path
) -> None:
    settings = {**SMALL, "shape": {**SMALL["shape"], "dropout": 0.1}, "optimizer": {"average": average}}
    whole = run(pretrain, tmp_path / "whole", **world, **settings)
    for stop in stops:
        place = tmp_path / f"killed-{stop}"
        with killed_after(stop):
            run(pretrain, place, **world, **settings)
        again = run(pretrain, place, **world, **settings)
        assert again.record["resumed"] == 1
        assert files(again) == files(whole)
        assert again.id == whole.id
        steps = [row["step"] for row in numbers(again)]
        assert steps == sorted(set(steps))


def test_killed_before_its_first_update_it_tells_of_the_first_look_once(
    world: dict[str, Artifact], tmp_path: Path
) -> None:
    with killed_before_the_first_update(training):
        run(pretrain, tmp_path / "model", **world, **SMALL)
    again = run(pretrain, tmp_path / "model", **world, **SMALL)
    assert again.record["resumed"] == 1
    assert [row["step"] for row in numbers(again)] == list(range(1 + again.summary["steps"]))


def test_an_encoder_learns_to_fill_masks(world: dict[str, Artifact], tmp_path: Path) -> None:
    settings = {**SMALL, "shape": {"kind": "encoder", "layers": 1, "width": 32}, "save_every": 100}
    settings["sizes"] = {**SMALL["sizes"], "tokens": "24K"}
    made = run(pretrain, tmp_path / "model", **world, **settings, masking={"words": "whole"})
    control = run(pretrain, tmp_path / "control", **world, **settings, optimizer={"lr": 1e-9})
    found = made.summary["heldout"]["heldout_masked_accuracy"]
    assert found > 0.3
    assert found > 2 * control.summary["heldout"]["heldout_masked_accuracy"]
    assert store.load(made.path).encoder is not None


def test_an_encoder_decoder_learns_spans_and_pairs_together(
    world: dict[str, Artifact], tmp_path: Path
) -> None:
    rows = [pair(n) for n in range(80)]
    pairs = conversations(tmp_path / "pairs", rows[8:], rows[:8])
    settings = {
        **SMALL,
        "shape": {"kind": "encoder-decoder", "layers": 1, "width": 32},
        "objectives": {"denoise": 0.5, "translate": 0.5},
    }
    made = run(pretrain, tmp_path / "model", **world, pairs=pairs, **settings)
    rows_seen = numbers(made)
    assert rows_seen[-1]["loss"] < 0.7 * rows_seen[1]["loss"]
    assert {"heldout_denoise_loss", "heldout_translate_loss"} <= made.summary["heldout"].keys()
    assert '"prompt": "say' in (made.path / "samples.jsonl").read_text()


def pair(number: int) -> Conversation:
    asked, said = f"say {number}", f"hello {number}"
    messages = ({"role": "user", "content": asked}, {"role": "assistant", "content": said})
    return Conversation(f"c{number}", messages)


def test_the_bar_reaches_its_end_also_where_pairs_are_padded(
    world: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, float] = {"done": 0}

    @contextmanager
    def noting(name: str, total: float, start: float = 0) -> Iterator[Any]:
        told["total"] = total
        yield SimpleNamespace(advance=lambda amount, **shown: told.update(done=told["done"] + amount))

    monkeypatch.setattr(training, "progress", noting)
    rows = [pair(n) for n in range(80)]
    pairs = conversations(tmp_path / "pairs", rows[8:], rows[:8])
    settings = {**SMALL, **TRANSLATE, "shape": {"kind": "encoder-decoder", "layers": 1, "width": 32}}
    made = run(pretrain, tmp_path / "model", **world, **{**settings, "pairs": pairs})
    assert told["done"] == told["total"] > made.summary["tokens"]


def test_the_time_of_a_look_is_not_the_next_updates(
    world: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 1
        return now[0]

    def slow(self: training.Run, *, whole: bool) -> dict[str, float]:
        now[0] += 1000
        return {}

    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=clock))
    monkeypatch.setattr(training.Run, "_look", slow)
    sizes = {**SMALL["sizes"], "tokens": "4K"}
    made = run(
        pretrain,
        tmp_path / "model",
        **world,
        **{**SMALL, "sizes": sizes, "watch": {"every": 2, "sample_tokens": 0}},
    )
    assert {row["tokens_per_s"] for row in numbers(made)[1:]} == {512}


def test_a_rate_that_diverges_ends_in_advice_and_loses_nothing(
    world: dict[str, Artifact], tmp_path: Path
) -> None:
    wild = {"optimizer": {"lr": 1e30, "clip": 1e30, "warmup": 0.0}, "spikes": {"patience": 1, "rewinds": 2}}
    settings = {**SMALL, **wild}
    with pytest.raises(Diverged, match=r"after going back 2 times.*lower learning rate"):
        run(pretrain, tmp_path / "model", **world, **settings)
    assert list((tmp_path / "model" / "resume").iterdir())


def test_a_rate_that_ruins_the_weights_without_an_error_is_an_alarm(
    world: dict[str, Artifact], trained: Artifact, tmp_path: Path
) -> None:
    made = run(pretrain, tmp_path / "model", **world, **SMALL, optimizer={"lr": 100, "warmup": 0.0})
    (alarm,) = made.summary["alarms"]
    assert "nothing was learned. Start again with a lower learning rate" in alarm
    assert "1 alarm: heldout_bpb was" in made.summary["line"]
    assert "nothing was learned" in (made.path / "report.html").read_text()
    assert trained.summary["alarms"] == []


def test_after_going_back_it_still_tells_of_the_updates_left_out(
    world: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matura.train import objectives

    loss, calls = objectives.loss, iter(range(10_000))

    def broken(*given: Any, **more: Any) -> Any:
        return loss(*given, **more) * (math.nan if 20 <= next(calls) < 26 else 1.0)

    monkeypatch.setattr(objectives, "loss", broken)
    made = run(pretrain, tmp_path / "model", **world, **SMALL, spikes={"patience": 2})
    assert made.summary["rewinds"] == 1
    assert made.summary["updates_left_out"] >= 3
    assert made.summary["steps"] == numbers(made)[-1]["step"]


def test_a_spike_is_left_out_and_training_goes_on(
    world: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matura.train import objectives

    loss, calls = objectives.loss, iter(range(10_000))

    def spiky(*given: Any, **more: Any) -> Any:
        found = loss(*given, **more)
        return found * 1e6 if next(calls) == 40 else found

    monkeypatch.setattr(objectives, "loss", spiky)
    made = run(pretrain, tmp_path / "model", **world, **SMALL, spikes={"window": 8})
    assert made.summary["updates_left_out"] == 1
    assert made.summary["heldout"]["heldout_bpb"] < 1.7


def test_too_little_text_says_how_much_is_needed(world: dict[str, Artifact], tmp_path: Path) -> None:
    settings = {**SMALL, "sizes": {"tokens": "100K", "step": 65_536, "rows": 512, "sequence": 128}}
    with pytest.raises(MaturaError, match=r"holds [0-9,]+ tokens .* one batch needs 65,537"):
        run(pretrain, tmp_path / "model", **world, **settings)


def test_altered_shards_are_named(world: dict[str, Artifact], tmp_path: Path) -> None:
    made = tmp_path / "tokens"
    texts = corpus(tmp_path / "corpus", documents=60)
    tokens = run(encode, made, corpus=texts, tokenizer=tokenizer(tmp_path / "tok"))
    shard = made / "train-00000.bin"
    content = bytearray(shard.read_bytes())
    content[10] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"train-00000.bin: its content was changed"):
        run(pretrain, tmp_path / "model", tokens=tokens, **SMALL)
    shard.write_bytes(content[:-7])
    with pytest.raises(ArtifactError, match="train-00000"):
        run(pretrain, tmp_path / "other", tokens=artifact.load(made), **SMALL)


def test_another_tokenizer_beside_the_tokens_is_refused(tmp_path: Path) -> None:
    texts = corpus(tmp_path / "corpus", documents=60)
    tokens = run(encode, tmp_path / "tokens", corpus=texts, tokenizer=tokenizer(tmp_path / "tok"))
    with_roles().save(tokens.path / "tokenizer")
    with pytest.raises(FormatError, match="was encoded with another tokenizer"):
        run(pretrain, tmp_path / "model", tokens=tokens, **SMALL)


def test_of_several_processes_each_looks_at_its_share_of_the_shards(tmp_path: Path) -> None:
    texts = corpus(tmp_path / "corpus", documents=60)
    made = run(
        encode, tmp_path / "t", corpus=texts, tokenizer=tokenizer(tmp_path / "tok"), shard_bytes=1 << 10
    )
    tokens = shards.load(made.path)
    bad = tokens.shards("train")[1]
    (made.path / f"{bad.name}.bin").write_bytes(bytes(2 * bad.tokens))
    tokens.verify(0, 2)
    with pytest.raises(ArtifactError, match=f"{bad.name}.bin: its content was changed"):
        tokens.verify(1, 2)


@pytest.mark.parametrize("kind", ["decoder", "encoder", "encoder-decoder"])
def test_without_held_out_text_there_is_no_look(kind: str, tmp_path: Path) -> None:
    texts = corpus(tmp_path / "corpus", documents=60, heldout=0)
    tokens = run(
        encode, tmp_path / "tokens", corpus=texts, tokenizer=tokenizer(tmp_path / "tok", with_roles())
    )
    settings = {
        **SMALL,
        "shape": {**SMALL["shape"], "kind": kind},
        "sizes": {**SMALL["sizes"], "tokens": "1K"},
    }
    made = run(pretrain, tmp_path / "model", tokens=tokens, **settings)
    assert made.summary["heldout"] == {}


def test_a_context_shorter_than_a_look_at_activations(world: dict[str, Artifact], tmp_path: Path) -> None:
    settings = {**SMALL, "shape": {**SMALL["shape"], "position": "learned"}}
    settings["sizes"] = {"tokens": "1K", "step": 128, "sequence": 8}
    made = run(pretrain, tmp_path / "model", **world, **settings)
    assert numbers(made)[-1]["rms.decoder.0"] > 0


def test_a_device_that_is_not_there_is_named(world: dict[str, Artifact], tmp_path: Path) -> None:
    assert not torch.cuda.is_available(), "this test is for machines without a GPU"
    with pytest.raises(ConfigError, match=r"device=cuda:1: torch .* finds no GPU here: set device=cpu"):
        run(pretrain, tmp_path / "model", **world, **SMALL, device="cuda:1")


def test_a_tokenizer_without_a_mask_token_is_named(tmp_path: Path) -> None:
    texts = corpus(tmp_path / "corpus", documents=60)
    tokens = run(encode, tmp_path / "tokens", corpus=texts, tokenizer=tokenizer(tmp_path / "tok"))
    settings = {**SMALL, "shape": {"kind": "encoder", "layers": 1, "width": 32}}
    with pytest.raises(MaturaError, match="no mask token"):
        run(pretrain, tmp_path / "model", tokens=tokens, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objectives": {"masked": 1.0}}, "masked is for shape.kind=encoder"),
        ({"objectives": {"next_token": 0}}, "above zero"),
        ({"shape": {"kind": "encoder-decoder"}, "objectives": {"translate": 1}}, "translate needs `pairs`"),
        ({"pairs": "x"}, "add it to objectives"),
        ({"sources": {"a": 1, "b": 0}}, "sources.b: a share must be above zero"),
        ({"masking": {"share": 0.3}}, "masking is for shape.kind=encoder: leave it out"),
        ({"spans": {"mean": 5}}, "spans are for the objective denoise"),
        ({**TRANSLATE, "spans": {"mean": 5}}, "spans are for the objective denoise"),
        ({**TRANSLATE, "sources": {"a": 1}}, "translate reads `pairs`"),
        ({"shape": {"kind": "encoder-decoder"}, "documents": "separate"}, "spans want rows of one length"),
        ({**TRANSLATE, "watch": {"samples": ["a"]}}, "that a decoder continues"),
        ({"optimizer": {"schedule": "cosine", "decay": 0.3}}, "optimizer.decay is for schedule=wsd"),
        ({"optimizer": {"kind": "adamw", "momentum": 0.9}}, "optimizer.momentum is for kind=muon"),
        ({"optimizer": {"betas": [0.9, 1]}}, "optimizer.betas: expected two numbers from 0 to below 1"),
        ({"shape": {"layers": 3}}, "both `layers` and `width`"),
        (
            {"shape": {"layers": 1, "width": 64, "kv_heads": 3}},
            r"shape: heads \(2\) must be a multiple of kv_heads",
        ),
        ({"shape": {"layers": 1, "width": 33, "head_width": 33}}, "shape: rotary positions turn pairs"),
        ({"sizes": {"tokens": "many"}}, "500K, 10M"),
        ({"parallel": {"tensor": 2, "kind": "ddp"}}, "cannot be combined"),
        ({"device": "gpu"}, "device"),
        ({"optimiser": {}}, "did you mean 'optimizer'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(pretrain.Config, {"tokens": "t", **settings}, "test")


def test_the_plan_says_what_it_takes_before_anything_is_made(world: dict[str, Artifact]) -> None:
    config = parse(pretrain.Config, {"tokens": "t", "shape": {"size": "135M"}}, "test")
    before = pretrain.estimate(config, {"tokens": None})
    assert "16,384 is assumed: the tokens are not made yet" in " ".join(before.details)
    known = pretrain.estimate(config, {"tokens": world["tokens"]})
    told = "\n".join(known.details)
    assert "20 for each parameter" in told
    assert "near the optimal point" in told
    scarce = parse(
        pretrain.Config, {"tokens": "t", "shape": {"size": "135M"}, "sizes": {"tokens": "500M"}}, "test"
    )
    told_of_scarce = "\n".join(pretrain.estimate(scarce, {"tokens": None}).details)
    assert "away from the optimal point" in told_of_scarce  # whatever the output layer computes
    assert known.disk_bytes > 20 * known.model_bytes / 4  # two checkpoints of weights and moments
    assert "h100: " in told
    assert "arXiv:2203.15556" in told
    assert known.seconds > 3600


@pytest.mark.parametrize(
    ("rows", "card", "fits"),
    [
        (8, "h100", "one holds it"),
        (32, "h100", "one holds it with sizes.rows="),
        (8, "l4", "sizes.rows=6, not 8"),
    ],
)
def test_the_plan_says_how_many_rows_an_accelerator_holds(rows: int, card: str, fits: str) -> None:
    sizes = {"tokens": "1B", "sequence": 2048, "rows": rows, "step": rows * 2048}
    config = parse(pretrain.Config, {"tokens": "t", "shape": {"size": "350M"}, "sizes": sizes}, "test")
    (line,) = (
        one for one in pretrain.estimate(config, {"tokens": None}).details if one.startswith(f"{card}: ")
    )
    assert fits in line
    assert ("sizes.rows=" in line) == ("sizes.rows=" in fits)


def needed(**settings: Any) -> int:
    """Bytes of memory by the plan."""
    config = parse(pretrain.Config, {"tokens": "t", "shape": {"size": "135M"}, **settings}, "test")
    return pretrain.estimate(config, {"tokens": None}).memory_bytes


def test_a_plan_in_half_precision_keeps_half_of_the_activations() -> None:
    assert needed(precision="bf16") < 0.7 * needed()
    assert needed(device="cuda") == needed(device="cuda", precision="bf16")  # what `auto` is there


def test_a_plan_knows_recomputed_activations_and_passes_that_are_never_full() -> None:
    assert needed(activation_checkpointing="full") < needed(activation_checkpointing=2) < needed()
    short = {"sequence": 512, "step": 2048}  # four rows
    assert needed(sizes={**short, "rows": 32}) == needed(sizes={**short, "rows": 4}) < needed()
