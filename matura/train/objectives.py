"""Objectives: (model, batch) -> loss summed over the batch's weight.

`shaping` goes on to `cross_entropy`: its settings beyond the plain loss, by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from matura.model.logprobs import cross_entropy
from matura.model.transformer import Transformer
from matura.train.batches import PackedBatch, hidden_states
from matura.train.blocks import TokenBatch
from matura.train.corrupt import MaskedBatch, PairBatch
from matura.train.labels import LabelBatch, label_loss

Shaping = Mapping[str, Any]
AnyBatch = PackedBatch | TokenBatch | MaskedBatch | PairBatch | LabelBatch


def loss(model: Transformer, batch: AnyBatch, *, shaping: Shaping | None = None) -> Tensor:
    """The objective that belongs to the kind of batch, so that a mixture of several can be trained."""
    match batch:
        case PackedBatch():
            return next_token(model, batch, shaping=shaping)
        case TokenBatch():
            return every_token(model, batch, shaping=shaping)
        case MaskedBatch():
            return masked_tokens(model, batch, shaping=shaping)
        case PairBatch():
            return sequence_to_sequence(model, batch, shaping=shaping)
        case LabelBatch():
            return label_loss(model, batch)
    raise TypeError(f"no objective is for {type(batch).__name__}")


def next_token(model: Transformer, batch: PackedBatch, *, shaping: Shaping | None = None) -> Tensor:
    """-log p(token | tokens before it in its own sequence), at trained positions only.

    The output layer, a fifth of a small model's work, is computed nowhere else, nor is the last block's MLP.
    """
    return _loss(model, hidden_states(model, batch), batch.targets_N, batch.weights_N, shaping)


def every_token(model: Transformer, batch: TokenBatch, *, shaping: Shaping | None = None) -> Tensor:
    """-log p(next token | tokens before it in its own sequence), at every position."""
    hidden_ND = model.decode(batch.ids_BT, mask=batch.mask).flatten(0, 1)
    targets_N = batch.targets_BT.flatten()
    if batch.weights_BT is None:
        weights_N = torch.ones(targets_N.shape, device=targets_N.device)
    else:
        weights_N = batch.weights_BT.flatten()
    return _loss(model, hidden_ND, targets_N, weights_N, shaping)


def masked_tokens(model: Transformer, batch: MaskedBatch, *, shaping: Shaping | None = None) -> Tensor:
    """-log p(token that stood here | what is left of its sequence, on both sides), by an encoder."""
    hidden_ND = model.encode(batch.ids_BT, mask=batch.mask).flatten(0, 1)
    return _loss(model, hidden_ND[batch.where_N], batch.targets_N, batch.weights_N, shaping)


def sequence_to_sequence(model: Transformer, batch: PairBatch, *, shaping: Shaping | None = None) -> Tensor:
    """-log p(target token | source, target tokens before it), by a decoder that reads an encoder's output.

    Padding on the right of a target needs no mask: nothing real stands after it, so nothing real sees it.
    """
    memory_BSD = model.encode(batch.source_BS, mask=batch.source_mask_BS)
    hidden_BTD = model.decode(batch.ids_BT, memory_BSD=memory_BSD, memory_mask_BS=batch.source_mask_BS)
    where_N = batch.weights_BT.flatten().nonzero()[:, 0]
    targets_N, weights_N = batch.targets_BT.flatten()[where_N], batch.weights_BT.flatten()[where_N]
    return _loss(model, hidden_BTD.flatten(0, 1)[where_N], targets_N, weights_N, shaping)


def _loss(
    model: Transformer, hidden_ND: Tensor, targets_N: Tensor, weights_N: Tensor, shaping: Shaping | None
) -> Tensor:
    features_ND = model.features(hidden_ND)
    return cross_entropy(features_ND, model.unembedding, targets_N, weights_N, **(shaping or {}))
