"""Fine-tuning: what is mixed in, what comes out, and the same bits after any kill."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from matura.core import artifact
from matura.core.artifact import Artifact
from matura.core.config import parse
from matura.core.errors import ConfigError, MaturaError
from matura.core.metrics import MetricsLog
from matura.core.peft_settings import RATES
from matura.core.raw import RawInput, raw_input
from matura.core.records import Conversation
from matura.core.workspace import Workspace
from matura.model import config as c
from matura.model import store
from matura.model.int4 import Int4Linear
from matura.model.transformer import Transformer
from matura.stages import evaluate, finetune, merge, prompt
from matura.tokenizer import conversation
from matura.train import examples, finetuning, preparing
from matura.train.batches import pack
from matura.train.meter import Looks
from matura.train.objectives import next_token
from tests.killing import killed_after, killed_before_the_first_update
from tests.tiny_models import VOCABULARY, chatml, conversations, corpus, pulled, run, talk

QUICK: dict[str, Any] = {
    "tokens": 900,
    "tokens_per_step": 128,
    "sequence": 64,
    "save_every": 1,
    "meter_every": 2,
    "lora": {"rank": 2},
    "prefix": {"tokens": 6, "text": "plain text says hello"},
    "bottleneck": {"reduction": 4},
    "optimizer": {"lr": 1e-2},
}
LONG = QUICK | {"tokens": 4000, "save_every": 100, "meter_every": 100}
"""Enough to learn; looks at the held-out part are before the first update and after the last."""
METHODS = ("lora", "prefix", "bottleneck", "full")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """A model, documents and replay."""
    place = tmp_path_factory.mktemp("world")
    texts = [Conversation(f"t{n}", (), f"plain text {n} says hello") for n in range(4)]
    return {
        "model": pulled(place),
        "corpus": corpus(place / "corpus"),
        "replay": conversations(place / "replay", [*map(talk, range(8)), *texts], [talk(20), talk(21)]),
    }


def rows(made: Artifact) -> list[dict[str, Any]]:
    timed = ("time", "seconds", "t")
    return [
        {k: v for k, v in row.items() if k not in timed}
        for row in MetricsLog(made.path / "metrics.jsonl").rows()
    ]


RESUMED = [{"method": name} for name in METHODS]
RESUMED += [{"method": "lora", "base": {"format": "int4", "group": 32}}]
STOPS = (1, 4, 7)
"""The first checkpoint, one with a look of the meter, the last but one."""


@pytest.mark.parametrize(
    ("method", "stops"),
    [
        (RESUMED[0], STOPS),
        *((method, STOPS[1:2]) for method in RESUMED[1:]),
        *(pytest.param(method, STOPS[::2], marks=pytest.mark.slow) for method in RESUMED[1:]),
    ],
)
def test_t37_killed_at_any_checkpoint_it_ends_in_the_same_bits(
    method: dict[str, Any], stops: tuple[int, ...], world: dict[str, Artifact], tmp_path: Path
) -> None:
    """T37: weights, optimizer, place in the data and random numbers go on as if nothing had happened."""
    whole = run(finetune, tmp_path / "whole", **world, **QUICK, **method)
    assert whole.summary["steps"] == 8
    for stop in stops:
        place = tmp_path / f"killed-{stop}"
        with killed_after(stop):
            run(finetune, place, **world, **QUICK, **method)
        torch.manual_seed(stop)
        made = run(finetune, place, **world, **QUICK, **method)
        assert made.id == whole.id
        assert made.summary == whole.summary
        assert rows(made) == rows(whole)
        assert made.record["resumed"] == 1


def test_killed_before_its_first_update_it_tells_of_the_first_look_once(
    world: dict[str, Artifact], tmp_path: Path
) -> None:
    with killed_before_the_first_update(finetuning):
        run(finetune, tmp_path / "made", **world, **QUICK)
    made = run(finetune, tmp_path / "made", **world, **QUICK)
    assert made.record["resumed"] == 1
    assert [row["step"] for row in rows(made)] == list(range(1 + made.summary["steps"]))


@pytest.mark.parametrize("method", METHODS)
def test_the_documents_are_learned(method: str, world: dict[str, Artifact], tmp_path: Path) -> None:
    settings = LONG | {"method": method}
    made = run(finetune, tmp_path / "made", **world, **settings)
    seen = [row["heldout_loss"] for row in rows(made) if "heldout_loss" in row]
    assert seen[-1] < seen[0] - (0.1 if method == "prefix" else 0.5)
    assert (made.path / store.ADAPTER_WEIGHTS).exists() is (method != "full")
    assert (made.path / store.WEIGHTS).exists() is (method == "full")
    assert conversation.load(made.path).template == conversation.load(world["model"].path).template
    documents = examples.from_documents(_heldout(world["corpus"]), conversation.load(made.path), 64)
    with torch.no_grad():
        batch = pack(documents)
        loss = next_token(store.load(made.path), batch).item() / batch.weight
    assert loss == pytest.approx(seen[-1], rel=0.05)


def _heldout(made: Artifact) -> list[Any]:
    from matura.core.records import read_documents

    return list(read_documents(made.file("heldout.parquet")))


def test_every_update_holds_its_share_of_replay(world: dict[str, Artifact]) -> None:
    values = {**{name: str(one.path) for name, one in world.items()}, **QUICK}
    values |= {"tokens_per_step": 512, "sequence": 128, "replay_share": 0.25}
    values = {name: one for name, one in values.items() if name not in ("prefix", "bottleneck")}
    config = parse(finetune.Config, values, "test")
    format = conversation.load(world["model"].path)
    model = store.load(world["model"].path)
    lesson = finetune._writing(config, dict(world), model, model, format)
    batches, counts = lesson.batches, lesson.counts
    assert counts["replay_examples"] == 12
    main, replay = batches.sources
    for _ in range(60):
        sizes = [sum(len(example.ids) - 1 for example in source.next()) for source in (main, replay)]
        assert 0 < sizes[0] <= 384
        assert 0 < sizes[1] <= 128
    share = replay.mean_tokens / batches.mean_tokens
    assert 0.15 < share < 0.3
    assert counts["fill"] == [round(main.mean_tokens / 384, 4), round(replay.mean_tokens / 128, 4)]


def test_a_corpus_is_replayed_beside_conversations_and_the_meter_reads_what_it_holds_out(
    world: dict[str, Artifact], tmp_path: Path
) -> None:
    given = {"model": world["model"], "conversations": world["replay"], "replay": world["corpus"]}
    made = run(finetune, tmp_path / "a", **given, **QUICK, replay_share=0.5)
    assert made.summary["replay_examples"] > 0
    assert made.summary["replay_examples"] != made.summary["examples"]
    looks = [row for row in rows(made) if "general_bpb" in row]
    assert looks[0]["general_bpb"] > 0
    alone = run(finetune, tmp_path / "b", **given, **QUICK, replay_share=0)
    assert (made.path / "adapter.safetensors").read_bytes() != (
        alone.path / "adapter.safetensors"
    ).read_bytes()


def test_without_replay_or_with_none_of_it_nothing_is_mixed(
    world: dict[str, Artifact], tmp_path: Path
) -> None:
    alone = {"model": world["model"], "corpus": world["corpus"]}
    made = run(finetune, tmp_path / "a", **alone, **QUICK)
    assert "replay_examples" not in made.summary
    assert len(made.summary["epochs"]) == 1
    none = run(finetune, tmp_path / "b", **world, **QUICK, replay_share=0)
    assert none.file(store.ADAPTER_WEIGHTS).read_bytes() == made.file(store.ADAPTER_WEIGHTS).read_bytes()


def test_conversations_train_the_answers_only(world: dict[str, Artifact], tmp_path: Path) -> None:
    talks = conversations(tmp_path / "talks", list(map(talk, range(12))), [talk(30), talk(31)])
    settings = LONG | {"tokens": 5000}
    made = run(finetune, tmp_path / "made", model=world["model"], conversations=talks, **settings)
    assert made.summary["examples"] == 12
    assert made.summary["dropped_rows"] == 0
    seen = [row["heldout_loss"] for row in rows(made) if "heldout_loss" in row]
    assert seen[-1] < seen[0] - 1
    cut = run(
        finetune, tmp_path / "cut", model=world["model"], conversations=talks, **QUICK | {"sequence": 50}
    )
    assert cut.summary["dropped_rows"] + cut.summary["examples"] == 12
    assert sum(cut.summary["dropped"].values()) == cut.summary["dropped_rows"]


def test_a_system_prompt_is_computed_once_for_a_row_but_not_with_dropout(
    world: dict[str, Artifact], tmp_path: Path
) -> None:
    talks = conversations(tmp_path / "talks", list(map(talk, range(12))), [talk(30)])
    inputs = {"model": world["model"], "conversations": talks}
    format = conversation.load(world["model"].path)
    for dropout, shared in ((0.0, True), (0.1, False)):
        values = {**{name: str(one.path) for name, one in inputs.items()}, "tokens_per_step": 256}
        values |= {"meter_every": 0, "lora": {"dropout": dropout}}
        config = parse(finetune.Config, values, "test")
        model, parent = preparing.prepare(config, world["model"].path, format)
        batch = next(finetune._writing(config, dict(inputs), model, parent, format).batches)
        assert any(parent is not None for parent in batch.mask.parents) == shared
        assert (batch.ids_1T.shape[1] < batch.tokens) == shared


def own_file(path: Path, rows: int = 12, **more: Any) -> RawInput:
    """A file of questions with answers, as a person has it."""
    found = [{"prompt": f"say {n}", "completion": f"hello hello {n}", **more} for n in range(rows)]
    path.write_text("".join(json.dumps(one) + "\n" for one in found))
    return raw_input(path)


def test_a_file_of_ones_own_is_learned_and_ends_the_lineage(
    world: dict[str, Artifact], tmp_path: Path
) -> None:
    raw = own_file(tmp_path / "mine.jsonl")
    settings = LONG | {"tokens": 3000, "data": {"heldout": 3}}
    made = run(finetune, tmp_path / "made", model=world["model"], conversations=raw, **settings)
    assert made.inputs["conversations"]["id"] == raw.id
    assert made.inputs["conversations"]["files"]["mine.jsonl"]["sha256"]
    assert (made.summary["examples"], made.summary["heldout_rows"]) == (9, 3)
    seen = [row["heldout_loss"] for row in rows(made) if "heldout_loss" in row]
    assert seen[-1] < seen[0] - 1


def test_a_file_is_the_artifact_with_the_same_rows(world: dict[str, Artifact], tmp_path: Path) -> None:
    raw = own_file(tmp_path / "mine.jsonl")
    made = conversations(tmp_path / "made", list(map(talk, range(12))), [])
    settings = QUICK | {"tokens": 600, "meter_every": 0}
    one = run(
        finetune, tmp_path / "a", model=world["model"], conversations=raw, **settings, data={"heldout": 0}
    )
    other = run(finetune, tmp_path / "b", model=world["model"], conversations=made, **settings)
    assert one.file(store.ADAPTER_WEIGHTS).read_bytes() == other.file(store.ADAPTER_WEIGHTS).read_bytes()


def test_settings_of_files_are_refused_for_artifacts(world: dict[str, Artifact], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.heldout is for files"):
        run(finetune, tmp_path / "a", **world, **QUICK, data={"heldout": 3})


@pytest.mark.parametrize(
    ("stage", "setting"),
    [
        (finetune, "conversations"),
        (evaluate, "conversations"),
        (evaluate, "folder"),
        (merge, "front.conversations"),
        (prompt, "examples"),
    ],
)
@pytest.mark.parametrize("far", ["hf:some/dataset", "https://example.org/talks.jsonl"])
def test_where_files_are(
    stage: Any, setting: str, far: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is learned from can be examined, merged and shown from the same place."""
    asked: list[str] = []

    def fetch(path: str, downloads: Path, *, max_bytes: int) -> Path:
        asked.append(path)
        assert max_bytes == 64 << 30
        return downloads / "there"

    monkeypatch.setattr("matura.data.reading.fetch", fetch)
    place = Workspace(tmp_path)
    for given, found in (
        (far, place.downloads / "there"),
        (str(tmp_path / "a.jsonl"), tmp_path / "a.jsonl"),
    ):
        group, _, name = setting.rpartition(".")
        values = {group: {name: given, "alphas": [1]}} if group else {name: given}
        config = parse(stage.Config, values if stage is prompt else {"model": "m", **values}, "test")
        assert stage.raw_input(config, setting, place) == found
    assert asked == [far]


