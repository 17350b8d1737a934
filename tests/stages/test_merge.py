"""Merging: one plain model that says what its parent with updates said."""

from pathlib import Path

import pytest
import torch

from matura.core import artifact
from matura.core.artifact import Artifact
from matura.core.errors import MaturaError
from matura.core.peft_settings import LoraConfig, Tuning
from matura.model import store
from matura.model.peft.lora import apply_lora, lora_state
from matura.stages import merge
from matura.tokenizer import conversation
from tests.tiny_models import chatml, network, pulled, run, talk


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
    store.save_adapter(draft.path, model, Tuning(lora=config))
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
