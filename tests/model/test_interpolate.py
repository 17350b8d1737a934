"""The line between two models: both ends exactly, every point the mixture, and no weight of theirs touched."""

import copy

import pytest
import torch

from matura.core.errors import FormatError
from matura.core.peft_settings import LoraConfig, Tuning
from matura.model.interpolate import along_updates, between
from matura.model.peft.adapter import taken
from matura.model.peft.lora import apply_lora, lora_state, merge_lora
from matura.model.transformer import Transformer
from tests.model.tiny import build, llama_config


def test_both_ends_are_the_models_bit_for_bit_and_neither_is_touched() -> None:
    parent, child = build(llama_config(), seed=0), build(llama_config(), seed=1)
    before = [copy.deepcopy(one.state_dict()) for one in (parent, child)]
    line = between(parent, child)
    for alpha, end in ((0.0, before[0]), (1.0, before[1])):
        assert all(torch.equal(end[name], tensor) for name, tensor in line(alpha).state_dict().items())
    middle = line(0.3).state_dict()
    for name, tensor in middle.items():
        expected = 0.7 * before[0][name] + 0.3 * before[1][name]
        torch.testing.assert_close(tensor, expected, rtol=1e-12, atol=1e-12)
    for one, kept in zip((parent, child), before, strict=True):
        assert all(torch.equal(kept[name], tensor) for name, tensor in one.state_dict().items())


def test_scaled_updates_are_the_same_line() -> None:
    parent, child = build(llama_config()), build(llama_config())
    settings = Tuning(lora=LoraConfig(rank=2))
    apply_lora(child, settings.lora, seed=1)
    with torch.no_grad():
        for tensor in lora_state(child).values():
            tensor.normal_(0, 0.2, generator=torch.Generator().manual_seed(1))
    adapter = taken(child, settings)
    line = between(parent, merge_lora(copy.deepcopy(child)))
    scaled = along_updates(parent, adapter)
    both = along_updates(parent, adapter, [(adapter, -0.5)])
    for alpha in (1.0, 0.0, 0.4):  # in any order
        torch.testing.assert_close(said(scaled(alpha)), said(line(alpha)), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(said(both(alpha)), said(scaled(alpha - 0.5)), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(said(scaled(0.0)), said(parent), rtol=1e-12, atol=1e-12)


def said(model: Transformer) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model.decode(torch.arange(12)[None]))


def test_models_of_other_shapes_have_no_line_between_them() -> None:
    with pytest.raises(FormatError, match=r"weights of different shapes \(embed\.weight\)"):
        between(build(llama_config()), build(llama_config(vocabulary=98)))
