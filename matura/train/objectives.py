"""Objectives: (model, batch) -> loss summed over the batch's weight."""

from __future__ import annotations

from torch import Tensor

from matura.model.logprobs import cross_entropy
from matura.model.transformer import Transformer
from matura.train.batches import PackedBatch


def next_token(model: Transformer, batch: PackedBatch) -> Tensor:
    """-log p(token | tokens before it in its own sequence), at trained positions only.

    The output layer, a fifth of a small model's work, is computed nowhere else.
    """
    hidden_1TD = model.decode(batch.ids_1T, mask=batch.mask)
    features_ND = model.features(hidden_1TD[0, batch.where_N])
    return cross_entropy(features_ND, model.unembedding, batch.targets_N, batch.weights_N)