def test_the_meter_weighs_tokens_and_is_what_training_sees(world: dict[str, Artifact]) -> None:
    """T38: no mean of the rows' means; and the held-out loss comes from the code that trains."""
    format, model = conversation.load(world["model"].path), store.load(world["model"].path)
    talks = [talk(1, "a"), talk(2, "a very much longer answer than that"), talk(3, "hello")]
    made = examples.from_conversations(talks, format, 200).examples
    seen = Looks(pack(made))(model)["heldout_loss"]
    with torch.no_grad():
        losses = [next_token(model, pack([example])).item() for example in made]
    lengths = [example.trained for example in made]
    assert seen == pytest.approx(sum(losses) / sum(lengths), rel=1e-5)
    means = [loss / n for loss, n in zip(losses, lengths, strict=True)]
    assert seen != pytest.approx(sum(means) / len(means), rel=1e-3)


@pytest.mark.parametrize("kind", ["corpus", "replay", "conversations"])
def test_an_empty_held_out_part_is_no_reason_to_fail(
    kind: str, world: dict[str, Artifact], tmp_path: Path
) -> None:
    given: dict[str, Artifact] = {"model": world["model"]}
    if kind != "conversations":
        given["corpus"] = corpus(tmp_path / "corpus", 4, 0) if kind == "corpus" else world["corpus"]
    if kind != "corpus":
        texts = [Conversation(f"t{n}", (), f"text {n}") for n in range(4)]
        given[kind] = conversations(tmp_path / "talks", [*map(talk, range(4)), *texts], [])
    made = run(finetune, tmp_path / "made", **given, **QUICK)
    assert made.summary["steps"] > 0


