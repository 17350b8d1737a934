"""Merging: one plain model that says what its parent with updates said."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from matura.core import artifact
from matura.core.artifact import Artifact
from matura.core.config import check, parse
from matura.core.errors import ConfigError, FormatError, MaturaError
from matura.core.records import Conversation
from matura.core.settings import LoraConfig
from matura.core.wheels import EXAMS
from matura.model import store
from matura.model.peft.lora import apply_lora, lora_state
from matura.stages import merge
from matura.tokenizer import conversation
from matura.train import examples
from matura.train.meter import Meter, Text
from tests.tiny_models import chatml, conversations, corpus, network, pulled, run, talk


@pytest.fixture
def tuned(tmp_path: Path) -> Artifact:
    """A model with large updates."""
    parent, config, model = pulled(tmp_path), LoraConfig(rank=2), network()
    apply_lora(model, config)
    with torch.no_grad():
        for tensor in lora_state(model).values():
            tensor.normal_(0, 0.2, generator=torch.Generator().manual_seed(1))
    draft = artifact.begin(
        tmp_path / "tuned", kind="model", stage="finetune", version=1, config={}, inputs={"model": parent}
    )
    store.save_adapter(draft.path, model, config)
    chatml().save(draft.path)
    return draft.commit({"source_quantization": "Q4_1"})


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
    assert made.summary["source_quantization"] == "Q4_1"
    assert conversation.load(made.path).prompt(talk(1).messages) == ids[0].tolist()


def test_a_plain_model_has_nothing_to_merge(tmp_path: Path) -> None:
    with pytest.raises(MaturaError, match="has no LoRA updates: there is nothing to merge"):
        run(merge, tmp_path / "merged", model=pulled(tmp_path))


def test_logits_that_move_are_refused(
    tuned: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matura.model.peft import lora

    monkeypatch.setattr(lora, "merge_lora", lambda model: model.embed.weight.data.mul_(1.01))
    with pytest.raises(MaturaError, match=r"merging moved a logit by .*, more than tolerance=0\.001"):
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


@pytest.mark.parametrize("kind", ["updates", "whole"])
def test_the_front_shows_what_each_alpha_costs(kind: str, tuned: Artifact, tmp_path: Path) -> None:
    child = tuned if kind == "updates" else whole_child(tmp_path / "child", artifact.load(tmp_path / "tiny"))
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
    meter = Meter(Text.of(made_of, chatml().tokenizer), store.load(tmp_path / "tiny"))
    there = meter.read(store.load(made.path))
    assert there.bpb == pytest.approx(rows[1]["general_bpb"], rel=1e-5)
    assert there.kl == pytest.approx(rows[1]["general_kl"], rel=1e-3)
    page = made.file("report.html").read_text()
    assert "<svg" in page
    assert "alpha 0.5" in page
    assert json.loads(made.file("front.json").read_text())["rows"] == rows
    assert "task " in made.summary["line"]


@pytest.mark.parametrize(
    ("front", "message"),
    [
        (
            {"alphas": [0.5, 1.5], "corpus": "c"},
            "alphas must be from 0 (the parent) to 1 (the child), not 1.5",
        ),
        ({"alphas": [0.5]}, "give either corpus or conversations"),
        ({"corpus": "c"}, "nothing is measured without alphas"),
    ],
)
def test_a_front_that_cannot_be_measured_is_refused(front: dict[str, Any], message: str) -> None:
    _, problems = check(merge.Config, {"model": "m", "front": front})
    assert message in " ".join(map(str, problems))


def test_general_text_is_fetched_only_for_a_front_without_replay() -> None:
    def text(**front: Any) -> str | None:
        return parse(merge.Config, {"model": "m", "front": front}, "test").front.text

    assert text() is None
    assert text(alphas=[0.5], corpus="c", replay="r") is None
    assert text(alphas=[0.5], corpus="c") == EXAMS
