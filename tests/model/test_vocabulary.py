"""Rows for new tokens: means of what they stand for, and nothing else moves."""

import pytest
import torch

from matura.model import config as c
from matura.model.heads import LanguageHead
from matura.model.transformer import Transformer
from matura.model.vocabulary import grow
from tests.model.tiny import build, llama_config, some_ids

PIECES = {97: (3, 4), 99: (5, 6, 7)}


def logits(model: Transformer, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model.decode(ids))


@pytest.mark.parametrize("tied", [True, False])
def test_old_ids_are_read_and_scored_as_before_and_new_ones_are_means(tied: bool) -> None:
    model, ids = build(llama_config(tied=tied)), some_ids(1, 9)
    before, table = logits(model, ids), model.embed.weight.detach().clone()
    assert grow(model, 100, PIECES) is model
    assert model.config.vocabulary == 100
    after = logits(model, ids)
    assert after.shape[-1] == 100
    torch.testing.assert_close(after[..., :97], before, rtol=0, atol=1e-12)
    torch.testing.assert_close(after[..., 97], before[..., [3, 4]].mean(-1))
    torch.testing.assert_close(after[..., 99], before[..., [5, 6, 7]].mean(-1))
    assert torch.equal(model.embed.weight[99], table[[5, 6, 7]].mean(0))
    assert model.embed.weight.requires_grad
    again = Transformer(model.config).double()
    again.load_state_dict(model.state_dict())
    assert torch.equal(logits(again, torch.tensor([[97, 3, 99]])), logits(model, torch.tensor([[97, 3, 99]])))


def test_rows_that_are_there_already_are_used_and_a_bias_grows_too() -> None:
    padded = llama_config(tied=False)
    padded = padded.model_copy(update={"head": c.LanguageHead(tied=False, bias=True)})
    model = build(padded)
    head = model.head
    assert isinstance(head, LanguageHead)
    assert head.bias is not None
    with torch.no_grad():
        head.bias.normal_()
    expected = head.bias[[1, 2]].mean()
    grow(model, 50, {40: (1, 2)})
    assert model.config.vocabulary == len(model.embed.weight) == 97
    assert head.bias[40] == expected
    grow(model, 98, {97: (1, 2)})
    assert head.bias.shape == (98,)
    assert head.bias[97] == expected