def test_nothing_to_learn_from_is_told(world: dict[str, Artifact], tmp_path: Path) -> None:
    empty = corpus(tmp_path / "empty", 3, 3)
    with pytest.raises(MaturaError, match="there is nothing to learn from"):
        run(finetune, tmp_path / "a", model=world["model"], corpus=empty, **QUICK)
    long = conversations(tmp_path / "long", [talk(1, "x" * 400)], [])
    with pytest.raises(MaturaError, match="there is nothing to learn from"):
        run(finetune, tmp_path / "b", model=world["model"], conversations=long, **QUICK | {"sequence": 8})
    with pytest.raises(MaturaError, match="there is nothing to replay"):
        run(finetune, tmp_path / "c", **world, **QUICK | {"replay_share": 0.01})


def test_settings_that_contradict_each_other_are_refused(world: dict[str, Artifact], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="either a corpus or conversations"):
        run(finetune, tmp_path / "a", model=world["model"], **QUICK)
    with pytest.raises(ConfigError, match="either a corpus or conversations"):
        run(finetune, tmp_path / "b", **world, conversations=world["replay"], **QUICK)


@pytest.mark.parametrize("data", [{"turns": "last"}, {"truncation": "drop"}])
def test_settings_of_conversations_are_refused_for_documents_alone(data: dict[str, str]) -> None:
    (name,) = data
    with pytest.raises(ConfigError, match=rf"data\.{name} is for conversations"):
        parse(finetune.Config, {"model": "m", "corpus": "c", "data": data}, "test")
    parse(finetune.Config, {"model": "m", "corpus": "c", "replay": "r", "data": data}, "test")
    parse(finetune.Config, {"model": "m", "conversations": "c", "data": data}, "test")


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_parent_with_updates_must_be_merged_first(
    method: str, world: dict[str, Artifact], tmp_path: Path
) -> None:
    tuned = run(finetune, tmp_path / "tuned", **world, **QUICK | {"tokens": 128})
    with pytest.raises(ConfigError, match="has LoRA updates already: merge it first"):
        run(finetune, tmp_path / "again", **world | {"model": tuned}, **QUICK, method=method)


