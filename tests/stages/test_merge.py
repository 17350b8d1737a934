"""Merging: one plain model that says what its parent with updates said. Trap: T31 (what the updates are added to)."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from matura.core import artifact
from matura.core.artifact import Artifact
from matura.core.config import check, parse
from matura.core.conversation_settings import ConversationData
from matura.core.errors import ConfigError, FormatError, MaturaError
from matura.core.peft_settings import BaseConfig, LoraConfig, Tuning
from matura.core.raw import raw_input
from matura.core.records import Conversation
from matura.core.wheels import EXAMS
from matura.data.conversations import load
from matura.model import store
from matura.model.peft import tuning
from matura.model.peft.adapter import attach, lora_updates
from matura.model.peft.lora import merge_lora
from matura.model.transformer import Transformer
from matura.stages import merge
from matura.tokenizer import conversation
from matura.train import examples
from matura.train.meter import Meter, Text
from tests.stages.pictures import MARK
from tests.tiny_models import adapted, chatml, conversations, corpus, make, network, pulled, run, talk


@pytest.fixture
def tuned(tmp_path: Path) -> Artifact:
    """A model with large updates."""
    return adapted(
        tmp_path / "tuned", pulled(tmp_path), Tuning(lora=LoraConfig(rank=2)), source_quantization="Q4_1"
    )


def logits(model: Transformer) -> torch.Tensor:
    ids = torch.tensor([chatml().prompt(talk(1).messages)])
    with torch.no_grad():
        return model.logits(model.decode(ids))


def test_the_merged_model_stands_alone_and_says_the_same(tuned: Artifact, tmp_path: Path) -> None:
    ids = torch.tensor([chatml().prompt(talk(1).messages)])
    with torch.no_grad():
        child, parent = store.load(tuned.path), store.load(tmp_path / "tiny")
        expected = child.logits(child.decode(ids))
        before = parent.logits(parent.decode(ids))
    made = run(merge, tmp_path / "merged", model=tuned)
    (tmp_path / "tiny").rename(tmp_path / "gone")
    model = store.load(made.path)
    with torch.no_grad():
        found = model.logits(model.decode(ids))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    assert (found - before).abs().max() > 0.1
    assert store.adapter_settings(made.path) is None
    assert set(model.state_dict()) == set(network().state_dict())
    assert made.summary["largest_logit_change"] < 1e-3
    assert made.summary["relative_logit_change"] < 1e-5
    assert made.summary["mean_logit_change"] <= made.summary["largest_logit_change"]
    assert made.summary["same_choice"] == 1
    assert made.summary["positions"] == len(chatml().tokenizer.encode(merge.PROBE)) + 64
    assert made.summary["source_quantization"] == "Q4_1"
    assert conversation.load(made.path).prompt(talk(1).messages) == ids[0].tolist()


def test_a_plain_model_has_nothing_to_merge(tmp_path: Path) -> None:
    with pytest.raises(MaturaError, match="has no LoRA updates: there is nothing to merge"):
        run(merge, tmp_path / "merged", model=pulled(tmp_path))


def test_logits_that_move_are_refused(
    tuned: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: Transformer) -> Transformer:
        with torch.no_grad():
            model.embed.weight.mul_(1.01)
        return merge_lora(model)

    monkeypatch.setattr(tuning, "merge", broken)
    with pytest.raises(MaturaError, match=r"merging moved a logit by .*, more than tolerance=0\.0001"):
        run(merge, tmp_path / "merged", model=tuned)
    assert not (tmp_path / "merged" / "artifact.json").exists()


def whole_child(place: Path, parent: Artifact, scale: float = 0.02) -> Artifact:
    """A model of which every weight was tuned."""
    model = network()
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw), alpha=scale)
    inputs = {"model": parent}
    draft = artifact.begin(place, kind="model", stage="finetune", version=1, config={}, inputs=inputs)
    store.save(draft.path, model)
    chatml().save(draft.path)
    return draft.commit({})


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_a_share_of_the_updates_is_that_share_of_the_way(
    alpha: float, tuned: Artifact, tmp_path: Path
) -> None:
    parent = dict(store.load(tmp_path / "tiny").named_parameters())
    full = dict(store.load(run(merge, tmp_path / "full", model=tuned).path).named_parameters())
    made = run(merge, tmp_path / "merged", model=tuned, alpha=alpha)
    assert made.summary["alpha"] == alpha
    assert made.summary["largest_logit_change"] < 1e-3
    for name, weight in store.load(made.path).named_parameters():
        torch.testing.assert_close(weight, torch.lerp(parent[name], full[name], alpha), rtol=1e-5, atol=1e-6)
        assert alpha != 0 or torch.equal(weight, parent[name])


@pytest.mark.parametrize("given", [False, True])
def test_a_whole_model_goes_back_towards_what_it_was_tuned_from(given: bool, tmp_path: Path) -> None:
    parent = pulled(tmp_path)
    child = whole_child(tmp_path / "child", parent)
    ends = [dict(store.load(one.path).named_parameters()) for one in (parent, child)]
    inputs = {"model": child, **({"parent": parent} if given else {})}
    for alpha in (0.0, 0.25, 0.7):
        made = run(merge, tmp_path / f"at-{alpha}", **inputs, alpha=alpha)
        assert f"at alpha {alpha:g}" in made.summary["line"]
        for name, weight in store.load(made.path).named_parameters():
            expected = (1 - alpha) * ends[0][name] + alpha * ends[1][name]
            torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-7)
            assert alpha != 0 or torch.equal(weight, ends[0][name])


def test_a_parent_that_does_not_fit_is_told(tuned: Artifact, tmp_path: Path) -> None:
    parent = pulled(tmp_path, model=network(layers=1), name="short")
    child = whole_child(tmp_path / "child", parent)
    with pytest.raises(FormatError, match="weights of different shapes"):
        run(merge, tmp_path / "a", model=child, alpha=0.5)
    alone = pulled(tmp_path, name="alone")
    with pytest.raises(ConfigError, match="does not say what it was tuned from: give parent"):
        run(merge, tmp_path / "b", model=alone, alpha=0.5)
    with pytest.raises(ConfigError, match="parent is for whole models"):
        run(merge, tmp_path / "c", model=tuned, parent=alone, alpha=0.5)


def test_settings_of_updates_are_refused_for_whole_models(tmp_path: Path) -> None:
    child = whole_child(tmp_path / "child", pulled(tmp_path))
    for name, value in {"base": "float32", "text": "hello", "new_tokens": 3, "tolerance": 1.0}.items():
        with pytest.raises(ConfigError, match=f"{name} is for LoRA updates, and .*child has none"):
            run(merge, tmp_path / "a", model=child, alpha=0.5, **{name: value})


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("kind", ["updates", "updates of 4 bits", "whole"])
def test_the_front_shows_what_each_alpha_costs(kind: str, tuned: Artifact, tmp_path: Path) -> None:
    parent, child, base = artifact.load(tmp_path / "tiny"), tuned, BaseConfig()
    if kind == "whole":
        child = whole_child(tmp_path / "child", parent)
    elif kind != "updates":
        base = BaseConfig(format="int4", group=32)
        child = adapted(tmp_path / "child", parent, Tuning(lora=LoraConfig(rank=2), base=base))
    texts = [Conversation(f"t{n}", (), f"some general text number {n} that is held out") for n in range(6)]
    replay = conversations(tmp_path / "replay", texts, texts)
    front = {"alphas": [1, 0, 0.5], "replay": str(replay.path), "corpus": str(tmp_path / "corpus")}
    inputs = {"model": child, "front.corpus": corpus(tmp_path / "corpus"), "front.replay": replay}
    config = parse(merge.Config, {"model": str(child.path), "alpha": 0.5, "front": front}, "test")
    draft = artifact.begin(
        tmp_path / "made", kind="model", stage="merge", version=2, config=config, inputs=inputs
    )
    made = merge.run(config, inputs, draft)
    rows = made.summary["front"]
    assert [row["alpha"] for row in rows] == [0, 0.5, 1]
    assert rows[0]["task_change"] == rows[0]["general_change"] == rows[0]["general_kl"] == 0
    assert rows[1]["general_kl"] < rows[2]["general_kl"]
    made_of = examples.from_conversations(texts, chatml(), 512).examples
    meter = Meter(Text.of(made_of, chatml().tokenizer), store.load(tmp_path / "tiny", base=base))
    there = meter.read(store.load(made.path))
    assert there.bpb == pytest.approx(rows[1]["general_bpb"], rel=1e-5)
    assert there.kl == pytest.approx(rows[1]["general_kl"], rel=1e-3)
    page = made.file("report.html").read_text()
    assert MARK in page
    assert "alpha 0.5" in page
    assert json.loads(made.file("front.json").read_text())["rows"] == rows
    assert "task " in made.summary["line"]


@pytest.mark.usefixtures("drawn")
def test_rows_of_a_file_are_held_out_as_the_training_held_them_out(tmp_path: Path) -> None:
    path, data = tmp_path / "mine.jsonl", {"columns": {"prompt": "q", "completion": "a"}, "heldout": 3}
    path.write_text("".join(json.dumps({"q": f"say {n}", "a": f"hello {n * n}"}) + "\n" for n in range(12)))
    parent, settings = pulled(tmp_path), Tuning(lora=LoraConfig(rank=2))
    draft = artifact.begin(
        tmp_path / "child",
        kind="model",
        stage="finetune",
        version=1,
        config={"data": data},
        inputs={"model": parent},
    )
    store.save_adapter(draft.path, tuning.apply(network(), settings), settings)
    chatml().save(draft.path)
    replay = conversations(tmp_path / "replay", [], [talk(n) for n in range(4)])
    front = {"alphas": [0, 1], "conversations": str(path), "replay": str(replay.path)}
    inputs = {"model": draft.commit({}), "front.conversations": raw_input(path), "front.replay": replay}
    config = parse(merge.Config, {"model": "m", "front": front}, "test")
    first = make(merge, tmp_path / "made", config, inputs).summary["front"][0]
    heldout = load(path, ConversationData(**data)).heldout
    assert len(heldout) == 3
    made_of = examples.from_conversations(heldout, chatml(), 512).examples
    meter = Meter(Text.of(made_of, chatml().tokenizer), store.load(parent.path))
    assert first["task_bpb"] == pytest.approx(meter.parent.bpb, rel=1e-6)


@pytest.mark.parametrize(
    ("front", "message"),
    [
        (
            {"alphas": [0.5, 1.5], "corpus": "c"},
            "alphas must be from 0 (the parent) to 1 (the child), not 1.5",
        ),
        ({"alphas": [0.5]}, "give either corpus or conversations"),
        ({"corpus": "c"}, "nothing is measured without alphas"),
        ({"tokens": 100}, "nothing is measured without alphas"),
    ],
)
def test_a_front_that_cannot_be_measured_is_refused(front: dict[str, Any], message: str) -> None:
    _, problems = check(merge.Config, {"model": "m", "front": front})
    assert message in " ".join(map(str, problems))


@pytest.mark.parametrize(
    ("talks", "replay", "message"),
    [
        ([], [talk(1)], "front.conversations: none of it is held out"),
        ([talk(1)], [], "front: there is no general text to measure on"),
    ],
)
def test_what_of_a_front_is_not_held_out_is_told(
    talks: list[Conversation], replay: list[Conversation], message: str, tmp_path: Path
) -> None:
    child = adapted(tmp_path / "child", pulled(tmp_path), Tuning(lora=LoraConfig(rank=2)))
    given = {
        "front.conversations": conversations(tmp_path / "talks", [talk(0)], talks),
        "front.replay": conversations(tmp_path / "replay", [talk(0)], replay),
    }
    front = {"alphas": [1], "conversations": "c", "replay": "r"}
    config = parse(merge.Config, {"model": "m", "front": front}, "test")
    with pytest.raises(MaturaError, match=message):
        make(merge, tmp_path / "made", config, {"model": child, **given})


def test_general_text_is_fetched_only_for_a_front_without_replay() -> None:
    def text(**front: Any) -> str | None:
        return parse(merge.Config, {"model": "m", "front": front}, "test").front.text

    assert text() is None
    assert text(alphas=[0.5], corpus="c", replay="r") is None
    assert text(alphas=[0.5], corpus="c") == EXAMS


@pytest.mark.usefixtures("drawn")
def test_t31_updates_of_a_packed_base_are_added_to_what_it_stands_for(tmp_path: Path) -> None:
    """T31: merged into the parent's float weights instead, the model is another, and the report says by how much, in
    logits and in bits of the task before and after."""
    settings = Tuning(lora=LoraConfig(rank=2, targets=("q", "up")), base=BaseConfig(format="int4", group=32))
    child = adapted(tmp_path / "child", pulled(tmp_path), settings)
    held = [talk(n, "hello you") for n in range(9)]
    talks = conversations(tmp_path / "talks", [], held)
    values = {"alphas": [1], "conversations": str(talks.path), "replay": str(talks.path)}
    inputs = {"model": child, "front.conversations": talks, "front.replay": talks}

    def merged(name: str, **more: Any) -> Artifact:
        config = parse(merge.Config, {"model": str(child.path), "front": values, **more}, "test")
        return make(merge, tmp_path / name, config, inputs)

    task = Text.of(examples.from_conversations(held, chatml(), 512).examples, chatml().tokenizer)
    tuned = Meter(task, store.load(child.path)).parent.bpb
    before = logits(store.load(child.path))
    made = merged("merged")
    after = logits(store.load(made.path))
    assert (after - before).abs().max() < 1e-4 * before.abs().max()
    assert made.summary["base"] == "seen"
    assert made.summary["task_bpb_before"] == pytest.approx(tuned, rel=1e-6)
    assert made.summary["task_bpb_after"] == pytest.approx(tuned, rel=1e-5)
    with pytest.raises(MaturaError, match="merging moved a logit"):
        run(merge, tmp_path / "refused", model=child, base="float32")
    other = merged("other", base="float32", tolerance=10)
    assert other.summary["relative_logit_change"] > 0.01
    assert other.summary["task_bpb_before"] == made.summary["task_bpb_before"]
    after = Meter(task, store.load(other.path)).parent.bpb
    assert other.summary["task_bpb_after"] == pytest.approx(after, rel=1e-6)
    assert abs(after - tuned) > 1e-3 * tuned
    assert f"task {tuned:.4f} -> {after:.4f} bits per byte by merging" in other.summary["line"]
    plain = merge_lora(attach(network(), store.read_adapter(child.path)))
    torch.testing.assert_close(logits(store.load(other.path)), logits(plain), rtol=1e-5, atol=1e-4)


def test_several_updates_are_added_with_their_factors(tmp_path: Path) -> None:
    parent = pulled(tmp_path)
    first = adapted(tmp_path / "first", parent, Tuning(lora=LoraConfig(rank=2)), seed=1)
    narrow = LoraConfig(rank=3, targets=("q", "down"), alpha=5, rank_stabilized=True)
    second = adapted(tmp_path / "second", parent, Tuning(lora=narrow), seed=2)
    config = parse(
        merge.Config,
        {"model": str(first.path), "alpha": 0.5, "more": {"b": {"model": str(second.path), "alpha": -2}}},
        "test",
    )
    inputs = {"model": first, "more.b.model": second}
    draft = artifact.begin(
        tmp_path / "made", kind="model", stage="merge", version=1, config=config, inputs=inputs
    )
    made = merge.run(config, dict(inputs), draft)
    expected = network().state_dict()
    for weight, one in ((0.5, first), (-2, second)):
        for update in lora_updates(store.read_adapter(one.path)):
            expected[f"{update.name}.weight"] += weight * update.scale * update.b_OR @ update.a_RI
    found = store.load(made.path).state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-5)


def test_only_updates_of_one_parent_can_be_added(tmp_path: Path) -> None:
    first = adapted(tmp_path / "first", pulled(tmp_path, name="a"), Tuning())
    second = adapted(tmp_path / "second", pulled(tmp_path, name="b", model=network(seed=5)), Tuning())
    values = {"model": str(first.path), "more": {"b": {"model": str(second.path)}}}
    config = parse(merge.Config, values, "test")
    with pytest.raises(ConfigError, match="the adapters have different parents"):
        merge._adapters(config, {"model": first, "more.b.model": second})


@pytest.mark.parametrize("method", ["prefix", "bottleneck"])
def test_what_is_no_sum_is_not_merged(method: str, tmp_path: Path) -> None:
    more = {"bottleneck": {"reduction": 4}} if method == "bottleneck" else {}
    settings = parse(Tuning, {"method": method, **more}, "test")
    child = adapted(tmp_path / "child", pulled(tmp_path), settings)
    with pytest.raises(ConfigError, match=f"method={method} is no sum with weights"):
        run(merge, tmp_path / "merged", model=child)
