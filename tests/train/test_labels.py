"""Labels of packed texts: the same scores as alone, and the loss of its formula."""

import pytest
import torch

from matura.model import config as c
from matura.train.labels import Labelled, label_loss, pack_labels, scores
from matura.train.objectives import loss
from tests.model.tiny import build, gpt_stack, llama_config

ROWS = [Labelled((5, 6, 7), 2), Labelled((8,), 0), Labelled((9, 10, 11), 1), Labelled((12, 13), 2)]
NAMES = ("no", "perhaps", "yes")


def config(pool: str) -> c.ModelConfig:
    head = c.Classifier(labels=NAMES, pool=pool)  # type: ignore[arg-type]
    if pool != "last":
        return c.ModelConfig(vocabulary=97, context=16, encoder=gpt_stack(causal=False), head=head)
    return llama_config().model_copy(update={"head": head})


@pytest.mark.parametrize("pool", c.POOLS)
def test_packed_texts_get_the_scores_of_each_alone(pool: str) -> None:
    model = build(config(pool))
    read = model.decode if pool == "last" else model.encode
    assert model.head is not None
    batch = pack_labels(ROWS)
    assert (batch.weight, batch.tokens) == (4, 9)
    alone = torch.cat([model.head(read(torch.tensor([one.ids]))) for one in ROWS])
    torch.testing.assert_close(scores(model, batch), alone, rtol=0, atol=1e-12)
    expected = -alone.log_softmax(-1)[torch.arange(4), batch.targets_N].sum()
    torch.testing.assert_close(label_loss(model, batch), expected, rtol=0, atol=1e-12)
    assert torch.equal(loss(model, batch), label_loss(model, batch))


def test_a_model_without_such_a_head_has_no_scores() -> None:
    with pytest.raises(TypeError, match="no classification head"):
        scores(build(llama_config()), pack_labels(ROWS))