def test_the_origin_of_the_weights_is_passed_on(world: dict[str, Artifact], tmp_path: Path) -> None:
    world["model"].record["summary"]["source_quantization"] = "Q4_1"
    try:
        made = run(finetune, tmp_path / "made", **world, **QUICK | {"tokens": 128})
    finally:
        world["model"].record["summary"]["source_quantization"] = None
    assert made.summary["source_quantization"] == "Q4_1"


def test_t31_an_adapter_names_the_base_that_it_saw(world: dict[str, Artifact], tmp_path: Path) -> None:
    """T31: packed while it was trained, packed when it is loaded; what it answers is what the meter saw."""
    base = {"format": "int4", "group": 32}
    made = run(finetune, tmp_path / "made", **world, **LONG, base=base)
    settings = store.adapter_settings(made.path)
    assert settings is not None
    assert settings.base.model_dump() == base
    model = store.load(made.path)
    assert sum(isinstance(module, Int4Linear) for module in model.modules()) == 14
    seen = [row["heldout_loss"] for row in rows(made) if "heldout_loss" in row]
    assert seen[-1] < seen[0] - 0.5
    documents = examples.from_documents(_heldout(world["corpus"]), conversation.load(made.path), 64)
    batch = pack(documents)
    with torch.no_grad():
        ready = store.load_for_inference(made.path)
        losses = [next_token(one, batch).item() / batch.weight for one in (model, ready)]
    assert losses == [pytest.approx(seen[-1], rel=0.05)] * 2
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert not any(isinstance(module, Int4Linear) for module in ready.modules())


