"""Classification: the head on the right token of every row, alone and in batches, and scores of each kind."""

import pytest
import torch

from matura.core.errors import MaturaError
from matura.infer.classify import classify, labels
from matura.model import config as c
from tests.model.tiny import build, gpt_stack, llama_config

ROWS = [[5, 6, 7], [8], [9, 10, 11, 12, 13], [14, 15]]


@pytest.mark.parametrize("pool", c.POOLS)
@pytest.mark.parametrize("names", [("no", "perhaps", "yes"), ("toxic",)])
def test_scores_are_those_of_every_text_alone(pool: str, names: tuple[str, ...]) -> None:
    """T5: neither padding nor the size of the batch changes a score."""
    head = c.Classifier(labels=names, pool=pool)  # type: ignore[arg-type]
    if pool != "last":
        model = build(c.ModelConfig(vocabulary=97, context=16, encoder=gpt_stack(causal=False), head=head))
    else:
        model = build(llama_config().model_copy(update={"head": head}))
    read = model.decode if pool == "last" else model.encode
    assert model.head is not None
    with torch.inference_mode():
        logits = torch.cat([model.head(read(torch.tensor([row]))) for row in ROWS])
    assert labels(model) == names
    for batch in (1, 3, 16):
        close(classify(model, ROWS, function="none", batch=batch), logits)
    close(classify(model, ROWS), logits.softmax(-1) if len(names) > 1 else logits.sigmoid())
    close(classify(model, ROWS, function="sigmoid"), logits.sigmoid())


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_a_model_without_labels_is_told() -> None:
    with pytest.raises(MaturaError, match="no classification head, so it has no labels"):
        classify(build(llama_config()), ROWS)
