"""Rows for tokens that a vocabulary has gained, in the embedding and in the output layer.

Shape suffixes: V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from matura.model.heads import LanguageHead
from matura.model.transformer import Transformer


@torch.no_grad()
def grow(model: Transformer, size: int, pieces: Mapping[int, Sequence[int]]) -> Transformer:
    """Give a model of whole weights rows for `size` tokens, where it has not so many. The row of a new id is the mean
    of those of the ids that it stands for (`pieces`), wherever a token has a row: it says what they said, blurred.

    What is read and written with old ids stays as it was, but for the share of probability that new ones take.
    """
    rows = max(size, model.config.vocabulary)
    model.embed.weight = _longer(model.embed.weight, rows, pieces)
    model.embed.num_embeddings = rows
    head = model.head
    if isinstance(head, LanguageHead):
        if head.weight is not None:
            head.weight = _longer(head.weight, rows, pieces)
        if head.bias is not None:
            head.bias = _longer(head.bias, rows, pieces)
    model.config = model.config.model_copy(update={"vocabulary": rows})
    return model


def _longer(table: Tensor, rows: int, pieces: Mapping[int, Sequence[int]]) -> nn.Parameter:
    """A table [V, D], or a vector [V], with means in the places of new ids."""
    longer = torch.cat([table, table.new_zeros(rows - len(table), *table.shape[1:])])
    for new, old in pieces.items():
        longer[new] = table[list(old)].mean(0)
    return nn.Parameter(longer, requires_grad=table.requires_grad)