def test_t40_the_defaults_of_a_method_change_something(world: dict[str, Artifact], tmp_path: Path) -> None:
    """T40: with no learning rate given, LoRA and the others move a tiny model in a few steps; each has its own rate."""
    few = {name: value for name, value in LONG.items() if name != "optimizer"}
    for method in METHODS:
        made = run(finetune, tmp_path / method, **world, **few, method=method)
        seen = [row["heldout_loss"] for row in rows(made) if "heldout_loss" in row]
        assert seen[-1] < seen[0] - 0.03, method
        rates = [row["lr"] for row in rows(made) if "lr" in row]
        assert max(rates) == RATES[method]
    assert RATES["lora"] == 10 * RATES["full"]


def test_a_vocabulary_grows_by_what_the_documents_repeat(world: dict[str, Artifact], tmp_path: Path) -> None:
    settings = QUICK | {
        "method": "full",
        "vocabulary": {"add": 12, "min_count": 8},
        "optimizer": {"lr": 1e-3},
    }
    made = run(finetune, tmp_path / "made", **world, **settings)
    assert made.summary["vocabulary"]["added"] == 12
    assert made.summary["vocabulary"]["fewer_tokens"] > 0.2
    model, format = store.load(made.path), conversation.load(made.path)
    assert model.config.vocabulary == format.tokenizer.vocab_size == VOCABULARY + 12
    parent = conversation.load(world["model"].path)
    text = _heldout(world["corpus"])[0].text
    assert len(format.tokenizer.encode(text)) < 0.8 * len(parent.tokenizer.encode(text))
    seen = [row["general_bpb"] for row in rows(made) if "general_bpb" in row]
    assert len(seen) > 2
    with killed_after(3):
        run(finetune, tmp_path / "killed", **world, **settings)
    assert run(finetune, tmp_path / "killed", **world, **settings).id == made.id
    plain = run(finetune, tmp_path / "plain", **world, **settings | {"vocabulary": {}})
    assert "vocabulary" not in plain.summary
    values = {name: str(one.path) for name, one in world.items()} | {"method": "full"}
    shown, before = (
        finetune.audit(parse(finetune.Config, values | more, "test"), dict(world), 1)
        for more in ({"vocabulary": settings["vocabulary"]}, {})
    )
    assert shown.tokens < before.tokens


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"corpus": "c", "vocabulary": {"add": 5}}, "give corpus and method=full"),
        ({"conversations": "c", "method": "full", "vocabulary": {"add": 5}}, "give corpus and method=full"),
        ({"corpus": "c", "method": "full", "vocabulary": {"min_count": 5}}, "min_count would do nothing"),
    ],
)
def test_a_vocabulary_that_cannot_grow_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(finetune.Config, {"model": "m", **values}, "test")


