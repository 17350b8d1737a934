"""A head that tells labels apart, on a model that had another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from matura.model import config as c
from matura.model.attention import Packed
from matura.model.heads import Classifier, Pooler, build_head, pick_spans
from matura.model.transformer import Transformer

DEVIATION = 0.02


def head_for(config: c.ModelConfig, labels: tuple[str, ...]) -> c.Classifier:
    """The head that such models have: an encoder's reads the first token through a projection (arXiv:1810.04805), a
    decoder's the last, which has seen all."""
    if config.encoder is not None:
        return c.Classifier(labels=labels)
    return c.Classifier(labels=labels, pool="last", hidden="none", bias=False)


@torch.no_grad()
def set_head(model: Transformer, head: c.Classifier, seed: int = 0) -> Transformer:
    """Give a model this head: normal(0, 0.02), biases zero; a pooler's projection goes into it. One that it has
    already stays as it is."""
    if model.config.head == head:
        return model
    old, like = model.head, model.embed.weight
    config = model.config.model_copy(update={"head": head})
    made = build_head(config)
    assert made is not None
    generator = torch.Generator().manual_seed(seed)
    for parameter in made.parameters():
        if parameter.dim() < 2:
            parameter.zero_()
        else:
            parameter.normal_(0.0, DEVIATION, generator=generator)
    if isinstance(old, Pooler) and isinstance(dense := made.dense, nn.Linear):
        dense.load_state_dict(old.dense.state_dict())
    model.head = made.to(like.device, like.dtype).train(model.training)
    model.config = config
    return model


def span_scores(
    model: Transformer, ids_1T: Tensor, mask: Packed, spans_N: Sequence[tuple[int, int]]
) -> Tensor:
    """Logits [N, L] of texts in a packed row [1, T], each at its (start, end), read where the head reads: by positions,
    never by pad ids. Raises TypeError for a model without such a head."""
    head = model.head
    if not isinstance(head, Classifier):
        raise TypeError("the model has no classification head")
    read = model.decode if model.encoder is None else model.encode
    return head.scores(pick_spans(read(ids_1T, mask=mask)[0], spans_N, head.pool))
