"""Merging: one plain model that says what its parent with updates said. Trap: T31 (what the updates are added to)."""

from pathlib import Path

import pytest
import torch

from matura.core import artifact
from matura.core.artifact import Artifact
from matura.core.config import parse
from matura.core.errors import ConfigError, MaturaError
from matura.core.peft_settings import BaseConfig, LoraConfig, Tuning
from matura.model import store
from matura.model.peft import tuning
from matura.model.peft.adapter import attach, lora_updates
from matura.model.peft.lora import merge_lora
from matura.model.transformer import Transformer
from matura.stages import merge
from matura.tokenizer import conversation
from tests.tiny_models import adapted, chatml, network, pulled, run, talk


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


def test_t31_updates_of_a_packed_base_are_added_to_what_it_stands_for(tmp_path: Path) -> None:
    """T31: merged into the parent's float weights instead, the model is another, and the report says by how much."""
    settings = Tuning(lora=LoraConfig(rank=2, targets=("q", "up")), base=BaseConfig(format="int4", group=32))
    child = adapted(tmp_path / "child", pulled(tmp_path), settings)
    before = logits(store.load(child.path))
    made = run(merge, tmp_path / "merged", model=child)
    after = logits(store.load(made.path))
    assert (after - before).abs().max() < 1e-4 * before.abs().max()
    assert made.summary["base"] == "seen"
    with pytest.raises(MaturaError, match="merging moved a logit"):
        run(merge, tmp_path / "refused", model=child, base="float32")
    other = run(merge, tmp_path / "other", model=child, base="float32", tolerance=10)
    assert other.summary["relative_logit_change"] > 0.01
    plain = merge_lora(attach(network(), store.read_adapter(child.path)))
    torch.testing.assert_close(logits(store.load(other.path)), logits(plain), rtol=1e-5, atol=1e-4)


def test_several_updates_are_added_with_their_weights(tmp_path: Path) -> None:
    parent = pulled(tmp_path)
    first = adapted(tmp_path / "first", parent, Tuning(lora=LoraConfig(rank=2)), seed=1)
    narrow = LoraConfig(rank=3, targets=("q", "down"), alpha=5, rank_stabilized=True)
    second = adapted(tmp_path / "second", parent, Tuning(lora=narrow), seed=2)
    config = parse(
        merge.Config,
        {"model": str(first.path), "weight": 0.5, "more": {"b": {"model": str(second.path), "weight": -2}}},
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
        merge._summed(config, {"model": first, "more.b.model": second})


@pytest.mark.parametrize("method", ["prefix", "bottleneck"])
def test_what_is_no_sum_is_not_merged(method: str, tmp_path: Path) -> None:
    settings = parse(Tuning, {"method": method, "bottleneck": {"reduction": 4}}, "test")
    child = adapted(tmp_path / "child", pulled(tmp_path), settings)
    with pytest.raises(ConfigError, match=f"method={method} is no sum with weights"):
        run(merge, tmp_path / "merged", model=child)