def test_a_prefix_begins_as_its_text(world: dict[str, Artifact], tmp_path: Path) -> None:
    settings = QUICK | {"prefix": {"tokens": 6, "text": ""}}
    with pytest.raises(ConfigError, match=r"prefix.text: '' holds no token"):
        run(finetune, tmp_path / "a", **world, **settings, method="prefix")
    made = run(finetune, tmp_path / "b", **world, **QUICK, method="prefix")
    assert store.load(made.path).config.context == store.load(world["model"].path).config.context - 6


@pytest.mark.parametrize("method", ["prefix", "bottleneck"])
def test_an_adapter_is_no_parent(method: str, world: dict[str, Artifact], tmp_path: Path) -> None:
    tuned = run(finetune, tmp_path / "tuned", **world, **QUICK | {"tokens": 128}, method=method)
    with pytest.raises(ConfigError, match="is an adapter already; take its parent"):
        run(finetune, tmp_path / "again", **world | {"model": tuned}, **QUICK)


def test_full_tuning_leaves_frozen_layers_as_they_were(world: dict[str, Artifact], tmp_path: Path) -> None:
    freeze = {"embeddings": True, "layers": 1}
    made = run(finetune, tmp_path / "made", **world, **QUICK, method="full", freeze=freeze)
    before, after = (store.load(one.path).state_dict() for one in (world["model"], made))
    same = {name for name, tensor in before.items() if torch.equal(tensor, after[name])}
    assert same == {n for n in before if n.startswith(("embed.", "decoder.blocks.0."))}


@pytest.mark.parametrize("method", ["lora", "prefix"])
def test_no_example_is_longer_than_what_the_model_reads(
    method: str, world: dict[str, Artifact], tmp_path: Path
) -> None:
    """Learned positions end with the context: a longer `sequence` is refused, the default is cut to it."""
    model, context = learned_positions(tmp_path / "model"), 40
    long = corpus(tmp_path / "long", text="hello " * 4 * context)
    settings = QUICK | {"method": method, "tokens": 4 * context, "tokens_per_step": 2 * context}
    room = context - (6 if method == "prefix" else 0)
    with pytest.raises(ConfigError, match=rf"at most {room} tokens at once.*take sequence={room} or less"):
        run(finetune, tmp_path / "a", model=model, corpus=long, **settings | {"sequence": room + 1})
    del settings["sequence"]
    made = run(finetune, tmp_path / "b", model=model, corpus=long, **settings)
    format = chatml()
    text = format.tokenizer.encode("hello " * 4 * context)
    assert made.summary["examples"] == 10 * -(-len(text) // (room - (format.begin_id is not None)))


def learned_positions(folder: Path, context: int = 40) -> Artifact:
    """A decoder whose positions are trained vectors, so that there are none after the last."""
    decoder = c.StackConfig(
        layers=1,
        width=16,
        attention=c.Attention(heads=2, kv_heads=2, head_width=8),
        mlp=c.GELU(hidden=32),
        norm=c.LayerNorm(),
        position=c.Learned(),
    )
    config = c.ModelConfig(vocabulary=VOCABULARY, context=context, decoder=decoder)
    draft = artifact.begin(folder, kind="model", stage="pull", version=1, config={}, inputs={})
    store.save(draft.path, Transformer(config).initialize(0))
    chatml().save(draft.path)
    return draft.commit({})
